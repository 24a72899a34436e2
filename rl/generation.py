"""What a generation plays: its samples, and the seeds of their random numbers.

Both follow from the run's seed, the step, and a place in the batch of all processes. So a run that was interrupted plays what
it would have played, on whatever number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from cof_agent.episodes import Episode

Play = tuple[Episode, int]
"""A sample at its resolution, and the seed of the conversation's random numbers."""


@dataclass(frozen=True, slots=True)
class Generation:
    """seed: of the run. size: rollouts of a group. step: of the run, -1 before the first. number: of this generation within its
    step. first: this process's first place in the batch of all processes."""

    seed: int
    size: int
    step: int = -1
    number: int = 0
    first: int = 0

    @property
    def name(self) -> str:
        return f"{self.step}-{self.number}"

    def following(self, step: int, first: int) -> Generation:
        """The generation that comes after this one."""
        return replace(self, step=step, number=self.number + 1 if self.step == step else 0, first=first)

    def plays(self, episodes: Sequence[Episode], attempt: int = 0, places: Sequence[int] | None = None) -> list[Play]:
        """What is played at some places of this process's batch, by default at all. attempt: its number, from 0."""
        wanted = range(len(episodes)) if places is None else places
        return [(episodes[place], self._draw("play", attempt, self.first + place)) for place in wanted]

    def group(self, place: int) -> int:
        """Which group of all processes a place of this process's batch is in."""
        return (self.first + place) // self.size

    def another(self, attempt: int, group: int, rows: int) -> int:
        """The row, of so many, that a group plays instead of its own; the same on each process."""
        return self._draw("sample", attempt, group) % rows

    def _draw(self, *what: int | str) -> int:
        return Random(f"{self.seed}:{(self.step, self.number)}:{what}").getrandbits(31)


def equal_groups(totals: Sequence[float | None], size: int) -> set[int]:
    """The groups, of so many rollouts each, that teach nothing. totals: rewards of all processes, None without a score."""
    groups = [totals[start : start + size] for start in range(0, len(totals), size)]
    return {number for number, group in enumerate(groups) if without_variance(group)}


def without_variance(totals: Sequence[float | None]) -> bool:
    """Whether a group teaches nothing: all rollouts that were scored have the same total."""
    known = [one for one in totals if one is not None]
    return not known or max(known) - min(known) < 1e-6
