"""Numbers from trajectories: accuracy with its interval, pointing, zooms, tokens, and how runs ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypeVar

import numpy as np

from cof_agent import scoring
from cof_agent.episodes import PART_OF, chosen_resolution, question_of, resolution_of
from cof_agent.geometry import Size, smart_resize
from cof_agent.scoring.answer_match import says_yes, says_yes_as_pope
from cof_agent.trajectory import StopReason, Trajectory, failures

UNKNOWN = "unknown"
Item = TypeVar("Item")
Score = Callable[[Trajectory], float | None]
"""How right a trajectory is, 0 to 1; None if that is not known."""


def summarise(
    trajectories: Sequence[Trajectory],
    score: Score = scoring.score,
    tables: Mapping[str, Callable[[Trajectory], str]] | None = None,
) -> dict[str, Any]:
    """The summary of a run: its figures, and the same figures by category and resolution, and by play where every question
    was asked several times (`plays` has the mean accuracy of these and their standard deviation). Where a benchmark's authors
    average over parts, `accuracy_over_parts` is their figure; `yes_and_no` has those of questions of yes or no.

    tables: further tables by name, each with the row that a trajectory belongs to.
    """
    every = {"by_category": category, "by_resolution": resolution, **(tables or {})}
    summary = figures(trajectories, score) | {"errors": failures(trajectories)}
    for name, key in every.items():
        summary[name] = {row: figures(group, score) for row, group in grouped(trajectories, key)}
    if (averaged := over_parts(trajectories, score)) is not None:
        summary["accuracy_over_parts"] = averaged
    if (told := yes_and_no(trajectories)) is not None:
        summary["yes_and_no"] = told
        parts = grouped(trajectories, category)
        if len(parts) > 1:  # POPE is three sets, which its authors report one by one
            summary["yes_and_no_by_category"] = {row: yes_and_no(group) for row, group in parts}
    if all(t.play is not None for t in trajectories):
        summary["by_play"] = {row: figures(group, score) for row, group in grouped(trajectories, lambda t: str(t.play))}
        scores = [row["accuracy"] for row in summary["by_play"].values()]
        if None not in scores and len(scores) > 1:
            summary["plays"] = {"mean_accuracy": _mean(scores), "sd_accuracy": round(stdev(scores), 4)}
    return summary


def over_parts(trajectories: Sequence[Trajectory], score: Score = scoring.score) -> float | None:
    """The mean over a benchmark's parts, as `episodes.PART_OF` names them, of the mean over the parts of each, and so on; None
    where a question belongs to no part or nothing can be scored."""
    if not all(PART_OF in one.sample.metadata for one in trajectories):
        return None
    scored = [(one.sample.metadata[PART_OF], found) for one in trajectories if (found := score(one)) is not None]
    return round(_nested_mean(scored), 4) if scored else None


def _nested_mean(scored: Sequence[tuple[Sequence[str], float]]) -> float:
    if not scored[0][0]:
        return fmean(found for _, found in scored)
    groups = grouped(scored, lambda one: str(one[0][0]))
    return fmean(_nested_mean([(parts[1:], found) for parts, found in group]) for _, group in groups)


def yes_and_no(trajectories: Sequence[Trajectory]) -> dict[str, float | None] | None:
    """Of questions to be answered with yes or no, what POPE (Li et al., arXiv 2305.10355) reports beside accuracy: precision,
    recall and F1 of yes, and the share of answers that say yes, read by its own rule; None where there are others. No answer is
    no yes."""
    known = [one for one in trajectories if one.sample.answers]
    if not known or any(one.sample.metadata.get("scoring") != "yes_no" for one in known):
        return None
    said = [one.answer is not None and says_yes_as_pope(one.answer) for one in known]
    true = [says_yes(one.sample.answers[0]) is True for one in known]
    hits, yes, wanted = sum(a and b for a, b in zip(said, true, strict=True)), sum(said), sum(true)
    return {
        "precision": round(hits / yes, 4) if yes else None,
        "recall": round(hits / wanted, 4) if wanted else None,
        "f1": round(2 * hits / (yes + wanted), 4) if yes + wanted else None,
        "yes": round(yes / len(said), 4),
    }


def category(trajectory: Trajectory) -> str:
    """The sample's category."""
    return str(trajectory.sample.metadata.get("category", UNKNOWN))


def resolution(trajectory: Trajectory) -> str:
    """The resolution that was chosen; else "to 4096", the next power of two, for photographs have as many sizes as there are
    of them."""
    if (side := chosen_resolution(trajectory)) is not None:
        return str(side)
    own = resolution_of(trajectory)
    return UNKNOWN if own is None else f"{_UP_TO}{max(_SMALLEST, 1 << (own - 1).bit_length())}"


def pixels_of(row: str) -> int:
    """The number in what `resolution` says of pictures that were opened."""
    return int(row.removeprefix(_UP_TO))


_UP_TO = "to "
_SMALLEST = 512


