"""A picture becomes questions about its text: those that two engines answer alike at full resolution, and that the overview does
not answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.ocr.lines import Line, agreed
from cof_agent.ocr.pictures import Reading, whole
from cof_agent.ocr.relations import QUESTIONS, RULES, Found, Relation, asked
from cof_agent.trajectory import Sample

KEY = "text"
"""Under which a sample's metadata say how its answer follows from the lines of its picture."""

NO_TEXT = "no text was read"
NOT_SURE = "the two engines agree on no question"
READABLE = "the overview shows every answer"

Asked = tuple[Relation, str, Found]


@dataclass(frozen=True, slots=True)
class Made:
    """The questions of one picture, with counts. lines: number of lines that the first engine read. sure: number of these that
    both read alike. asked: number of possible questions. readable: number of these that the overview answers. samples: the
    chosen questions. reason: why there are none. identity: path, time and size of the file. settings: those of the `Maker`.
    """

    image: str
    identity: tuple[str, int, int]
    settings: dict[str, Any]
    lines: int = 0
    sure: int = 0
    asked: int = 0
    readable: int = 0
    samples: tuple[Sample, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the questions. Two engines read each picture: `first` and `second`, which reads words. environment: its overview
    is what has to leave the answer open. most: questions of one picture. seed: of their choice.
    """

    first: Reading
    second: Reading
    environment: ZoomEnvironment
    most: int = 3
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What the questions depend on, for the record."""
        return {
            "engines": [self.first.engine.name, self.second.engine.name],
            "overview_pixels": self.environment.settings.limits.max_pixels,
            "most": self.most,
            "seed": self.seed,
            "rules": RULES,
        }

    def make(self, image: str, identity: tuple[str, int, int]) -> Made:
        """The questions of the picture with this path. What is wrong with it is the reason why there are none."""
        sample = Sample(image, image, "")
        try:
            overview = self.environment.reset(sample)
            full = whole(overview.source_size)
            lines = agreed(*(one.lines(self.environment, sample, full) for one in (self.first, self.second)))
            possible = list(asked(lines))
            shown = self.first.lines(self.environment, sample, overview) if possible else []
        except InputError as error:
            return Made(image, identity, self.settings, reason=str(error))
        hidden = [one for one in possible if not readable(one[2], shown)]
        reason = NO_TEXT if not lines else NOT_SURE if not possible else READABLE if not hidden else None
        counts = (len(lines), sum(line.sure for line in lines), len(possible), len(possible) - len(hidden))
        return Made(image, identity, self.settings, *counts, self._samples(image, hidden), reason)

    def _samples(self, image: str, hidden: Sequence[Asked]) -> tuple[Sample, ...]:
        # By the file's name, so that pictures that lie in another folder give the same questions.
        chosen = _chosen(hidden, self.most, random.Random(f"{self.seed}|{Path(image).name}"))
        return tuple(self._sample(f"{image}:{number}", image, one) for number, one in enumerate(chosen, 1))

    def _sample(self, key: str, image: str, one: Asked) -> Sample:
        relation, name, found = one
        told = {"relation": relation.value, "name": name, **self.settings}
        return Sample(
            key, image, QUESTIONS[relation].format(name=name), (found.answer,), boxes=(found.box,), metadata={KEY: told}
        )


def readable(found: Found, shown: Sequence[Line]) -> bool:
    """Whether a line that was read in the overview at the place of `found` has all words of its answer."""
    wanted = Line(found.answer, found.box).words
    return any(
        line.box.intersection(found.box) > 0 and set(wanted) <= {word.strip(".,;:") for word in line.words}
        for line in shown
    )


def _chosen(possible: Sequence[Asked], most: int, rng: random.Random) -> list[Asked]:
    """Up to `most`, of each relation in turn; no answer and no line twice."""
    by_relation = [[one for one in possible if one[0] is relation] for relation in Relation]
    for group in by_relation:
        rng.shuffle(group)
    rng.shuffle(by_relation)
    chosen: list[Asked] = []
    seen: set[object] = set()
    for one in (one for turn in zip_longest(*by_relation) for one in turn if one is not None):
        marks = {one[2].answer.casefold(), *(line.box for line in one[2].lines)}
        if len(chosen) < most and not marks & seen:
            chosen.append(one)
            seen |= marks
    return chosen
