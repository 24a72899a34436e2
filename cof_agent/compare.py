"""Two runs on the same questions: the difference between them, question by question.

Intervals are of a paired bootstrap, p of a paired permutation test, both over questions: a question that was asked at several
resolutions is drawn, or changes sides, as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.evaluate import UNKNOWN, category, figures, grouped, resolution
from cof_agent.samples import RESOLUTION
from cof_agent.trajectory import Trajectory

DRAWS = 10_000
"""Bootstrap samples and permutations."""
_BLOCK = 2_000_000  # numbers drawn at a time
_SEED = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, at one resolution, in both runs."""

    first: Trajectory
    second: Trajectory

    @property
    def question(self) -> str:
        """The question's id without the resolution."""
        sample = self.first.sample
        return sample.id.removesuffix(f"@{sample.metadata.get(RESOLUTION)}")


TABLES: dict[str, Callable[[Trajectory], str]] = {"by_category": category, "by_resolution": resolution}


def compare(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> dict[str, Any]:
    """`n`, both runs' figures and their difference (second minus first), over all pairs and by category and resolution.

    Raises:
        InputError: if the runs share no question with a known answer, or ask different things under one id.
    """
    pairs = pairs_of(first, second)
    compared = difference(pairs)
    for name, key in TABLES.items():
        groups = grouped(pairs, lambda pair, key=key: key(pair.first))  # type: ignore[misc]
        compared[name] = {row: difference(group) for row, group in groups if row != UNKNOWN}
    return compared


def pairs_of(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> list[Pair]:
    """The questions with a known answer that both runs were asked, in the order of the first.

    Raises:
        InputError: as `compare`.
    """
    others = {one.sample.id: one for one in second}
    pairs = [Pair(one, others[one.sample.id]) for one in first if one.sample.id in others and one.sample.answers]
    for pair in pairs:
        asked, other = pair.first.sample, pair.second.sample
        if (asked.question, asked.answers, asked.choices) != (other.question, other.answers, other.choices):
            raise InputError(f"the runs ask different things under the id {asked.id!r}, so they cannot be compared.")
    if not pairs:
        raise InputError("the runs share no question with a known answer, so there is nothing to compare.")
    return pairs


def difference(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Figures of both runs over the pairs, and of accuracy and zooms the difference with its 95 % interval and p."""
    right = [(bool(scoring.accuracy(pair.first)), bool(scoring.accuracy(pair.second))) for pair in pairs]
    zooms = [(pair.first.zooms, pair.second.zooms) for pair in pairs]
    questions = [pair.question for pair in pairs]
    return {
        "n": len(pairs),
        "first": figures([pair.first for pair in pairs]),
        "second": figures([pair.second for pair in pairs]),
        "gained": sum(after and not before for before, after in right),
        "lost": sum(before and not after for before, after in right),
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
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "difference": round(mean, 4),
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "p": round((extreme + 1) / (DRAWS + 1), 4),
    }


def _draw(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Means of bootstrap samples, and how many permutations have a sum at least as far from 0."""
    random = np.random.default_rng(_SEED)
    observed = abs(sums.sum()) - 1e-9
    means, extreme, left = [], 0, DRAWS
    while left:
        rows = min(left, max(1, _BLOCK // len(sums)))
        drawn = random.integers(len(sums), size=(rows, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
        signs = random.integers(2, size=(rows, len(sums))) * 2 - 1
        extreme += int((abs(signs @ sums) >= observed).sum())
        left -= rows
    return np.concatenate(means), extreme


def rows(compared: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a comparison with their names, for tables."""
    found = [("all", dict(compared))]
    for name in TABLES:
        label = name.removeprefix("by_")
        found += [(f"{label} {row}", part) for row, part in compared[name].items()]
    return found
