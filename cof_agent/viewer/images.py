"""Cuts the images of a page out of their sources and makes them small enough: each source is decoded once."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import DEFAULT_MAX_SOURCE_PIXELS, open_source
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.picture import fitted
from cof_agent.viewer.templates import cut

MOST_BYTES = 29_000_000
"""All images of one page together, as WebP; base64 takes a third more."""

MOST_OPENED = 4 * DEFAULT_MAX_SOURCE_PIXELS
"""Pixels of a source that is decoded whole for a page: two gigabytes."""

_OVERVIEW_BYTES, _OVERVIEW_SIDE, _OVERVIEW_WEIGHT = 360_000, 1600, 4.0
_CROP_BYTES, _CROP_SIDE, _CROP_WEIGHT = 90_000, 720, 1.0
_MIN_SIDE = 48  # pixels; an image that must be smaller to fit is left out
_BLOCK_BYTES = 72  # what the markup around an image takes, in bytes before base64


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A part of a source to embed; `side` is the most pixels on its long side, `weight` its share of the bytes."""

    source_size: Size
    region: Box
    side: int
    weight: float
    most_bytes: int


def limit_of(trajectories: Sequence[Trajectory]) -> int:
    """The largest source, in pixels, that the runs were allowed to open, so that what they saw can be shown; but at most
    `MOST_OPENED`, since a record may be anybody's."""
    recorded = [one.settings.get("max_source_pixels") for one in trajectories]
    return min(
        MOST_OPENED, max((most for most in recorded if isinstance(most, int)), default=DEFAULT_MAX_SOURCE_PIXELS)
    )


@dataclass(slots=True)
class PageImages:
    """Every distinct image that a page needs, numbered in the order in which they were added.

    problems: after `encode`, what went wrong, with the numbers of the images that the page has to do without.
    """

    max_source_pixels: int
    problems: dict[str, list[int]] = field(default_factory=dict)
    _by_path: dict[str, dict[_Wanted, int]] = field(default_factory=dict)
    _count: int = 0

    def add(self, path: str, view: View, *, overview: bool) -> int:
        """The number of the image that shows `view` of the source at `path`."""
        if overview:
            side = min(_OVERVIEW_SIDE, max(view.shown_size.long_side, view.source_size.long_side))
            wanted = _Wanted(view.source_size, view.region, side, _OVERVIEW_WEIGHT, _OVERVIEW_BYTES)
        else:
            side = min(_CROP_SIDE, view.shown_size.long_side)
            wanted = _Wanted(view.source_size, view.region, side, _CROP_WEIGHT, _CROP_BYTES)
        images = self._by_path.setdefault(path, {})
        if wanted not in images:
            images[wanted] = self._count
            self._count += 1
        return images[wanted]

    def encode(self, progress: Callable[[int, int], None] | None) -> dict[int, bytes]:
        """Every image as WebP by its number; together at most `MOST_BYTES`.

        progress: called with the number of sources that are done, and of all sources.
        """
        weights = sum(wanted.weight for images in self._by_path.values() for wanted in images)
        unit = MOST_BYTES / max(1.0, weights)
        done: dict[int, bytes] = {}
        # Decoding releases the interpreter lock; each worker holds one decoded source at a time.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            jobs = pool.map(
                lambda path: _encode_source(path, self._by_path[path], unit, self.max_source_pixels), self._by_path
            )
            for index, (encoded, problems) in enumerate(jobs, 1):
                done |= encoded
                for number, text in problems.items():
                    self.problems.setdefault(cut(text, 200), []).append(number)
                if progress is not None:
                    progress(index, len(self._by_path))
        return done


def _encode_source(
    path: str, images: dict[_Wanted, int], unit: float, max_source_pixels: int
) -> tuple[dict[int, bytes], dict[int, str]]:
    """The images of one source by number, and why others are missing. unit: bytes for an image of weight 1."""
    encoded: dict[int, bytes] = {}
    problems: dict[int, str] = {}
    try:
        source = open_source(path, max_source_pixels=max_source_pixels)
    except (InputError, OSError) as error:
        return {}, {number: str(error) for number in images.values()}
    for wanted, number in images.items():
        most = int(min(wanted.most_bytes, unit * wanted.weight - _BLOCK_BYTES))
        try:
            size = fitted(_region_size(wanted.region), _first_side(wanted, most), at_least=wanted.side)
            pixels = source.show(View(wanted.source_size, wanted.region, size))
            encoded[number] = webp(pixels, most)
        except (InputError, ArithmeticError, ValueError, OSError, MemoryError) as error:
            problems[number] = str(error) or type(error).__name__
    return encoded, problems


def _region_size(region: Box) -> Size:
    return Size(max(1, round(region.width)), max(1, round(region.height)))


def _first_side(wanted: _Wanted, most_bytes: int) -> int:
    """A long side that is worth trying: WebP of a noisy photograph takes at least 0.04 bytes a pixel."""
    region = _region_size(wanted.region)
    aspect = max(region.width / region.height, region.height / region.width)
    return max(_MIN_SIDE, min(wanted.side, round(math.sqrt(max(0, most_bytes) / 0.04 * aspect))))


def webp(pixels: Image.Image, most_bytes: int) -> bytes:
    """`pixels` as WebP of at most `most_bytes`, made smaller until it fits.

    Raises:
        InputError: if not even a very small one fits.
    """
    while True:
        file = io.BytesIO()
        pixels.save(file, "WEBP", quality=78, method=3)
        if file.tell() <= most_bytes:
            return file.getvalue()
        # A smaller picture takes more bytes a pixel, hence the 0.9.
        factor = max(0.4, 0.9 * math.sqrt(most_bytes / file.tell()))
        width, height = (max(1, round(side * factor)) for side in pixels.size)
        if max(width, height) < _MIN_SIDE:
            raise InputError("there is no room for this image on a page with so many")
        pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
