"""Regions in a question (GPT4RoI, arXiv 2307.03601): what `<region1>` stands for, in words that any model reads.

`<regionN>` in the question means the N-th box of `Sample.regions`. A model reads `region N at [x0, y0, x1, y1]` in its own
coordinates of the overview; one that was trained to (`backends.regions.features`) reads an embedding of the box instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.trajectory import Sample

ROUNDS = "rounds"
"""Key of a sample's metadata: what is asked further about the same regions (see `rounds`)."""

IN_WORDS = "in_words"
"""Key of a sample's metadata: the question as it is asked of those who are given no regions."""

DETECTED = "detected"
"""Key of a sample's metadata: who found its regions, and their labels and scores (see `with_found`)."""

_LONGEST_LABEL = 80  # characters

_PLACEHOLDER = re.compile(r"<region(\d{1,4})>")
_NUMBER = r"(-?\d{1,9}(?:\.\d{1,9})?)"
_WRITTEN = re.compile(r"region (\d{1,4}) at \[" + ", ".join([_NUMBER] * 4) + r"\]")


@dataclass(frozen=True, slots=True)
class Mention:
    """A region as a text names it: its number, its box in the model's coordinates, and where in the text it stands."""

    number: int
    box: Box
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """A region that a detector has found; no score where it gives none."""

    label: str
    box: Box
    score: float | None = None


def with_found(sample: Sample, found: Sequence[Found], by: str, error: str | None = None) -> Sample:
    """The sample with these regions, named before its question; with none of them the question stays.

    by: who found them. error: why nothing could be found. Both are kept in the metadata, with labels and scores.
    """
    labels = [_label(one.label) for one in found]
    listed = ", ".join(f"<region{number}> {label}".strip() for number, label in enumerate(labels, 1))
    scores = [None if one.score is None else round(one.score, 3) for one in found]
    record: dict[str, object] = {
        "by": by,
        "found": [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)],
    }
    return replace(
        sample,
        question=f"Found in the image: {listed}.\n{sample.question}" if found else sample.question,
        regions=tuple(one.box for one in found),
        metadata={IN_WORDS: sample.question}
        | sample.metadata
        | {DETECTED: record if error is None else record | {"error": error}},
    )


def _label(text: str) -> str:
    """A label without what could be read as a placeholder or a control token."""
    return " ".join(re.sub("[<>]", " ", text).split())[:_LONGEST_LABEL]


def read_region(text: str) -> Box:
    """The box of `X0,Y0,X1,Y1`, source pixels.

    Raises:
        InputError: if these are not four finite numbers, or there is no area between them.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise InputError(f"a region must be four numbers X0,Y0,X1,Y1 in pixels of the image, not {text[:80]!r}.")
    box = Box(*numbers)
    _check_area(box, f"the region {text}")
    return box


def _check_area(box: Box, name: str) -> None:
    if not (box.x1 > box.x0 and box.y1 > box.y0):
        raise InputError(f"{name} has no area: X1 must be above X0, and Y1 above Y0.")


def rounds(sample: Sample) -> list[tuple[str, str]]:
    """Questions and answers about the same regions, in order: the sample's own, then those that its metadata lists under
    `ROUNDS`, `[question, answer]` each. The agent is asked the first; training holds the whole conversation.

    Raises:
        InputError: if the further ones are anything else.
    """
    further = sample.metadata.get(ROUNDS, [])
    if not isinstance(further, list) or not all(
        isinstance(one, list | tuple) and len(one) == 2 and all(isinstance(text, str) for text in one)
        for one in further
    ):
        raise InputError(f"the {ROUNDS} of {sample.id} are no list of [question, answer].")
    first = "\n".join([sample.question, *sample.choices])
    return [(first, sample.answers[0] if sample.answers else ""), *((text, answer) for text, answer in further)]


def check_regions(sample: Sample) -> None:
    """Refuses a question and regions that do not belong to each other.

    Raises:
        InputError: for a placeholder without a region, a region without a placeholder, or a region without an area.
    """
    if sample.regions and sample.more_images:
        raise InputError(
            f"{sample.id} has regions and {len(sample.images)} images; a question about regions has one image."
        )
    named = {int(number) for text, _ in rounds(sample) for number in _PLACEHOLDER.findall(text)}
    count, where = len(sample.regions), f"the question of {sample.id}"
    if 0 in named:
        raise InputError(f"{where} names <region0>, but regions are counted from 1.")
    if named and max(named) > count:
        given = {0: "no region is given", 1: "only 1 region is given"}.get(count, f"only {count} regions are given")
        raise InputError(f"{where} names <region{max(named)}>, but {given}; give a box for each.")
    if unnamed := sorted(set(range(1, count + 1)) - named):
        raise InputError(
            f"{where} has {count} region{'s' * (count > 1)}, but names no <region{unnamed[0]}>; write it where it is "
            "meant, or leave the region out."
        )
    for number, box in enumerate(sample.regions, 1):
        if not all(map(math.isfinite, box)):
            raise InputError(f"region {number} of {sample.id} is not four finite numbers.")
        _check_area(box, f"region {number} of {sample.id}")


def check_inside(sample: Sample, size: Size) -> None:
    """Refuses a region that shows nothing of the image, which is `size` source pixels; what lies outside is cut off.

    Raises:
        InputError: if one lies outside.
    """
    for number, box in enumerate(sample.regions, 1):
        if not box.clipped(size).area:
            raise InputError(
                f"region {number}, {','.join(f'{value:g}' for value in box)}, lies outside the image, which is {size} pixels."
            )


def located(text: str, regions: Sequence[Box], overview: View, system: CoordinateSystem) -> str:
    """`text` with words and a box for each placeholder. The boxes, source pixels, are written in the model's coordinates of
    the overview, rounded outwards, so that the smallest still has an area; a placeholder without a region stays."""

    def words(found: re.Match[str]) -> str:
        number = int(found[1])
        if not 1 <= number <= len(regions):
            return found[0]
        numbers = ", ".join(f"{value:.{system.digits}f}" for value in _outwards(regions[number - 1], overview, system))
        return f"region {number} at [{numbers}]"

    return _PLACEHOLDER.sub(words, text)


def in_source_pixels(text: str, sample: Sample, size: Size) -> str:
    """`text` as a person reads it who looks at the image itself, which is `size` source pixels."""
    whole = View(size, Box(0, 0, size.width, size.height), size)
    return located(text, sample.regions, whole, CoordinateSystem.ABSOLUTE)


def _outwards(region: Box, overview: View, system: CoordinateSystem) -> Box:
    # What is clipped lies inside the view; its edges may be a digit outside where the view's own cannot be written.
    box, step = overview.from_source(region.clipped(overview.source_size), system), 10**system.digits
    # Rounding away float noise first keeps an exact edge from moving by one.
    low = [math.floor(round(value * step, 6)) / step for value in (box.x0, box.y0)]
    high = [math.ceil(round(value * step, 6)) / step for value in (box.x1, box.y1)]
    return Box(*low, *high)


def mentions(text: str) -> list[Mention]:
    """The regions that `located` has written into a text, in order, as often as they are named."""
    return [
        Mention(int(found[1]), Box(*map(float, found.groups()[1:])), found.start(), found.end())
        for found in _WRITTEN.finditer(text)
    ]