def figures(trajectories: Sequence[Trajectory], score: Score = scoring.score) -> dict[str, Any]:
    """One row of figures. Means are over trajectories; seconds are of generation, summed over a trajectory's turns.

    A question that cannot be scored, for want of a known answer or of a judge's verdict, is left out of the accuracy and
    counted in `unscored`; one that was not answered counts as wrong.
    """
    scored = [(found, question_of(t.sample)) for t in trajectories if (found := score(t)) is not None]
    scores = [found for found, _ in scored]
    hits = [hit for t in trajectories if (hit := scoring.target_hits(t)) is not None]
    stops = Counter(t.stop.value for t in trajectories)
    return {
        "n": len(trajectories),
        "unscored": len(trajectories) - len(scores),
        "accuracy": _mean(scores),
        "accuracy_ci95": interval(scores, [question for _, question in scored]),
        "target_hit_rate": _mean(hits),
        "mean_zooms": _mean([t.zooms for t in trajectories]),
        "image_tokens": _mean(_known(image_tokens(t) for t in trajectories)),
        "image_tokens_full": _mean(_known(image_tokens_full(t) for t in trajectories)),
        "tokens_in": _mean([_tokens(t, "prompt") for t in trajectories]),
        "tokens_out": _mean([_tokens(t, "completion") for t in trajectories]),
        "seconds": _mean([t.seconds for t in trajectories]),
        "malformed_rate": _mean([scoring.malformed(t) for t in trajectories]),
        "stop_reasons": {reason.value: stops[reason.value] for reason in StopReason if stops[reason.value]},
    }


HEADINGS = ("", "n", "accuracy", "95 %", "hits", "zooms", "image", "tokens in", "out", "malformed")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of figures as text, under `HEADINGS` without the first."""
    unscored = f" ({row['unscored']:,} unscored)" if row["unscored"] else ""
    ends = row["accuracy_ci95"]
    digits = {
        "target_hit_rate": 3,
        "mean_zooms": 2,
        "image_tokens": 0,
        "tokens_in": 0,
        "tokens_out": 0,
        "malformed_rate": 3,
    }
    return [
        f"{row['n']:,}{unscored}",
        number(row["accuracy"], 3),
        f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-",
        *(number(row[name], count) for name, count in digits.items()),
    ]


def number(value: float | None, digits: int) -> str:
    """A figure as text; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def interval(scores: Sequence[float], questions: Sequence[str] | None = None) -> list[float] | None:
    """The 95 % interval of a mean of scores: Wilson's where each question is right or wrong, else by bootstrap over questions;
    None for none. questions: which one each score belongs to, where they are not all different.

    A bootstrap knows no spread where all questions have the same mean; then it is Wilson's, too, with that mean as the share.
    """
    if not scores:
        return None
    order: dict[str, int] = {}
    names = questions if questions is not None else [str(number) for number in range(len(scores))]
    place = [order.setdefault(name, len(order)) for name in names]
    sums, counts = np.bincount(place, weights=scores), np.bincount(place)
    means = sums / counts
    alike = np.ptp(means) < 1e-9 and 0 <= means[0] <= 1
    if alike or (np.ptp(counts) == 0 and np.isin(means, (0, 1)).all()):
        return wilson(float(means.sum()), len(order))
    random = np.random.default_rng(0)
    drawn = (random.integers(len(order), size=len(order)) for _ in range(2_000))
    of_samples = [sums[taken].sum() / counts[taken].sum() for taken in drawn]
    return [round(float(end), 4) for end in np.percentile(of_samples, (2.5, 97.5))]


def wilson(right: float, n: int) -> list[float] | None:
    """The 95 % Wilson score interval of a proportion (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    z = 1.959964
    share, spread = right / n, z * math.sqrt(right / n * (1 - right / n) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    return [round(max(0.0, (middle - spread) / scale), 4), round(min(1.0, (middle + spread) / scale), 4)]


def _tokens(trajectory: Trajectory, side: str) -> int:
    """Prompt or completion tokens over all turns; a turn of which the server said nothing counts none."""
    return sum(getattr(turn.tokens, side) or 0 for turn in trajectory.turns)


def image_tokens(trajectory: Trajectory) -> float | None:
    """Image tokens of all the views that were shown, each counted once however often it was read again; None where nothing
    was shown, or the record does not say how large a token is."""
    grid = _limit(trajectory, "grid")
    return sum(view.shown_size.area for view in trajectory.views) / grid**2 if trajectory.views and grid else None


def image_tokens_full(trajectory: Trajectory) -> float | None:
    """Image tokens of the whole pictures read at full resolution, without a limit; None as `image_tokens`."""
    grid, sizes = _limit(trajectory, "grid"), [view.source_size for view in trajectory.overviews]
    if not sizes or not grid:
        return None
    least = _limit(trajectory, "min_pixels") or grid**2
    return sum(_area_without_limit(size, grid, least) for size in sizes) / grid**2


def _area_without_limit(size: Size, grid: int, least: int) -> int:
    most = max(4 * least, 4 * size.long_side**2, 4 * grid**2)
    return smart_resize(size, grid=grid, min_pixels=least, max_pixels=most).area


def _limit(trajectory: Trajectory, name: str) -> int | None:
    limits = trajectory.settings.get("limits")
    found = limits.get(name) if isinstance(limits, dict) else None
    return found if isinstance(found, int) and found > 0 else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(fmean(found), 4) if found else None


def grouped(items: Sequence[Item], key: Callable[[Item], str]) -> list[tuple[str, list[Item]]]:
    """The items by key, shorter keys first, so that numbers come in order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return sorted(groups.items(), key=lambda item: (len(item[0]), item[0]))
