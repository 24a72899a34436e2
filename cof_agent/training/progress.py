"""The progress of a training as a table, one line for each entry of its log. On a terminal a bar stands below it.

The line shows the figures that say how it goes. All others are in `log_history` and in the trackers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from cof_agent.output.escape import for_terminal
from cof_agent.output.progress import clock
from cof_agent.output.terminal import console

REPEATED = 20
"""Lines after which the head of the table is written again."""
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One figure of each line. key: its name in the log. form: how it is written, as in `format`; empty for a text.
    width: letters that it takes at least."""

    head: str
    key: str
    form: str = ""
    width: int = 6

    def cell(self, entry: Mapping[str, Any]) -> str:
        """What stands in a line; a dash where the entry has no such figure."""
        value = entry.get(self.key)
        return "-" if value is None else format(value, self.form)


STEP, LEFT = Column("step", "step"), Column("left", "left", width=7)
RATE = Column("lr", "learning_rate", ".1e", 7)
PACE = Column("s/step", "seconds/step", ".1f")
GRADIENT = Column("grad", "grad_norm", ".2g")
"""Columns of each training. `step`, `left`, `seconds/step` and `tokens/second` are the table's own figures."""


class ProgressTable(TrainerCallback):
    """Writes the table to stdout.

    columns: in the order of their importance. Those whose figures the training does not log are left out, and on a narrow
    terminal the last ones.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = (STEP, LEFT, *columns)
        self._shown: list[Column] = []
        self._keys: set[str] = set()
        self._lines = 0
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        hidden = True if args.disable_tqdm else None  # None: on a terminal only
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=hidden)
        self._first = self._step = state.global_step
        self._tokens = None if state.global_step else 0.0
        self._began = self._clock = time.monotonic()
        self._seconds = 0.0  # of the steps since the last line, without evaluations and checkpoints in between

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is None:
            return
        now = time.monotonic()
        self._seconds, self._clock = self._seconds + now - self._clock, now
        self._bar.update(1)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._clock = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            self._line({**logs, **self._pace(state, logs)}, len(f"{state.max_steps}"))
        else:
            _say(told(logs, state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _pace(self, state: Any, logs: Mapping[str, Any]) -> dict[str, Any]:
        """The figures of the first columns. Time left counts evaluations and checkpoints in."""
        done, tokens = state.global_step - self._first, logs.get("num_tokens")
        left = (time.monotonic() - self._began) / max(1, done) * (state.max_steps - state.global_step)
        found: dict[str, Any] = {"step": f"{state.global_step}/{state.max_steps}", "left": clock(left)}
        if state.global_step > self._step:
            found["seconds/step"] = self._seconds / (state.global_step - self._step)
        if tokens is not None and self._tokens is not None and self._seconds > 0:
            found["tokens/second"] = (tokens - self._tokens) / self._seconds
        self._step, self._seconds, self._tokens = state.global_step, 0.0, tokens
        return found

    def _line(self, entry: Mapping[str, Any], digits: int) -> None:
        logged = {column.key for column in self._columns if entry.get(column.key) is not None}
        if self._lines % REPEATED == 0 or not logged <= self._keys:
            self._keys |= logged
            self._widths = {column.key: max(len(column.head), column.width) for column in self._columns}
            self._widths[STEP.key] = max(len(STEP.head), 2 * digits + 1)
            self._shown = self._fitting()
            _say(self._row([for_terminal(column.head) for column in self._shown]))
            self._lines = 0
        _say(self._row([column.cell(entry) for column in self._shown]))
        self._lines += 1

    def _fitting(self) -> list[Column]:
        """The columns that have something to say, as many as fit side by side."""
        known = [column for column in self._columns if column.key in self._keys]
        room, found = console().width, list[Column]()
        for column in known:
            room -= self._widths[column.key] + len(_GAP)
            if room < -len(_GAP):
                break
            found.append(column)
        return found

    def _row(self, cells: Sequence[str]) -> str:
        widths = [self._widths[column.key] for column in self._shown]
        return _GAP.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _say(line: str) -> None:
    """Above the bar, and at once: a log file is read while it is written."""
    tqdm.write(line)
    sys.stdout.flush()


def progress(columns: Sequence[Column], *, quiet: bool) -> list[TrainerCallback]:
    """What a trainer is given to write such a table; nothing if `quiet`."""
    return [] if quiet else [ProgressTable(columns)]


def told(logs: Mapping[str, Any], step: int) -> str:
    """A line about what is no step: the end of the training, or an evaluation."""
    if "train_runtime" in logs:
        return f"trained to step {step} in {clock(logs['train_runtime'])}, mean loss {logs['train_loss']:.4g}"
    shown = {name.removeprefix("eval_").replace("_", " "): value for name, value in logs.items() if name != "epoch"}
    figures = ", ".join(f"{name} {format(value, '.3g')}" for name, value in shown.items())
    return for_terminal(f"evaluation at step {step}: {figures}")
