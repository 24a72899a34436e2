"""Says when a run stops using its tool: zooming has all but ceased, or what crops show makes no difference."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

WINDOW = 10
"""Log entries that are compared: the first of the run and the last."""
COLLAPSED = 0.1
"""Share of the zooms at first below which zooming has all but ceased."""

_log = logging.getLogger(__name__)


class ToolWatch(TrainerCallback):
    """Logs a warning, once, when either happens; it reads the run's own log, so that a resumed run warns as well."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        for warning in (collapse(state.log_history), unused_crops(logs or {})):
            if warning is not None and warning[0] not in self._said:
                self._said.add(warning[0])
                _log.warning(warning[1])


def collapse(history: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
    """A warning, by name, when zooms per rollout have fallen to almost none; None as long as they have not."""
    zooms = [entry["zooms/mean"] for entry in history if entry.get("zooms/mean") is not None]
    if len(zooms) < 2 * WINDOW:
        return None
    before, now = fmean(zooms[:WINDOW]), fmean(zooms[-WINDOW:])
    if before == 0 or now >= COLLAPSED * before:
        return None
    return "collapse", (
        f"zooms per rollout fell from {before:.2f} to {now:.2f}; if the questions need them, the reward does not: look at "
        "the rollouts with `cof view`, at accuracy/direct, and at the share of groups without variance."
    )


def unused_crops(logs: dict[str, Any]) -> tuple[str, str] | None:
    """A warning, by name, when held-out samples are answered as well with grey crops (`eval_blank`)."""
    gain = logs.get("eval_crop_gain")
    if gain is None or gain > 0:
        return None
    return "unused", (
        f"grey crops cost it nothing (eval_crop_gain {gain:.2f}): on the held-out samples that it zooms on, what it sees "
        "there does not help its answer."
    )
