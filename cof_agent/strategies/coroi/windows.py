"""Which window of a score map is worth a closer look: the sliding windows of CoRoI (arXiv 2505.06840), and their boxes.

For each zoom factor a square window of floor(long side / factor) cells slides over the map in steps of one cell. The
pooled scores of windows of different sizes are compared as mean x area^(1 - TIGHTNESS): by their means alone the smallest
would always win, by their sums the largest. A thing that fills k cells evenly is best matched, for any value between 0
and 1, by the tightest window that holds all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cof_agent.geometry import Box, View

Scores = NDArray[np.float64]
"""[rows, columns], none below 0."""

TIGHTNESS = 0.3
"""From 0, where what a window holds decides, to 1, where its mean does."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of cells, (0, 0) at the top left, with what it scored."""

    x: int
    y: int
    width: int
    height: int
    score: float


def window_sides(rows: int, columns: int, factors: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width in cells of the windows of a map, one pair for each different size.

    A window is at least one cell, and where the map is lower (or narrower) than the square, as high (or wide) as the map.
    """
    sides = (max(1, max(rows, columns) // factor) for factor in factors)
    return list(dict.fromkeys((min(side, rows), min(side, columns)) for side in sides))


def best_window(scores: Scores, factors: Sequence[int]) -> Window:
    """The window with the best score of all sizes; of equal ones the first in the order of `factors`, then row by row."""
    rows, columns = scores.shape
    sums = np.pad(scores.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    found = []
    for height, width in window_sides(rows, columns, factors):
        inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
        pooled = inside / (height * width) ** TIGHTNESS
        y, x = (int(at) for at in np.unravel_index(pooled.argmax(), pooled.shape))
        found.append(Window(x, y, width, height, float(pooled[y, x])))
    return max(found, key=lambda window: window.score)


def box_of(window: Window, view: View, rows: int, columns: int) -> Box:
    """A window of a map of `rows` x `columns` cells over `view`, in source pixels."""
    across, down = view.region.width / columns, view.region.height / rows
    x, y = view.region.x0 + window.x * across, view.region.y0 + window.y * down
    return Box(x, y, x + window.width * across, y + window.height * down)


def share_of(boxes: Sequence[Box], view: View, rows: int, columns: int) -> Scores:
    """How much of the boxes (source pixels) lies in each cell of a map over `view`: shares of all that lies inside it,
    which sum to 1; zeros if nothing does."""
    x = view.region.x0 + view.region.width * np.arange(columns + 1) / columns
    y = view.region.y0 + view.region.height * np.arange(rows + 1) / rows
    area = np.zeros((rows, columns))
    for box in boxes:
        across = np.clip(np.minimum(x[1:], box.x1) - np.maximum(x[:-1], box.x0), 0, None)
        down = np.clip(np.minimum(y[1:], box.y1) - np.maximum(y[:-1], box.y0), 0, None)
        area += down[:, None] * across[None, :]
    total = float(area.sum())
    return area / total if total else area
