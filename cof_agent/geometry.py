"""Every conversion between what a model writes and pixels of the source image happens here, once.

Three frames are told apart by name:
- *source*: pixels of the image as opened (EXIF applied), continuous, origin at the top left corner;
- *shown*: pixels of a view as the model's vision tower receives it;
- *model*: the numbers the model writes, in its order, which a `CoordinateSystem` ties to *shown*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cof_agent.fields import omitting


class BoxError(ValueError):
    """A box that cannot be used; the message is the sentence the model reads."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a size must be at least 1 x 1, not {self.width} x {self.height}")

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def long_side(self) -> int:
        return max(self.width, self.height)


@dataclass(frozen=True, slots=True)
class Box:
    """Edges x0 < x1, y0 < y1 of a rectangle; in source pixels unless a name says otherwise."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self.x0, self.y0, self.x1, self.y1))

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def intersection(self, other: Box) -> float:
        """Area shared with `other`."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    def coverage(self, target: Box) -> float:
        """Share of `target`'s area that lies inside this box, 0 to 1."""
        return self.intersection(target) / target.area if target.area else 0.0

    def scaled(self, factor: float) -> Box:
        """The box with both sides multiplied by `factor` about its centre."""
        (cx, cy), w, h = self.center, self.width * factor / 2, self.height * factor / 2
        return Box(cx - w, cy - h, cx + w, cy + h)

    def clipped(self, size: Size) -> Box:
        """The part of the box inside an image of `size`; may be empty."""
        return Box(
            min(max(self.x0, 0.0), size.width),
            min(max(self.y0, 0.0), size.height),
            min(max(self.x1, 0.0), size.width),
            min(max(self.y1, 0.0), size.height),
        )

    def pixels(self) -> tuple[int, int, int, int]:
        """Integer edges of a box that is already pixel-aligned, as Pillow's `crop` takes them."""
        return round(self.x0), round(self.y0), round(self.x1), round(self.y1)


class CoordinateSystem(StrEnum):
    """What the numbers in a model's box mean. Chosen from the model, never guessed from the numbers."""

    ABSOLUTE = "absolute"  # pixels of the image after the processor resized it
    THOUSAND = "thousand"  # 0..1000 on both axes
    THOUSAND_YX = "thousand-yx"  # the same, written y first: [y1, x1, y2, x2]
    UNIT = "unit"  # 0..1 on both axes
    PADDED = "padded"  # 0..1 on both axes of the square in whose middle the image lies (LLaVA, Chain-of-Spot)

    def frame(self, shown: Size) -> Box:
        """The edges of a view shown at `shown` pixels, in the model's coordinates and order."""
        match self:
            case CoordinateSystem.ABSOLUTE:
                return Box(0.0, 0.0, float(shown.width), float(shown.height))
            case CoordinateSystem.THOUSAND | CoordinateSystem.THOUSAND_YX:
                return Box(0.0, 0.0, 1000.0, 1000.0)
            case CoordinateSystem.UNIT:
                return Box(0.0, 0.0, 1.0, 1.0)
        x, y = (0.5 - side / shown.long_side / 2 for side in (shown.width, shown.height))
        return Box(x, y, 1 - x, 1 - y)

    @property
    def digits(self) -> int:
        """Decimals with which its numbers are written."""
        return 3 if self in (CoordinateSystem.UNIT, CoordinateSystem.PADDED) else 0

    @property
    def y_first(self) -> bool:
        """Whether the numbers of a box are written y first."""
        return self is CoordinateSystem.THOUSAND_YX

    @property
    def corners(self) -> str:
        """The numbers of a box by name, in the order in which they are written."""
        return "[y1, x1, y2, x2]" if self.y_first else "[x1, y1, x2, y2]"

    def ordered(self, box: Box) -> Box:
        """A box whose numbers stand x first, in the order in which they are written; and the other way round."""
        return Box(box.y0, box.x0, box.y1, box.x1) if self.y_first else box

    def describe(self, shown: Size) -> str:
        """The frame in words, for observations and prompts."""
        if self is CoordinateSystem.ABSOLUTE:
            return f"{shown} pixels"
        if self is CoordinateSystem.PADDED:
            return f"{', '.join(f'{edge:.3f}' for edge in self.frame(shown))} of the padded square"
        return "0 to 1 on both axes" if self is CoordinateSystem.UNIT else "0 to 1000 on both axes"


