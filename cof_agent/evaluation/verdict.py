"""What comes out of a comparison, in sentences: what stands first on its page."""

from __future__ import annotations

from collections.abc import Sequence

from cof_agent.evaluation import controls
from cof_agent.evaluation.compare import Pair, shared
from cof_agent.evaluation.controls import Measured
from cof_agent.evaluation.runs import Run


def verdict(runs: Sequence[Run]) -> list[str]:
    """A sentence on each run but the first, on each control, and on the letters of each run that leans towards some."""
    base, *others = runs
    found = controls.findings(runs)
    said = {one.pair for one in found}
    plain = [
        difference_said(base.name, other.name, pairs)
        for other in others
        if frozenset((base.name, other.name)) not in said and (pairs := shared(base.trajectories, other.trajectories))
    ]
    return [*([*plain, *(one.sentence for one in found), *_letters(runs)] or [_alone(base)]), *_scored_otherwise(runs)]


def difference_said(base: str, other: str, pairs: Sequence[Pair]) -> str:
    """Which of two runs is better, if that can be told from chance."""
    found = Measured.of(pairs)
    meaning = {
        -1: f"{other} is worse than {base}.",
        0: "this difference may be chance.",
        1: f"{other} is better than {base}.",
    }
    asked = "the one question" if len(pairs) == 1 else f"the {len(pairs):,} questions"
    return f"On {asked} that both were asked, {other} instead of {base} takes {found.said}: {meaning[found.direction]}"


def _letters(runs: Sequence[Run]) -> list[str]:
    found = [(run.name, controls.letters(run.trajectories)) for run in runs]
    return [controls.letters_said(name, letters) for name, letters in found if letters and letters.leaning]


def _scored_otherwise(runs: Sequence[Run]) -> list[str]:
    """A comparison scores all runs alike, by the rule of each sample: where the summary of one says something else."""
    by = [(run.name, (run.summary or {}).get("scoring") or (run.summary or {}).get("judge")) for run in runs]
    named = [(name, one["name"] if isinstance(one, dict) and "name" in one else one) for name, one in by if one]
    return [
        f"{name} was scored by {one}, which its summary.json has; here each sample's own rule counts."
        for name, one in named
    ]


def _alone(run: Run) -> str:
    accuracy = run.figures["accuracy"]
    if accuracy is None:
        return f"None of the {run.figures['n']:,} answers of {run.name} can be scored."
    low, high = run.figures["accuracy_ci95"]
    return f"{run.name} has an accuracy of {accuracy:.3f} on {run.figures['n']:,} questions (95 % {low:.3f} to {high:.3f})."
