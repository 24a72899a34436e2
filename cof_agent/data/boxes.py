"""Boxes of public sets in source pixels: which numbers they are written in is recognised over all boxes of a set.

A box may be in pixels, in 0..1 (of the image, or of the square around it) or in 0..1000, as two corners, as a corner with width
and height, or as a centre with both. The boxes of a set decide together; where they cannot, the set is refused with the option
that says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

from cof_agent.data.nested import unpacked
from cof_agent.data.unusable import BAD_BOX, Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size

Numbers = tuple[float, float, float, float]
Unit = Literal["pixels", "unit", "thousand", "padded"]
Order = Literal["xyxy", "xywh", "cxcywh"]

FEW = 0.02  # of a set's boxes that may contradict what the others say
ENOUGH = 4  # different boxes that two readings are told apart by
MANY = 15  # different boxes that would fill their images if they were in pixels
CHANCE = 1e-6  # of which boxes in pixels would all lie within 1000 of larger images

FORMS = tuple(f"{unit}-{order}" for unit in get_args(Unit) for order in get_args(Order))
"""What `--boxes` can say."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the four numbers of a box mean. xyxy: two corners; xywh: the upper left corner, width and height; cxcywh: the centre,
    width and height. padded: 0..1 of the square around the image, which lies in its middle; never recognised."""

    unit: Unit = "pixels"
    order: Order = "xyxy"

    def __str__(self) -> str:
        return f"{self.unit}-{self.order}"


@dataclass(frozen=True, slots=True)
class Written:
    """A box as a set has it. order: where its keys say it (`{"width": ...}`). size: of its image, in source pixels."""

    numbers: Numbers
    order: Order | None = None
    size: Size | None = None


def form_named(name: str) -> Form:
    """The form that `--boxes` names.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in FORMS:
        raise InputError(f"--boxes must be one of {', '.join(FORMS)}, or none, not {name!r}.")
    unit, order = name.split("-")
    return Form(unit, order)  # type: ignore[arg-type]


_KEYS: tuple[tuple[Order, tuple[str, str, str, str]], ...] = (
    ("xyxy", ("x0", "y0", "x1", "y1")),
    ("xyxy", ("x1", "y1", "x2", "y2")),
    ("xyxy", ("xmin", "ymin", "xmax", "ymax")),
    ("xyxy", ("x_min", "y_min", "x_max", "y_max")),
    ("xyxy", ("left", "top", "right", "bottom")),
    ("xywh", ("x", "y", "w", "h")),
    ("xywh", ("x", "y", "width", "height")),
    ("xywh", ("left", "top", "width", "height")),
)


_TAGS = re.compile(r"<\|?/?box(?:_start|_end)?\|?>|;")
_NUMBERS_ALONE = re.compile(r"[\d\s.,()\[\]+-]+")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")


def holds_boxes(value: Any) -> bool:
    """Whether a column holds boxes: a list, an object, or a text of so many numbers."""
    return isinstance(_opened(value), list | tuple | dict)


def around_outlines(value: Any) -> list[dict[str, float]]:
    """The box around each outline of a column: three or more points, `[[x, y], ...]` or `[x, y, ...]`; or a list of these."""
    value = unpacked(value)
    if not isinstance(value, list):
        return []
    flat = len(value) > 5 and len(value) % 2 == 0 and _are_numbers(value)
    points = [value[place : place + 2] for place in range(0, len(value), 2)] if flat else _points(value)
    if len(points) < 3:
        return [box for one in value for box in around_outlines(one)]
    across, down = zip(*points, strict=True)
    return [{"x0": min(across), "y0": min(down), "x1": max(across), "y1": max(down)}]


def edges_of(row: Mapping[str, Any]) -> dict[str, float] | None:
    """The box whose edges a row has in columns of their own, if it has. Columns `width` and `height` are those of the image."""
    numbers = {key: _number(row[key]) for key in _edges_among(tuple(row))}
    found = {key: number for key, number in numbers.items() if number is not None}
    return found if found and len(found) == len(numbers) else None


