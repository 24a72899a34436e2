"""What reads the pixels of one image: the interface behind `Source`, and the resizing that all readers share."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Size

Edges = tuple[int, int, int, int]
"""Left, top, right and lower edge of a region, in whole source pixels inside the image."""

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
"""Pillow's filters by the names that crop rules have for them."""

REDUCING_GAP = 2.0
"""Pillow's `resize` averages blocks first where at least this factor is left for bicubic; its `thumbnail` does the same.
An overview of a 4K image takes a fifth of the time."""


class Reader(Protocol):
    """The pixels of one image file. Thread-safe.

    size: in source pixels, upright. levels: the scales, from 1 down, of which the file holds copies of its own, so that
    a region is read there without a pass over its pixels at full size. held: the most pixels that stay in memory. passes:
    whether an overview takes a pass through the whole file, once. note: what is wrong with the file although its pixels are all
    there, as a sentence; None until they are decoded.
    """

    size: Size
    levels: tuple[float, ...]
    held: int
    passes: bool
    note: str | None

    @property
    def is_decoded(self) -> bool:
        """Whether all pixels are in memory."""
        ...

    def read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        """The region as a fresh image of exactly `shown` pixels, mode RGB.

        Raises:
            InputError: if the file cannot be decoded.
        """
        ...


MOST_SHOWN = 1 << 28
"""Pixels of the largest image that is made of a region of what is never decoded whole."""


def check_shown(path: Path, shown: Size) -> None:
    """Refuses to make an image that is too large.

    Raises:
        InputError: if it is too large.
    """
    if shown.area > MOST_SHOWN:
        raise InputError(f"a region of {path} is too large to be shown at {shown} pixels; show it smaller.")


def resized(
    part: Image.Image, shown: Size, resample: str, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """`part`, or the `box` of it, at `shown` pixels; resample: a filter of `RESAMPLING`."""
    gap = REDUCING_GAP if resample == "bicubic" else None
    return part.resize((shown.width, shown.height), RESAMPLING[resample], box=box, reducing_gap=gap)
