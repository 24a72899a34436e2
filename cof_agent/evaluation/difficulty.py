"""How hard each sample is for a policy: the share of several plays that are right. GRPO learns nothing from a sample whose
plays are all right or all wrong, since no play is better than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cof_agent import scoring
from cof_agent.trajectory import Sample, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Rated:
    """A sample and how many of its `plays` were right; None where a play ended in an error, which says nothing of it."""

    sample: Sample
    plays: int
    right: int | None

    @property
    def rate(self) -> float | None:
        return None if self.right is None else self.right / self.plays

    def within(self, low: float, high: float) -> bool:
        """Whether the pass rate is strictly between the bounds."""
        return self.rate is not None and low < self.rate < high


def rated(samples: Sequence[Sample], trajectories: Sequence[Trajectory], count: int) -> list[Rated]:
    """The samples, rated by the trajectories of `episodes(samples, plays=count)`, which are in that order."""
    found = []
    for index, sample in enumerate(samples):
        plays = trajectories[index * count : (index + 1) * count]
        failed = any(play.stop is StopReason.ERROR for play in plays)
        found.append(Rated(sample, count, None if failed else sum(bool(scoring.accuracy(play)) for play in plays)))
    return found


def chosen(ratings: Sequence[Rated], low: float, high: float) -> list[Sample]:
    """The samples whose pass rate is strictly between the bounds, with it in their metadata as `pass_rate`. Image paths
    are absolute, so that the samples can be written anywhere."""
    return [
        replace(
            one.sample.with_images(str(Path(image).absolute()) for image in one.sample.images),
            metadata=one.sample.metadata | {"pass_rate": round(one.rate, 4)},
        )
        for one in ratings
        if one.rate is not None and one.within(low, high)
    ]
