"""What nano's own training stages share: options, the optimiser with the course of its rate, and what a run prints."""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from rich.progress import Progress
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cof_agent.errors import InputError
from cof_agent.output.files import json_object, write_atomic
from cof_agent.output.terminal import console

Item = TypeVar("Item")
SAVE_EVERY = 100
"""Steps between the states of a stage (see `keep`), from which the same command goes on after an interruption."""


def options(
    doc: str | None, *paths: str, optional: Sequence[str] = (), flags: Sequence[str] = (), **numbers: float
) -> argparse.Namespace:
    """The command line of a stage: `--PATH` for each of `paths` and of those that may be left out, `flags`, and `numbers` with
    their defaults. Sets the threads."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for path in paths:
        short = ["-o"] if path == "output" else []
        parser.add_argument(*short, f"--{path}", type=Path, required=True)
    for path in optional:
        parser.add_argument(f"--{path}", type=Path)
    for name in flags:
        parser.add_argument(f"--{name}", action="store_true")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="another core draws the lessons")
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    return parsed


def one_cycle(progress: float) -> float:
    """The share of the learning rate: up over the first twentieth, then down along a cosine."""
    return min(1.0, progress / 0.05 + 0.02) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Optimiser:
    """AdamW along one cycle of the learning rate, gradients clipped to a norm of 1: how all stages of nano learn.

    groups: parameters, or groups of them with rates of their own, as torch's optimisers take them.
    """

    def __init__(self, groups: Iterable[Any], rate: float, steps: int) -> None:
        self._adamw = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
        self._schedule = LambdaLR(self._adamw, lambda step: one_cycle(step / steps))

    def step(self) -> None:
        """One update from the gradients, which are gone then."""
        nn.utils.clip_grad_norm_([one for group in self._adamw.param_groups for one in group["params"]], 1.0)
        self._adamw.step()
        self._schedule.step()
        self._adamw.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"adamw": self._adamw.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state["adamw"])
        self._schedule.load_state_dict(state["schedule"])


def is_finished(record: Path, given: dict[str, Any]) -> bool:
    """Whether a stage has left its record, of a run with these settings.

    Raises:
        InputError: if it is of a run with others, which would be taken for this one.
    """
    earlier = json_object(record)
    if earlier is None:
        return False
    _check_same(record.parent, earlier, given)
    print(f"{record.parent} is trained already, and left as it is.")
    return True


def _check_same(output: Path, earlier: dict[str, Any], given: dict[str, Any]) -> None:
    if different := [name for name, value in given.items() if name in earlier and earlier[name] != value]:
        told = ", ".join(f"{name} {earlier[name]} and not {given[name]}" for name in different)
        raise InputError(f"{output} was trained with {told}; name another output.")


def restore(path: Path, stateful: dict[str, Any], given: dict[str, Any]) -> int:
    """Load the state of an interrupted run; returns the steps it had done.

    Raises:
        InputError: if it is of a run with other settings.
    """
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    _check_same(path.parent, saved["given"], given)
    for name, part in stateful.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def keep(path: Path, step: int, stateful: dict[str, Any], given: dict[str, Any]) -> None:
    """Save the state of a run with these settings, for `restore`."""
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in stateful.items()}
    torch.save({"step": step, "given": given} | states, buffer)
    write_atomic(path, buffer.getvalue())


class Report:
    """A bar while a stage runs, and a line every 25 steps: mean accuracies since the last one."""

    def __init__(self, steps: int, start: int, name: str) -> None:
        self.name, self.steps, self.done = name, steps, start
        self.console = console(stderr=True)
        self.log: list[dict[str, float]] = []

    def track(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The batches, one a step, while the bar is shown."""
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            yield from bar.track(batches, self.steps, self.done, description=self.name)

    def add(self, accuracy: dict[str, float]) -> None:
        self.log.append(accuracy)
        self.done += 1
        if self.done % 25 and self.done != self.steps:
            return
        names = dict.fromkeys(name for entry in self.log for name in entry)
        means = {name: fmean(entry[name] for entry in self.log if name in entry) for name in names}
        self.say(f"{self.done}/{self.steps}", means)
        self.log.clear()

    def say(self, what: str, figures: dict[str, float]) -> None:
        """A line of figures."""
        told = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.console.print(f"{self.name} {what}: {told}")
