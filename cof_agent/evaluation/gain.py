"""What looking closer gains and what it costs, on the same questions answered twice.

Of the questions that are wrong from the overview, how many does a run that may zoom mend? Of those that are right from it,
how many does it break?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cof_agent import scoring
from cof_agent.evaluation.compare import Pair, shared
from cof_agent.evaluation.metrics import UNKNOWN, grouped, interval
from cof_agent.evaluation.runs import TABLES, Run

HEADINGS = ("", "wrong before", "mended", "95 %", "right before", "broken", "95 %")


def is_overview(run: Run) -> bool:
    """Whether a run sees the overview only."""
    return bool(run.trajectories) and all(settings.get("max_zooms") == 0 for settings in run.all_settings)


def gains(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """For each run that may zoom, by its name, `gain` against the first run that sees the overview only. Empty without such a
    run; a run that shares no question with it is left out."""
    overview = next((run for run in runs if is_overview(run)), None)
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if overview is not None and not is_overview(run) and (pairs := shared(overview.trajectories, run.trajectories)):
            found[run.name] = {"overview": overview.name} | gain(pairs)
    return found


def gain(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures of `part`, over all pairs and by category and resolution. first: the overview alone; second: looking closer."""
    found = part(pairs)
    for name, key in TABLES.items():
        groups = grouped(pairs, lambda pair, key=key: key(pair.first))  # type: ignore[misc]
        found[name] = {row: part(group) for row, group in groups if row != UNKNOWN}
    return found


def part(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How many answers are `wrong` and `right` from the overview, how many of them are `mended` and `broken` by looking closer,
    and these as shares (None of nothing) with their 95 % intervals: Wilson's, or by bootstrap over questions that were asked
    more than once. Answers that cannot be scored are left out."""
    judged = [(pair, scoring.accuracy(pair.first), scoring.accuracy(pair.second)) for pair in pairs]
    wrong = [(pair, after) for pair, before, after in judged if before is False and after is not None]
    right = [(pair, not after) for pair, before, after in judged if before and after is not None]
    return {
        "n": len(wrong) + len(right),
        **_share("wrong", "mended", wrong),
        **_share("right", "broken", right),
    }


def _share(of: str, name: str, found: Sequence[tuple[Pair, bool]]) -> dict[str, Any]:
    """found: pairs, and whether what `name` says happened to each."""
    count = sum(happened for _, happened in found)
    return {
        of: len(found),
        name: count,
        f"{name}_share": round(count / len(found), 4) if found else None,
        f"{name}_ci95": interval([float(happened) for _, happened in found], [pair.question for pair, _ in found]),
    }


def rows(found: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of `gain` with their names, for tables."""
    parts = [(f"{name.removeprefix('by_')} {row}", one) for name in TABLES for row, one in found[name].items()]
    return [("all", dict(found)), *parts]


def cells(one: Mapping[str, Any]) -> list[str]:
    """A row of `rows` as text, under `HEADINGS` without the first."""
    return [*_cells(one, "wrong", "mended"), *_cells(one, "right", "broken")]


def _cells(one: Mapping[str, Any], of: str, name: str) -> list[str]:
    share, ends = one[f"{name}_share"], one[f"{name}_ci95"]
    if share is None or ends is None:
        return [f"{one[of]:,}", "-", "-"]
    return [f"{one[of]:,}", f"{one[name]:,} ({share:.3f})", f"{ends[0]:.3f} to {ends[1]:.3f}"]


def lines(found: Mapping[str, Any]) -> list[list[str]]:
    """A whole table, `HEADINGS` first."""
    return [list(HEADINGS), *([name, *cells(one)] for name, one in rows(found))]


def title(name: str, found: Mapping[str, Any]) -> str:
    """What a table of a run's gain is called."""
    return f"What looking closer gains and costs: {name} against {found['overview']}"
