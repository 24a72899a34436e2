"""Reads files of tiles: a region is cut from the copy of the image, of those in the file, that is just sharp enough for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from cof_agent.geometry import Size
from cof_agent.image.files import TRANSPOSE
from cof_agent.image.reader import REDUCING_GAP, Edges, check_shown, resized

FULL_RESOLUTION = 1 << 24
"""Pixels of a region that is always read at full resolution. In a larger one, each shown pixel is made of at least two source
pixels a side, and a smaller copy with that many pixels will do."""

MOST_READ = 1 << 28
"""Pixels that are read for one view. A larger region is made of a smaller copy, even if that is less sharp than it could be."""

Point = tuple[float, float]

_STORED: dict[int, Callable[[Point, Size], Point]] = {
    2: lambda at, size: (size.width - at[0], at[1]),
    3: lambda at, size: (size.width - at[0], size.height - at[1]),
    4: lambda at, size: (at[0], size.height - at[1]),
    5: lambda at, size: (at[1], at[0]),
    6: lambda at, size: (at[1], size.height - at[0]),
    7: lambda at, size: (size.width - at[1], size.height - at[0]),
    8: lambda at, size: (size.width - at[1], at[0]),
}
"""Where a point of the upright image lies in an image of `size` as it is stored, by its EXIF orientation."""


class Pyramid(ABC):
    """A `Reader` of an image that is stored at several sizes. stored: these sizes, full resolution first. orientation: of
    EXIF, that is still to be applied. Subclasses read pixels of one size."""

    held = FULL_RESOLUTION
    passes = False
    note: str | None = None
    is_decoded = False

    def __init__(self, path: Path, stored: Sequence[Size], orientation: int = 1) -> None:
        full = stored[0]
        self.size = Size(full.height, full.width) if orientation >= 5 else full
        self.levels: tuple[float, ...] = tuple(size.long_side / full.long_side for size in stored)
        self.path = path
        self._stored, self._orientation = list(stored), orientation

    def read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        check_shown(self.path, shown)
        if (turn := TRANSPOSE.get(self._orientation)) is None:
            return self._read(region, shown, resample)
        place, full = _STORED[self._orientation], self._stored[0]
        (x0, y0), (x1, y1) = place((region[0], region[1]), full), place((region[2], region[3]), full)
        edges = (int(min(x0, x1)), int(min(y0, y1)), int(max(x0, x1)), int(max(y0, y1)))
        lying = Size(shown.height, shown.width) if self._orientation >= 5 else shown
        return self._read(edges, lying, resample).transpose(turn)

    def _read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        """As `read`, in the image as it is stored."""
        x0, y0, x1, y1 = region
        if (x1 - x0) * (y1 - y0) <= FULL_RESOLUTION:
            part = self._pixels(0, region, 1)
            return part if part.size == (shown.width, shown.height) else resized(part, shown, resample)
        level = self._level((x1 - x0) * (y1 - y0), max(shown.width / (x1 - x0), shown.height / (y1 - y0)))
        full, size = self._stored[0], self._stored[level]
        sx, sy = size.width / full.width, size.height / full.height
        left, top = math.floor(x0 * sx), math.floor(y0 * sy)
        right, bottom = min(math.ceil(x1 * sx), size.width), min(math.ceil(y1 * sy), size.height)
        by = max(1, math.floor(min((right - left) / shown.width, (bottom - top) / shown.height) / REDUCING_GAP))
        part = self._pixels(level, (left, top, right, bottom), by)
        box = ((x0 * sx - left) / by, (y0 * sy - top) / by, (x1 * sx - left) / by, (y1 * sy - top) / by)
        inside = (box[0], box[1], min(box[2], part.width), min(box[3], part.height))
        return resized(part, shown, resample, inside)

    def _level(self, area: int, scale: float) -> int:
        """The size from which a region is made. area: of the region, in source pixels. scale: shown pixels for each of these
        along an axis."""
        full, last = self._stored[0], len(self._stored) - 1
        enough = [k for k, one in enumerate(self._stored) if one.long_side >= full.long_side * scale * REDUCING_GAP]
        level = max(enough, default=0)
        while level < last and area * self._stored[level].area > MOST_READ * full.area:
            level += 1
        return level

    @abstractmethod
    def _pixels(self, level: int, region: Edges, by: int) -> Image.Image:
        """A region of the stored size number `level`, in its pixels, mode RGB; blocks of `by` x `by` are averaged, those at the
        right and the lower edge may be cut.

        Raises:
            InputError: if the file cannot be decoded.
        """
