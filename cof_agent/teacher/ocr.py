"""Roles of the teacher played by an OCR engine, for questions about text (`cof data --make text-questions`)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from cof_agent.geometry import Box, PixelLimits, View, around
from cof_agent.ocr.lines import Engine, Line
from cof_agent.ocr.pictures import Reading, whole
from cof_agent.ocr.questions import KEY
from cof_agent.ocr.relations import Relation, named, solve
from cof_agent.policy import GREEDY, Sampling
from cof_agent.teacher.roles import Errand
from cof_agent.teacher.rules import ABOUT, VISIBLE
from cof_agent.trajectory import Sample

OCR = "ocr"
MOST_TEXT = 2_000  # characters of what is read aloud to a planner
_QUOTED = re.compile(r"“([^”]+)”|\"([^\"]+)\"")


def is_text_question(sample: Sample) -> bool:
    """Whether an engine can answer it: the record says how its answer follows from the lines of the picture."""
    told = sample.metadata.get(KEY)
    return isinstance(told, dict) and told.get("relation") in set(Relation) and isinstance(told.get("name"), str)


class OcrLocator:
    """Finds text by reading the source at full resolution: the line with the words that are quoted, and what stands beside and
    below it, since the question may be about either."""

    name = OCR

    def __init__(self, engine: Engine) -> None:
        self._reading = Reading(engine)

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """See `Locator`. Where the text is smaller than `VISIBLE` shown pixels in the view, more of what is around it."""
        lines = await asyncio.to_thread(self._reading.lines, errand.environment, errand.sample, whole(view.source_size))
        found = _named(what, [line for line in lines if view.region.coverage(line.box) > 0.9])
        if found is None:
            return None
        least = VISIBLE / view.scale / min(found.width, found.height)
        box = _inside(found.scaled(least) if least > 1 else found, view.region)
        return box if box.area < ABOUT * view.region.area else None


class OcrDescriber:
    """Reads a text question's answer in the views, from their pixels alone. A planner's own question is answered with all of the
    text."""

    name = OCR
    limits = PixelLimits()

    def __init__(self, engine: Engine) -> None:
        self._reading = Reading(engine)

    async def describe(
        self, errand: Errand, views: Sequence[View], question: str | None, sampling: Sampling = GREEDY
    ) -> str | None:
        """See `Describer`; `sampling` changes nothing."""
        for view in reversed(views):  # the closest look first
            lines = await asyncio.to_thread(self._reading.lines, errand.environment, errand.sample, view)
            if (answer := _text(lines) if question else _answer(errand.sample, lines)) is not None:
                return answer
        return None


def _named(what: str, lines: Sequence[Line]) -> Box | None:
    """The box of the only line with the words that `what` quotes, of the next one in its row and of the one below; of all lines
    where it quotes none; None if no line, or more than one, has the words."""
    quoted = [first or second for first, second in _QUOTED.findall(what)]
    if not quoted:
        return around([line.box for line in lines]) if lines else None
    line = named(quoted[0], lines)
    if line is None:
        return None
    row = [one.box for one in lines if line.box.y0 <= one.box.center[1] <= line.box.y1 and one.box.x0 >= line.box.x1]
    column = [
        one.box for one in lines if line.box.x0 <= one.box.center[0] <= line.box.x1 and one.box.y0 >= line.box.center[1]
    ]
    beside = [min(row, key=lambda box: box.x0)] if row else []
    below = [min(column, key=lambda box: box.y0)] if column else []
    return around([line.box, *beside, *below])


def _inside(box: Box, region: Box) -> Box:
    return Box(max(box.x0, region.x0), max(box.y0, region.y0), min(box.x1, region.x1), min(box.y1, region.y1))


def _answer(sample: Sample, lines: Sequence[Line]) -> str | None:
    told = sample.metadata[KEY]
    found = solve(Relation(told["relation"]), told["name"], lines)
    return found.answer if found else None


def _text(lines: Sequence[Line]) -> str | None:
    return "\n".join(line.text for line in lines)[:MOST_TEXT] or None