def _number(value: Any) -> float | None:
    """A number, also as a table of texts has it."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return float(value) if _are_numbers([value]) else None


@cache
def _edges_among(names: tuple[str, ...]) -> tuple[str, ...]:
    return next((keys for _, keys in _KEYS if "width" not in keys and set(keys) <= set(names)), ())


def written(found: Any, size: Size | None = None) -> list[Written]:
    """The boxes of a column: one, a list of them, or either as a text. A box may be the two or more points that it is around.

    Raises:
        Unusable: if one is not four finite numbers.
    """
    found = _opened(found)
    if isinstance(found, Mapping):
        return [replace(_of_object(found), size=size)]
    if not isinstance(found, list | tuple):
        raise Unusable(BAD_BOX, found)
    points = _points(found)
    if len(points) == 2:
        return [Written(_numbers([*points[0], *points[1]]), size=size)]
    if points:
        return [replace(_of_object(box), size=size) for box in around_outlines(found)]
    if found and not any(isinstance(one, list | tuple | dict) for one in found):
        return [Written(_numbers(found), size=size)]
    return [made for one in found for made in written(one, size)]


def _opened(found: Any) -> Any:
    """What a text holds: JSON, or the numbers of boxes with nothing but brackets and tags around them."""
    found = unpacked(found)
    if not isinstance(found, str):
        return found
    pieces = [piece for piece in _TAGS.split(found) if piece.strip()]
    if not all(_NUMBERS_ALONE.fullmatch(piece) for piece in pieces):
        return found
    boxes = [[float(number) for number in _NUMBER.findall(piece)] for piece in pieces]
    return boxes if boxes and all(len(box) == 4 for box in boxes) else found


def _points(found: Sequence[Any]) -> list[Sequence[float]]:
    """The points of a list `[[x, y], ...]`; none where it is another list."""
    pairs = len(found) > 1 and all(isinstance(one, list | tuple) and len(one) == 2 for one in found)
    return list(found) if pairs and all(_are_numbers(one) for one in found) else []


def _are_numbers(found: Sequence[Any]) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in found)


def _numbers(found: Sequence[Any]) -> Numbers:
    try:
        x0, y0, x1, y1 = (float(value) for value in found)
    except (TypeError, ValueError, OverflowError):  # the last for a whole number beyond all floats
        raise Unusable(BAD_BOX, found) from None
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise Unusable(BAD_BOX, found)
    return x0, y0, x1, y1


def _of_object(found: Mapping[str, Any]) -> Written:
    for order, keys in _KEYS:
        if all(found.get(key) is not None for key in keys):
            return Written(_numbers([found[key] for key in keys]), order)
    for key in ("bbox", "bbox_2d", "box"):
        if key in found:
            return written(found[key])[0]
    raise Unusable(BAD_BOX, found)


def recognised(boxes: Sequence[Written], where: str, *, coco: bool = False) -> Form:
    """The form that all these boxes are in. coco: whether COCO's other columns stand beside them, in whose form a box is xywh.

    Raises:
        InputError: if they fit no form, or two equally well, naming `where` and the option that says it.
    """
    boxes = [one for one in boxes if len(set(one.numbers)) > 1] or boxes  # [0, 0, 0, 0] stands for none
    unit = _unit(boxes, where)
    free = [one for one in boxes if one.order is None]
    return Form(unit, _order(free, unit, where, coco) if free else "xyxy")


def may_be_sizes(boxes: Sequence[Written], form: Form) -> bool:
    """Whether boxes that are read as corners are so few that they may as well be a corner with width and height."""
    free = [one for one in boxes if one.order is None]
    few = 0 < len({one.numbers for one in free}) < ENOUGH
    return few and form.order == "xyxy" and all(_fits(one, form.unit, "xywh") for one in free)


def may_be_thousandths(boxes: Sequence[Written], form: Form) -> bool:
    """Whether boxes that are read as pixels lie within 1000 of larger images, and are so few that they may as well be in
    0..1000."""
    if form.unit != "pixels" or not boxes or not all(one.size for one in boxes):
        return False
    larger = [max(_sides(one.size)) > 1000 for one in boxes if one.size]
    return max(max(one.numbers) for one in boxes) <= 1000 and sum(larger) > len(boxes) / 2 and len(set(boxes)) < MANY


def _refused(where: str, what: str) -> InputError:
    return InputError(
        f"the boxes of {where} {what}; say what they are with --boxes, one of {', '.join(FORMS)}, or none."
    )


def _unit(boxes: Sequence[Written], where: str) -> Unit:
    highest = [max(one.numbers) for one in boxes]
    fractions = sum(value <= 1.01 for value in highest)
    if fractions == len(boxes):
        return "unit"
    if fractions > FEW * len(boxes):
        raise _refused(where, f"are mixed: {fractions} of {len(boxes)} are within 0..1, the others are not")
    outside = sum(_is_outside(one) for one in boxes)
    if outside > FEW * len(boxes):
        if max(highest) <= 1000:
            return "thousand"
        raise _refused(where, f"lie outside their images in {outside} of {len(boxes)} cases, and go beyond 1000")
    if 900 <= max(highest) <= 1000 and len(set(boxes)) >= MANY and _hardly_pixels(boxes):
        raise _refused(where, "all lie within 1000 of images that are larger: they may be in pixels or in 0..1000")
    return "pixels"


def _hardly_pixels(boxes: Sequence[Written]) -> bool:
    """Whether boxes that lie within 1000 would hardly do so if they were anywhere in their images, in pixels."""
    if not all(one.size for one in boxes):
        return False
    shares = (min(1, 1000 / side) for one in boxes if one.size for side in _sides(one.size))
    return math.prod(shares) < CHANCE


def _is_outside(one: Written) -> bool:
    if one.size is None:
        return False
    (x0, y0, x1, y1), (width, height) = one.numbers, _sides(one.size)
    return max(x0, x1) > _limit(width) or max(y0, y1) > _limit(height)


def _sides(size: Size) -> tuple[int, int]:
    return size.width, size.height


def _limit(side: float) -> float:
    """How far an edge may lie, in the unit of `side`: sets round, and count from 1."""
    return side * 1.01 + (2 if side > 1 else 0)


def _order(boxes: Sequence[Written], unit: Unit, where: str, coco: bool) -> Order:
    """By what the boxes cannot be: corners are in order, and a box lies inside its image."""
    count = len(boxes)
    unordered = sum(one.numbers[2] <= one.numbers[0] or one.numbers[3] <= one.numbers[1] for one in boxes)
    beyond = sum(not _fits(one, unit, "xywh") for one in boxes)
    if not unordered:
        return "xywh" if coco and not beyond else "xyxy"
    mostly, different = unordered >= count / 2, len({one.numbers for one in boxes})
    if beyond <= FEW * count:
        if mostly and unit == "unit" and not coco and all(_fits(one, unit, "cxcywh") for one in boxes):
            raise _refused(where, "have sizes, and may begin with a corner or, as YOLO writes them, with their middle")
        if mostly and (different >= ENOUGH or coco):
            return "xywh"
    elif not (mostly and all(_fits(one, unit, "cxcywh") for one in boxes)):
        return "xyxy"  # a few are reversed, or all are; the middle of none would fit
    raise _refused(where, f"are no corners [x0, y0, x1, y1] in {unordered} of {count} cases")


def _fits(one: Written, unit: Unit, order: Order) -> bool:
    """Whether a box lies inside its image when it is read so; an image whose size is not known takes all."""
    if unit == "pixels" and one.size is None:
        return True
    width, height = _frame(unit, one.size)
    x0, y0, x1, y1 = corners(one.numbers, order)
    return x0 >= -0.01 * width and y0 >= -0.01 * height and x1 <= _limit(width) and y1 <= _limit(height)


def _frame(unit: Unit, size: Size | None) -> tuple[float, float]:
    if unit == "pixels" and size is not None:
        return _sides(size)
    return (1000.0, 1000.0) if unit == "thousand" else (1.0, 1.0)


def corners(numbers: Numbers, order: Order) -> Numbers:
    """The corners of a box, the upper left one first."""
    x0, y0, x1, y1 = numbers
    if order == "xywh":
        return x0, y0, x0 + x1, y0 + y1
    if order == "cxcywh":
        return x0 - x1 / 2, y0 - y1 / 2, x0 + x1 / 2, y0 + y1 / 2
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def boxes_of(found: Any, where: str) -> tuple[Box, ...]:
    """The boxes of a column that holds corners in source pixels, one or a list; those without an area are left out.

    Raises:
        InputError: if one is not four numbers, naming `where`.
    """
    try:
        made = [in_pixels(one, Form()) for one in written(found or [])]
    except Unusable:
        raise InputError(f"{where} has a box that is not four numbers [x0, y0, x1, y1] in pixels.") from None
    return tuple(box for box in made if box is not None)


def in_pixels(one: Written, form: Form) -> Box | None:
    """A box in source pixels, cut at the edges of its image; None where nothing of it lies inside.

    Raises:
        Unusable: if the size of its image is needed and not known.
    """
    found = corners(one.numbers, one.order or form.order)
    if one.size is None:
        if form.unit != "pixels":
            raise Unusable(BAD_BOX, "the size of the image is not known")
        box = Box(*found)
        return box if box.area else None
    (across, down), (left, top) = _placing(form.unit, one.size)
    x0, y0, x1, y1 = found
    edges = (x0 * across - left, y0 * down - top, x1 * across - left, y1 * down - top)
    pixels = Box(*(round(value, 3) for value in edges))
    box = pixels.clipped(one.size)
    return box if box.area else None


def _placing(unit: Unit, size: Size) -> tuple[tuple[float, float], tuple[float, float]]:
    """Source pixels for each unit, across and down; and where the image begins in its frame, in source pixels."""
    width, height = _sides(size)
    if unit == "padded":
        long = max(width, height)
        return (long, long), ((long - width) / 2, (long - height) / 2)
    across, down = _frame(unit, size)
    return (width / across, height / down), (0.0, 0.0)
