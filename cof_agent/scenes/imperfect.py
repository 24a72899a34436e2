"""A teacher with stated faults, as real ones have: what it shows is where RL starts, so that what RL mends is known.

Its answers are right all the same, as those of verified trajectories are; what the model learns from it is to point beside
things, to answer before it has looked, to look where it need not, or to look again where it was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, View
from cof_agent.scenes import oracle
from cof_agent.trajectory import Sample, Turn

MOST_MISSES = 2  # of one sample
MOST_ZOOMS = 2  # that it needs after a miss


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances of each fault. hasty: it answers without a zoom that is needed, at each of them. needless: it zooms where
    the overview suffices. misplaced: a box lies `shift` of its side too far to the right and to the bottom, and has `tight`
    of its side; having seen that, it answers. missed: it looks at one of the other things first, says so, and looks again."""

    hasty: float = 0.0
    needless: float = 0.0
    misplaced: float = 0.0
    shift: float = 0.5
    tight: float = 0.5
    missed: float = 0.0


class Teacher:
    """Zooms for one sample; every decision is drawn from the sample's id. others: things of the scene that it may look at by
    mistake, in source pixels."""

    def __init__(
        self, sample: Sample, environment: ZoomEnvironment, faults: Faults, others: Sequence[Box] = ()
    ) -> None:
        self._sample, self._environment, self._faults, self._others = sample, environment, faults, others
        self._random = Random(f"faults:{sample.id}")
        self._satisfied, self._began, self._misses = False, False, 0

    def next_zoom(self, views: Sequence[View]) -> str | None:
        """The next zooming turn in the wire format; None when it answers. Called once a turn."""
        if self._satisfied:
            return None
        text = oracle.next_zoom(self._sample, views, self._environment)
        first, self._began = not self._began, True
        fault = self._random.random()
        if text is None:
            self._satisfied = True
            return self._needless(views[0]) if first and fault < self._faults.needless else None
        if fault < self._faults.hasty:
            return None
        if self._random.random() < self._faults.misplaced:
            self._satisfied = True
            return self._misplaced(text, views)
        return self._missed(text, views) if self._faults.missed else text

    def _missed(self, text: str, views: Sequence[View]) -> str:
        """The zoom at another thing in its place; or the zoom itself, which says after a miss that it was one."""
        found = oracle.next_target(self._sample, views, self._environment)
        if found is None or found[1] != 0:  # in a crop there is little else
            return text
        look, _, box = found
        elsewhere = [other for other in self._others if not other.intersection(box)]
        missed_before, system = self._misses > 0, self._environment.settings.system
        thought = f"{oracle.sentence(look.name)} is not there." if missed_before else protocol.thought(text)
        left = self._environment.settings.max_zooms - len(views) + 1
        if (
            elsewhere
            and left > MOST_ZOOMS
            and self._misses < MOST_MISSES
            and self._random.random() < self._faults.missed
        ):
            self._misses += 1
            box = self._random.choice(elsewhere)
        return protocol.write_zoom(thought, oracle.pointing_box(views[0], box, system))

    def _needless(self, overview: View) -> str | None:
        looks = oracle.looks(self._sample)
        if not looks:
            return None
        look = self._random.choice(looks)
        box = oracle.pointing_box(overview, look.boxes[0], self._environment.settings.system)
        return protocol.write_zoom(oracle.too_small(look), box)

    def _misplaced(self, text: str, views: Sequence[View]) -> str:
        system = self._environment.settings.system

        def move(written: Sequence[Any], image: int) -> Box:
            box = _beside(Box(*written), self._faults, system.frame(views[image].shown_size))
            return box if system.digits else Box(*(round(value) for value in box))

        return protocol.rewrite(Turn(text, protocol.parse(text)), move)


def _beside(box: Box, faults: Faults, frame: Box) -> Box:
    """`box` off its place within an image with these edges, both in the model's coordinates."""
    cx, cy = box.center
    centre = (cx + faults.shift * box.width, cy + faults.shift * box.height)
    halves = (box.width * faults.tight / 2, box.height * faults.tight / 2)
    ends = (frame.x1, frame.y1)
    x, y = (min(middle, end - half) for middle, half, end in zip(centre, halves, ends, strict=True))
    return Box(x - halves[0], y - halves[1], x + halves[0], y + halves[1])
