"""A teacher with stated faults, as real ones have: what it shows is where RL starts, so that what RL mends is known.

Its answers are right all the same, as those of verified trajectories are; what the model learns from it is to point beside
things, to answer before it has looked, and to look where it need not.
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


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances of each fault. hasty: it answers without a zoom that is needed, at each of them. needless: it zooms where
    the overview suffices. misplaced: a box lies `shift` of its side too far to the right and to the bottom, and has `tight`
    of its side; having seen that, it answers."""

    hasty: float = 0.0
    needless: float = 0.0
    misplaced: float = 0.0
    shift: float = 0.5
    tight: float = 0.5


class Teacher:
    """Zooms for one sample; every decision is drawn from the sample's id."""

    def __init__(self, sample: Sample, environment: ZoomEnvironment, faults: Faults) -> None:
        self._sample, self._environment, self._faults = sample, environment, faults
        self._random = Random(f"faults:{sample.id}")
        self._satisfied, self._began = False, False

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
        return text

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