@dataclass(frozen=True, slots=True)
class View:
    """One image the model was shown: `region` of the source (source pixels, integer edges), at `shown_size`.

    View 0 of a trajectory is the overview. Only a view turns a box in the model's words into source pixels
    and back. In the model's words the numbers of a box stand in the order in which they are written: of a y-first system
    x0 and x1 are places on the y axis. tool: what made the image of the region, with these `arguments`, if it is not the
    region itself; boxes mean nothing in such an image. source: which of the sample's images the region is of, from 0.
    """

    source_size: Size
    region: Box
    shown_size: Size
    tool: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    source: int = 0

    @classmethod
    def __get_pydantic_core_schema__(cls, kind: Any, handler: Any) -> Any:
        return omitting(handler(kind), handler, source=0)

    def to_source(self, box: Box, system: CoordinateSystem) -> Box:
        """A box in the model's coordinates of this view -> source pixels."""
        return _mapped(system.ordered(box), system.frame(self.shown_size), self.region)

    def from_source(self, box: Box, system: CoordinateSystem) -> Box:
        """A box in source pixels -> the model's coordinates of this view."""
        return system.ordered(_mapped(box, self.region, system.frame(self.shown_size)))

    @property
    def scale(self) -> float:
        """Shown pixels per source pixel along the sharper axis; 1 or more means full detail."""
        return max(self.shown_size.width / self.region.width, self.shown_size.height / self.region.height)


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """The grid and area limits of the images a policy is shown, in shown pixels (see `smart_resize`)."""

    grid: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28  # overview
    zoom_pixels: int = 320 * 28 * 28  # each crop


def _mapped(box: Box, old: Box, new: Box) -> Box:
    """`box` moved and stretched as `old` is to become `new`."""
    sx, sy = new.width / old.width, new.height / old.height
    return Box(
        new.x0 + (box.x0 - old.x0) * sx,
        new.y0 + (box.y0 - old.y0) * sy,
        new.x0 + (box.x1 - old.x0) * sx,
        new.y0 + (box.y1 - old.y0) * sy,
    )


def read_box(values: Any, system: CoordinateSystem = CoordinateSystem.ABSOLUTE) -> Box:
    """The box a model wrote, as four numbers in its own coordinates and order with x0 < x1 and y0 < y1.

    system: whose order of the numbers a refusal names.

    Stated rule: plain numbers and numbers in strings are taken; reversed edges are swapped; anything else
    (not four values, booleans, words, NaN, infinite, no width or height) is refused.

    Raises:
        BoxError: with the sentence the model reads.
    """
    if not isinstance(values, (list, tuple)) or len(values) != 4:
        raise BoxError(f"bbox_2d must be a list of four numbers {system.corners}.")
    numbers = [_number(value) for value in values]
    x0, x1 = sorted((numbers[0], numbers[2]))
    y0, y1 = sorted((numbers[1], numbers[3]))
    if not (x1 > x0 and y1 > y0):
        raise BoxError("The box has no area: x1 must differ from x2 and y1 from y2.")
    return Box(x0, y0, x1, y1)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BoxError("bbox_2d must hold four numbers and nothing else.")
    try:
        number = float(value)
    except ValueError:
        raise BoxError("bbox_2d must hold four numbers and nothing else.") from None
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not math.isfinite(number) or abs(number) > 1e9:
        raise BoxError("bbox_2d must hold finite numbers that lie inside the image.")
    return number


def clip_to_view(box: Box, view: View, system: CoordinateSystem) -> Box:
    """The part of a model's box inside the view it names, in the model's coordinates.

    Raises:
        BoxError: if nothing of it lies inside.
    """
    frame = system.frame(view.shown_size)
    inside = Box(max(box.x0, frame.x0), max(box.y0, frame.y0), min(box.x1, frame.x1), min(box.y1, frame.y1))
    if not (inside.x1 > inside.x0 and inside.y1 > inside.y0):
        raise BoxError(f"The box lies outside the image, which is {system.describe(view.shown_size)}.")
    return inside


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
    if not 0 < min_pixels <= max_pixels or max_pixels < grid * grid:
        raise ValueError(f"pixel limits must satisfy 0 < min <= max and max >= {grid * grid}")
    width, height = float(size.width), float(size.height)
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
