"""From a map of relevance over the overview to a region of the source; how well maps point; a picture of one.

The threshold is our own: Chain-of-Spot (arXiv 2403.12966) takes the box of what is highlighted, without a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cof_agent.geometry import Box, View
from cof_agent.trajectory import Sample
from cof_agent.viewer.picture import PALETTE

THRESHOLD = 0.3  # of the highest cell's relevance
_LINE = 3  # pixels of a picture


@dataclass(frozen=True, slots=True)
class Highlight:
    """What a map says of one sample. `cells`: relevance by rows of merged patches over the overview, 0 or more."""

    id: str
    overview: View
    cells: tuple[tuple[float, ...], ...]

    @property
    def map(self) -> NDArray[np.float64]:
        """[rows, columns]."""
        return np.asarray(self.cells)

    @property
    def peak(self) -> Box:
        """The highest cell, in source pixels."""
        row, column = self._highest()
        return self._box(row, column, row, column)

    @property
    def region(self) -> Box:
        """The box, in source pixels, around the cells of at least `THRESHOLD` of the highest that hang together with it,
        corners included."""
        high = self.map >= THRESHOLD * self.map.max()
        todo = [self._highest()]
        found = set(todo)
        while todo:
            row, column = todo.pop()
            around = ((row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1))
            new = {
                (r, c) for r, c in around if 0 <= r < high.shape[0] and 0 <= c < high.shape[1] and high[r, c]
            } - found
            found |= new
            todo += new
        rows, columns = zip(*found, strict=True)
        return self._box(min(rows), min(columns), max(rows), max(columns))

    def _highest(self) -> tuple[int, int]:
        row, column = np.unravel_index(int(self.map.argmax()), self.map.shape)
        return int(row), int(column)

    def _box(self, top: int, left: int, bottom: int, right: int) -> Box:
        """The box of whole cells, in source pixels."""
        whole, (rows, columns) = self.overview.region, self.map.shape
        width, height = whole.width / columns, whole.height / rows
        x, y = whole.x0, whole.y0
        return Box(x + left * width, y + top * height, x + (right + 1) * width, y + (bottom + 1) * height)


def pointing(pairs: Iterable[tuple[Highlight, Sequence[Box]]]) -> dict[str, float | int | None]:
    """How well maps point at true boxes, beside a cell and a crop of the region's size in the middle of the image.

    hit: share of samples whose highest cell meets a true box, the pointing game of Zhang et al. (arXiv 1608.00507); the cell
    stands for the 15 pixels of tolerance there, since a map is no finer. overlap: mean intersection over union of the
    region with the true box that it meets best.
    """
    rows = []
    for found, truth in pairs:
        if truth:
            peak, region, size = found.peak, found.region, found.overview.source_size
            middle = (size.width / 2, size.height / 2)
            given = (_hit(peak, truth), _overlap(region, truth))
            rows.append((*given, _hit(_at(peak, middle), truth), _overlap(_at(region, middle), truth)))
    names = ("hit", "overlap", "centre_hit", "centre_overlap")
    return {"n": len(rows)} | {
        name: round(fmean(row[place] for row in rows), 4) if rows else None for place, name in enumerate(names)
    }


def _at(box: Box, middle: tuple[float, float]) -> Box:
    """The box, moved so that `middle` is its centre."""
    (cx, cy), (x, y) = box.center, middle
    return Box(box.x0 + x - cx, box.y0 + y - cy, box.x1 + x - cx, box.y1 + y - cy)


def _hit(cell: Box, truth: Sequence[Box]) -> bool:
    return any(cell.intersection(box) > 0 for box in truth)


def _overlap(box: Box, truth: Sequence[Box]) -> float:
    shared = [(box.intersection(true), true) for true in truth]
    return max(common / (box.area + true.area - common) for common, true in shared)


def draw(found: Highlight, sample: Sample, overview: Image.Image) -> Image.Image:
    """The overview, of any size, under its map in red, with the region in a solid frame and the true boxes in white."""
    heat = (255 * found.map / max(float(found.map.max()), 1e-12)).astype(np.uint8)
    cover = Image.fromarray(heat).resize(overview.size, Image.Resampling.BICUBIC).point(lambda value: int(value * 0.7))
    picture = Image.composite(Image.new("RGB", overview.size, PALETTE[0]), overview, cover)
    pen, whole = ImageDraw.Draw(picture), found.overview.region
    sx, sy = picture.width / whole.width, picture.height / whole.height
    framed = [(box, "#ffffff") for box in sample.boxes] + [(found.region, PALETTE[1])]
    for box, ink in framed:
        pen.rectangle((box.x0 * sx, box.y0 * sy, box.x1 * sx, box.y1 * sy), outline=ink, width=_LINE)
    return picture
