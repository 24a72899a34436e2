"""Every conversion between what a model writes and pixels of the source image happens here, once.

Three frames are told apart by name:
- *source*: pixels of the image as opened (EXIF applied), continuous, origin at the top left corner;
- *shown*: pixels of a view as the model's vision tower receives it;
- *model*: the numbers the model writes, in its order, which a `CoordinateSystem` ties to *shown*.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cof_agent.fields import omitting


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
    SOURCE = "source"  # pixels of the image file, whichever image is named
    UNIT_OR_PIXELS = (
        "unit-or-pixels"  # 0..1 where all four numbers are below 1, else pixels of the named image (Pixel-Reasoner)
    )
    PADDED = "padded"  # 0..1 on both axes of the square in whose middle the image lies (LLaVA, Chain-of-Spot)

    def frame(self, shown: Size) -> Box:
        """The edges of a view shown at `shown` pixels, in the model's coordinates and order (for `SOURCE` see `View.frame`)."""
        match self:
            case CoordinateSystem.ABSOLUTE | CoordinateSystem.SOURCE:
                return Box(0.0, 0.0, float(shown.width), float(shown.height))
            case CoordinateSystem.THOUSAND | CoordinateSystem.THOUSAND_YX:
                return Box(0.0, 0.0, 1000.0, 1000.0)
            case CoordinateSystem.UNIT | CoordinateSystem.UNIT_OR_PIXELS:
                return Box(0.0, 0.0, 1.0, 1.0)
        x, y = (0.5 - side / shown.long_side / 2 for side in (shown.width, shown.height))
        return Box(x, y, 1 - x, 1 - y)

    @property
    def digits(self) -> int:
        """Decimals with which its numbers are written."""
        return 3 if self in (self.UNIT, self.UNIT_OR_PIXELS, self.PADDED) else 0

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
        if self is CoordinateSystem.SOURCE:
            return "part of the image file, in whose pixels boxes are given"
        unit = self in (CoordinateSystem.UNIT, CoordinateSystem.UNIT_OR_PIXELS)
        return "0 to 1 on both axes" if unit else "0 to 1000 on both axes"


OF_MODELS = tuple(
    one for one in CoordinateSystem if one not in (CoordinateSystem.SOURCE, CoordinateSystem.UNIT_OR_PIXELS)
)
"""The systems that a model may have by itself; the others belong to dialects."""


_BELOW_ONE = 0.999


@dataclass(frozen=True, slots=True)
class View:
    """One image the model was shown: `region` of the source (source pixels, integer edges), at `shown_size`.

    View 0 of a trajectory is the overview. Only a view turns a box in the model's words into source pixels
    and back. In the model's words the numbers of a box stand in the order in which they are written: of a y-first system
    x0 and x1 are places on the y axis. tool: what made the image of the region, with these `arguments`, if it is not the
    region itself; boxes mean nothing in such an image. source: which of the sample's images the region is of, from 0. cut: in
    pixels of the overview as shown, the edges of a crop that is cut from the overview; `region` then has the source's whole
    pixels around them.
    """

    source_size: Size
    region: Box
    shown_size: Size
    tool: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    source: int = 0
    cut: Box | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, kind: Any, handler: Any) -> Any:
        return omitting(handler(kind), handler, source=0, cut=None)

    def frame(self, system: CoordinateSystem, box: Box | None = None) -> Box:
        """The edges of this view in the model's coordinates and order; `box` is one in them, where its numbers decide."""
        if system is CoordinateSystem.SOURCE:
            return self.region
        if system is CoordinateSystem.UNIT_OR_PIXELS and box is not None and max(box) >= 1:
            whole = Box(0, 0, self.source_size.width, self.source_size.height)
            return whole if self.region == whole else CoordinateSystem.ABSOLUTE.frame(self.shown_size)
        return system.frame(self.shown_size)

    def to_source(self, box: Box, system: CoordinateSystem) -> Box:
        """A box in the model's coordinates of this view -> source pixels."""
        return moved(system.ordered(box), self.frame(system, box), self.region)

    def from_source(self, box: Box, system: CoordinateSystem) -> Box:
        """A box in source pixels -> the model's coordinates of this view."""
        written = system.ordered(moved(box, self.region, self.frame(system)))
        if system is CoordinateSystem.UNIT_OR_PIXELS:  # whose 1 is a pixel
            return Box(*(min(edge, _BELOW_ONE) for edge in written))
        return written

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


def moved(box: Box, old: Box, new: Box) -> Box:
    """`box` moved and stretched as `old` is to become `new`; any of them in any frame."""
    sx, sy = new.width / old.width, new.height / old.height
    return Box(
        new.x0 + (box.x0 - old.x0) * sx,
        new.y0 + (box.y0 - old.y0) * sy,
        new.x0 + (box.x1 - old.x0) * sx,
        new.y0 + (box.y1 - old.y0) * sy,
    )
