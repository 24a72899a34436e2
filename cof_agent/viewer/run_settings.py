"""How compared runs were made: each property with its value in each run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cof_agent.evaluation.runs import Run
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.templates import cut

_UNRECORDED = "not recorded"
_LONG = 4_000  # characters of one text
_MOST_VALUES = 3  # of one setting that are listed; of more, the first and the last


def properties(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The value of each property in each run, by its name."""
    return {name: [cut(value(run), _LONG) for run in runs] for name, value in _PROPERTIES.items()}


def _of_settings(*keys: str) -> Callable[[Run], str]:
    """A setting by its path in `Trajectory.settings`, over all that a run has."""

    def value(run: Run) -> str:
        found: set[str] = set()
        for settings in run.all_settings:
            at: Any = settings
            for key in keys:
                at = at.get(key, _UNRECORDED) if isinstance(at, Mapping) else _UNRECORDED
            found.add(_plain(at))
        known = sorted(found, key=lambda text: (len(text), text))
        return ", ".join(known) if len(known) <= _MOST_VALUES else f"{known[0]} to {known[-1]}, {len(known)} values"

    return value


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "null"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def _or(none: str, value: Callable[[Run], str]) -> Callable[[Run], str]:
    """The same value with a word for null and for an empty list."""
    return lambda run: none if (found := value(run)) == "null" else found


def _versions(run: Run) -> str:
    found = (run.summary or {}).get("versions")
    if not isinstance(found, Mapping):
        return _UNRECORDED
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _different(value: Callable[[Trajectory], str]) -> Callable[[Run], str]:
    return lambda run: ", ".join(sorted({value(trajectory) for trajectory in run.trajectories})) or _UNRECORDED


def _order(trajectory: Trajectory) -> str:
    seed = trajectory.shuffle_seed
    return "as published" if seed is None else f"shuffled, seed {seed}"


_PROPERTIES: dict[str, Callable[[Run], str]] = {
    "folder": lambda run: str(run.folder),
    "command": lambda run: run.command or _UNRECORDED,
    "policy": _different(lambda trajectory: trajectory.policy),
    "strategy": _different(lambda trajectory: trajectory.strategy),
    "order of the options": _different(_order),
    "overview, long side in pixels": _or("as the limits allow", _of_settings("resolution")),
    "overview, pixels at most": _of_settings("limits", "max_pixels"),
    "crop, pixels at most": _of_settings("limits", "zoom_pixels"),
    "crop, shown pixels per source pixel": _of_settings("zoom_scale"),
    "zooms at most": _of_settings("max_zooms"),
    "boxes enlarged by": _of_settings("enlarge"),
    "crops": _of_settings("crop"),
    "coordinates": _of_settings("system"),
    "temperature": _of_settings("sampling", "temperature"),
    "seed": _or("none, greedy", _of_settings("sampling", "seed")),
    "tokens a turn at most": _of_settings("sampling", "max_tokens"),
    "tools beside the zoom": _or("none", _of_settings("tools")),
    "system prompt": _or("ours", _of_settings("prompt")),
    "protocol": _different(lambda trajectory: trajectory.protocol_version),
    "versions": _versions,
}
