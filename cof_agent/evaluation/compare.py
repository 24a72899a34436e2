"""Two runs on the same questions: the difference between them, question by question.

Intervals are of a paired bootstrap, p of a paired permutation test, both over questions: a question that was asked several
times or at several resolutions is drawn, or changes sides, as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cof_agent import scoring
from cof_agent.episodes import question_of
from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import UNKNOWN, figures, grouped
from cof_agent.evaluation.runs import TABLES, Figures
from cof_agent.region_refs import IN_WORDS
from cof_agent.trajectory import Sample, Trajectory

DRAWS = 10_000
"""Bootstrap samples and permutations."""
_BLOCK = 2_000_000  # numbers drawn at a time
_SEED = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, asked once at one resolution, in both runs."""

    first: Trajectory
    second: Trajectory

    @property
    def question(self) -> str:
        """As `episodes.question_of`."""
        return question_of(self.first.sample)


def compare(
    first: Sequence[Trajectory], second: Sequence[Trajectory], *, figures_of: Figures = figures
) -> dict[str, Any]:
    """`n`, both runs' figures and their difference (second minus first), over all pairs and by category and resolution.

    figures_of: computes the figures, as `Run.figures_of`.

    Raises:
        InputError: if the runs share no question with a known answer, or ask different things under one id.
    """
    pairs = pairs_of(first, second)
    compared = difference(pairs, figures_of)
    for name, key in TABLES.items():
        groups = grouped(pairs, lambda pair, key=key: key(pair.first))  # type: ignore[misc]
        compared[name] = {row: difference(group, figures_of) for row, group in groups if row != UNKNOWN}
    return compared


def pairs_of(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> list[Pair]:
    """The questions with a known answer that both runs were asked, in the order of the first. The order of a question's
    options may differ, and one run may be asked by region what the other is asked in words.

    Raises:
        InputError: as `compare`.
    """
    for run in (first, second):
        if len({one.key for one in run}) < len(run):
            twice, _ = Counter(one.key for one in run).most_common(1)[0]
            raise InputError(
                f"a run has {twice[0]!r} twice, so it cannot be compared; were two runs put into one file?"
            )
    others = {one.key: one for one in second}
    found = [Pair(one, others[one.key]) for one in first if one.key in others and one.sample.answers]
    pairs = [pair for pair in found if None not in (scoring.score(pair.first), scoring.score(pair.second))]
    for pair in pairs:
        asked, other = pair.first.sample, pair.second.sample
        if _asked(asked) != _asked(other):
            raise InputError(f"the runs ask different things under the id {asked.id!r}, so they cannot be compared.")
    if not pairs:
        plays = {one.play for one in first}.isdisjoint(one.play for one in second)
        hint = ": one was asked once, the other several times (--plays)" if plays and first and second else ""
        raise InputError(f"the runs share no question with a known answer{hint}, so there is nothing to compare.")
    return pairs


def shared(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> list[Pair]:
    """As `pairs_of`, but empty where the runs share no question or ask different things."""
    try:
        return pairs_of(first, second)
    except InputError:
        return []


def _asked(sample: Sample) -> tuple[str, tuple[str, ...], list[str]]:
    return str(sample.metadata.get(IN_WORDS, sample.question)), sample.answers, sorted(sample.choices)


def right_of(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """How right each run's answer to each question is (`scoring.score`)."""
    return [(_known(pair.first), _known(pair.second)) for pair in pairs]


def _known(trajectory: Trajectory) -> float:
    score = scoring.score(trajectory)
    assert score is not None, "pairs have a known answer"
    return score


def difference(pairs: Sequence[Pair], figures_of: Figures = figures) -> dict[str, Any]:
    """Figures of both runs over the pairs, and of accuracy and zooms the difference with its 95 % interval and p."""
    right = right_of(pairs)
    zooms = [(pair.first.zooms, pair.second.zooms) for pair in pairs]
    questions = [pair.question for pair in pairs]
    return {
        "n": len(pairs),
        "first": figures_of([pair.first for pair in pairs]),
        "second": figures_of([pair.second for pair in pairs]),
        "gained": sum(after > before for before, after in right),
        "lost": sum(before > after for before, after in right),
        "accuracy": paired(right, questions),
        "zooms": paired(zooms, questions),
    }


def paired(values: Sequence[tuple[float, float]], questions: Sequence[str]) -> dict[str, Any]:
    """The mean difference of pairs (second minus first): `difference`, `ci95` by bootstrap, `p` by permutation.

    questions: which question each pair belongs to; pairs of one question stay together. The draws have a seed of their
    own, so that the same pairs give the same numbers.
    """
    order: dict[str, int] = {}
    place = [order.setdefault(question, len(order)) for question in questions]
    sums = np.bincount(place, weights=[after - before for before, after in values])
    counts = np.bincount(place).astype(float)
    mean = float(sums.sum() / counts.sum())
    means, extreme = _draw(sums, counts)
    return {
        "difference": round(mean, 4),
        "ci95": _ends(means),
        "p": round((extreme + 1) / (DRAWS + 1), 4),
    }


def _ends(means: np.ndarray) -> list[float]:
    return [round(float(end), 4) for end in np.percentile(means, (2.5, 97.5))]


def _draw(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Means of bootstrap samples, and how many permutations have a sum at least as far from 0.

    Questions with the same sum and count are alike, and there are few kinds of them: how many of each kind a bootstrap
    sample holds, and how many of each size change sides, is drawn at once, not question by question.
    """
    random = np.random.default_rng(_SEED)
    kinds, frequencies = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    sizes, many = np.unique(abs(sums), return_counts=True)
    observed = abs(sums.sum()) - 1e-9
    means, extreme, left = [], 0, DRAWS
    while left:
        rows = min(left, max(1, _BLOCK // len(kinds)))
        drawn = random.multinomial(len(sums), frequencies / len(sums), size=rows)
        means.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
        changed = random.binomial(many, 0.5, size=(rows, len(many)))
        extreme += int((abs((2 * changed - many) @ sizes) >= observed).sum())
        left -= rows
    return np.concatenate(means), extreme


def rows(compared: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a comparison with their names, for tables."""
    found = [("all", dict(compared))]
    for name in TABLES:
        label = name.removeprefix("by_")
        found += [(f"{label} {row}", part) for row, part in compared[name].items()]
    return found


HEADINGS = ("", "n", "accuracy", "difference", "95 %", "p", "+ and -", "zooms")


def cells(part: Mapping[str, Any]) -> list[str]:
    """A row of a comparison as text, under `HEADINGS` without the first."""
    accuracy, first, second = part["accuracy"], part["first"], part["second"]
    return [
        str(part["n"]),
        f"{first['accuracy']:.3f} → {second['accuracy']:.3f}",
        f"{accuracy['difference']:+.3f}",
        " to ".join(f"{end:+.3f}" for end in accuracy["ci95"]),
        "< 0.001" if accuracy["p"] < 0.001 else f"{accuracy['p']:.3f}",
        f"+{part['gained']} -{part['lost']}",
        f"{first['mean_zooms']:.2f} → {second['mean_zooms']:.2f}",
    ]
