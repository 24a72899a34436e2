"""Runs of `cof eval` as they lie on disk: their trajectories, the summary beside them, and their figures, computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import UNKNOWN, category, figures, grouped, number, over_parts, pixels_of, resolution
from cof_agent.output.files import json_object
from cof_agent.trajectory import StopReason, Trajectory, read_jsonl

Figures = Callable[[Sequence[Trajectory]], dict[str, Any]]

TABLES: dict[str, Callable[[Trajectory], str]] = {"by_category": category, "by_resolution": resolution}


@dataclass(frozen=True, eq=False)
class Run:
    """One run. summary: what `cof eval` wrote beside the trajectories; None where there is nothing readable.

    figures_of: computes the figures; runs that share a `remembered` one compute none twice.
    """

    name: str
    trajectories: Sequence[Trajectory]
    folder: Path = Path()
    summary: Mapping[str, Any] | None = None
    figures_of: Figures = field(default=figures, repr=False)

    @cached_property
    def all_settings(self) -> list[Mapping[str, Any]]:
        """The different settings in the run, its first trajectory's first: with several resolutions `limits` differ."""
        return list({json.dumps(one.settings, sort_keys=True): one.settings for one in self.trajectories}.values())

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the first trajectory."""
        return self.all_settings[0] if self.trajectories else {}

    @property
    def command(self) -> str | None:
        """The command that made the run; None where it is not recorded."""
        found = (self.summary or {}).get("command")
        return found if isinstance(found, str) else None

    @cached_property
    def figures(self) -> dict[str, Any]:
        """`metrics.figures` of the whole run."""
        return self.figures_of(self.trajectories)

    @cached_property
    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The figures by category and by resolution, those of an unknown one left out."""
        return {
            name: {row: self.figures_of(group) for row, group in grouped(self.trajectories, key) if row != UNKNOWN}
            for name, key in TABLES.items()
        }


SIDE_BY_SIDE = "Accuracy, in brackets image tokens a question"


def side_by_side(runs: Sequence[Run]) -> list[list[str]]:
    """All runs, each on all its own questions, at each resolution and together, as `SIDE_BY_SIDE` says; the accuracy over parts
    where a benchmark's authors average so; then zooms and seconds of generation a question. The first row has the headings."""
    sides = sorted({side for run in runs for side in run.tables["by_resolution"]}, key=pixels_of)
    averaged = [over_parts(run.trajectories) for run in runs]
    in_parts = any(one is not None for one in averaged)
    rows = [["", "n", *sides, "all", *(["over parts"] if in_parts else []), "zooms", "seconds"]]
    for run, over in zip(runs, averaged, strict=True):
        found = [run.tables["by_resolution"].get(side) for side in sides]
        cells = [_accuracy_and_cost(part) if part else "-" for part in [*found, run.figures]]
        cells += [number(over, 3)] if in_parts else []
        costs = [number(run.figures[name], 2) for name in ("mean_zooms", "seconds")]
        rows.append([run.name, f"{run.figures['n']:,}", *cells, *costs])
    return rows


def _accuracy_and_cost(part: Mapping[str, Any]) -> str:
    return f"{number(part['accuracy'], 3)} ({number(part['image_tokens'], 0)})"


def remembered(function: Figures) -> Figures:
    """The function with a memory: of the very same trajectories in the same order, it is called once."""
    found: dict[tuple[int, ...], tuple[Sequence[Trajectory], dict[str, Any]]] = {}

    def once(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        key = tuple(map(id, trajectories))
        if key not in found:
            found[key] = list(trajectories), function(trajectories)  # kept alive, so that no other gets its identity
        return found[key][1]

    return once


def read_runs(paths: Sequence[Path], *, alone: bool = False) -> list[Run]:
    """The runs at these paths, folders or trajectory files; each is named by its folder, or by as much of its path as
    tells it from the others. alone: whether one is enough.

    Raises:
        InputError: if there are too few, one has no trajectories or is named twice, or a file cannot be read.
    """
    if len(paths) < 2 and not alone:
        raise InputError("name at least two runs, folders that `cof eval` has written.")
    files = [path / "trajectories.jsonl" if path.is_dir() else path for path in paths]
    figures_of, runs = remembered(figures), dict[str, Run]()
    for path, file in zip(paths, files, strict=True):
        if not file.exists():
            raise InputError(f"{path} has no trajectories.jsonl; `cof eval` writes one.")
        same = [other for other in paths if other.resolve().name == path.resolve().name]
        name = path.resolve().name if len(same) == 1 else str(path)
        if name in runs:
            raise InputError(f"{path} is named twice.")
        trajectories = _last_tries(list(read_jsonl(file, Trajectory)))
        runs[name] = Run(name, trajectories, file.parent, json_object(file.parent / "summary.json"), figures_of)
    return list(runs.values())


def _last_tries(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Without failures that the same run has tried again later: they go only when it ends."""
    last = {one.key: place for place, one in enumerate(trajectories)}
    return [one for place, one in enumerate(trajectories) if one.stop is not StopReason.ERROR or last[one.key] == place]
