"""Boxes as models write them, read and cut; and the sizes at which images are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cof_agent.geometry.frames import Box, CoordinateSystem, Size, View

_SHARES = (CoordinateSystem.UNIT, CoordinateSystem.PADDED)
_SURELY_NO_SHARE = 1.5
"""A number beyond it is no rounded edge of 0..1, but a pixel or a thousandth."""
_THOUSANDS = (CoordinateSystem.THOUSAND, CoordinateSystem.THOUSAND_YX)


class BoxError(ValueError):
    """A box that cannot be used; the message is the sentence the model reads."""


def read_box(
    values: Any, system: CoordinateSystem = CoordinateSystem.ABSOLUTE, *, swap: bool = True, name: str = "bbox_2d"
) -> Box:
    """The box a model wrote, as four numbers in its own coordinates and order with x0 < x1 and y0 < y1.

    system: whose order of the numbers a refusal names. name: what the model calls a box.

    Stated rule: plain numbers and numbers in strings are taken; reversed edges are swapped (without `swap`: refused);
    anything else (not four values, booleans, words, NaN, infinite, no width or height) is refused.

    Raises:
        BoxError: with the sentence the model reads.
    """
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        raise BoxError(f"{name} must be a list of four numbers {system.corners}.")
    numbers = [_number(value, name) for value in values]
    if not swap and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        raise BoxError(f"The box must be {system.corners} with the smaller edge first.")
    x0, x1 = sorted((numbers[0], numbers[2]))
    y0, y1 = sorted((numbers[1], numbers[3]))
    if not (x1 > x0 and y1 > y0):
        raise BoxError("The box has no area: x1 must differ from x2 and y1 from y2.")
    return Box(x0, y0, x1, y1)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BoxError(f"{name} must hold four numbers and nothing else.")
    try:
        number = float(value)
    except ValueError:
        raise BoxError(f"{name} must hold four numbers and nothing else.") from None
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not math.isfinite(number) or abs(number) > 1e9:
        raise BoxError(f"{name} must hold finite numbers that lie inside the image.")
    return number


def clip_to_view(box: Box, view: View, system: CoordinateSystem) -> Box:
    """The part of a model's box inside the view it names, in the model's coordinates.

    Raises:
        BoxError: if nothing of it lies inside, it holds no whole pixel, or its numbers go to 1 where they should go beyond, or
            beyond 1 where they should not.
    """
    frame = view.frame(system, box)
    inside = Box(max(box.x0, frame.x0), max(box.y0, frame.y0), min(box.x1, frame.x1), min(box.y1, frame.y1))
    if not (inside.x1 > inside.x0 and inside.y1 > inside.y0):
        raise BoxError(f"The box lies outside the image, which is {system.describe(view.shown_size)}.")
    if system in _SHARES and max(box) > _SURELY_NO_SHARE:
        raise BoxError("The box goes beyond the image: the numbers of a box go from 0 to 1.")
    if system is CoordinateSystem.ABSOLUTE and inside.width < 1 and inside.height < 1:
        raise BoxError(
            f"The box holds no whole pixel: boxes are in pixels of the image, which is {view.shown_size} pixels."
        )
    beyond_one = system in (CoordinateSystem.ABSOLUTE, CoordinateSystem.SOURCE, *_THOUSANDS)
    if beyond_one and inside.x1 <= 1 and inside.y1 <= 1 and inside != frame:  # a source may be one pixel
        raise BoxError(f"The box is a point at the corner of the image, which is {system.describe(view.shown_size)}.")
    return inside


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of `boxes`; at least one."""
    return Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )


def crop_region(box: Box, source: Size, *, enlarge: float = 1.0, min_side: int = 1) -> Box:
    """The pixel-aligned region of the source to cut for a box in source pixels.

    The box is enlarged about its centre, widened to at least `min_side` source pixels a side, moved (not cut)
    back inside the source where it fits, and rounded outwards to whole pixels.
    """
    x0, x1 = _span(box.x0, box.x1, source.width, enlarge, min_side)
    y0, y1 = _span(box.y0, box.y1, source.height, enlarge, min_side)
    return Box(x0, y0, x1, y1)


def _span(low: float, high: float, limit: int, enlarge: float, min_side: int) -> tuple[int, int]:
    center, length = (low + high) / 2, max((high - low) * enlarge, float(min_side))
    # Rounding away float noise first keeps an exact pixel edge from growing by one.
    start, end = math.floor(round(center - length / 2, 6)), math.ceil(round(center + length / 2, 6))
    if end - start >= limit:
        return 0, limit
    shift = max(0, -start) - max(0, end - limit)
    return start + shift, max(end + shift, start + shift + 1)


def smart_resize(size: Size, *, grid: int, min_pixels: int, max_pixels: int) -> Size:
    """The size at which a Qwen-VL processor shows an image: multiples of `grid`, area between the limits.

    The rule of the Qwen2-VL processors (transformers `smart_resize`, qwen-vl-utils `smart_resize`). They refuse
    an aspect ratio above 200; here such an image is shown distorted to at most that ratio instead, so that a
    1 x 40,000 strip still has a view. The result is a fixed point: a processor with the same limits changes
    nothing. Where the limits leave no room on the grid for this shape (they are less than a factor of four apart), the
    area is at least `min_pixels`, which is the model's own, and above `max_pixels`, which a user may have lowered.

    Raises:
        ValueError: if the limits contradict each other or have no room for one grid cell.
    """
    return grid_size(size.width, size.height, grid=grid, min_pixels=min_pixels, max_pixels=max_pixels)


def grid_size(width: float, height: float, *, grid: int, min_pixels: int, max_pixels: int) -> Size:
    """`smart_resize` of an image whose sides need not be whole pixels.

    Raises:
        ValueError: as `smart_resize`.
    """
    if not 0 < min_pixels <= max_pixels or max_pixels < grid * grid:
        raise ValueError(f"pixel limits must satisfy 0 < min <= max and max >= {grid * grid}")
    width, height = max(width, height / 200), max(height, width / 200)
    w, h = max(grid, round(width / grid) * grid), max(grid, round(height / grid) * grid)
    if w * h > max_pixels:
        beta = math.sqrt(width * height / max_pixels)
        w = max(grid, math.floor(width / beta / grid) * grid)
        h = max(grid, math.floor(height / beta / grid) * grid)
    elif w * h < min_pixels:
        beta = math.sqrt(min_pixels / (width * height))
        w, h = math.ceil(width * beta / grid) * grid, math.ceil(height * beta / grid) * grid
    # In a thin image, rounding the short side to whole grid cells can leave the area above the limit or the ratio
    # above 200; the processor would then shrink what it is given, or refuse it.
    if w > h:
        w = min(w, 200 * h, max_pixels // h // grid * grid)
    else:
        h = min(h, 200 * w, max_pixels // w // grid * grid)
    if w * h < min_pixels and max_pixels < 4 * min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        least = Size(max(1, round(width * scale)), max(1, round(height * scale)))
        return smart_resize(least, grid=grid, min_pixels=min_pixels, max_pixels=4 * min_pixels)
    return Size(w, h)
