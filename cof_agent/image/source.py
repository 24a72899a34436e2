"""`Source`: one image, its size known from the header, its pixels read when they are asked for; bombs are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image.files import open_file, open_image, orientation_of, own_limits, refuse_damaged
from cof_agent.image.reader import Edges, Reader
from cof_agent.image.whole import WholeReader

DEFAULT_MAX_SOURCE_PIXELS = 178_956_970
"""Where Pillow itself stops by default: half a gigapixel as 24-bit RGB. `--max-source-pixels` raises it."""

LARGEST_HEADER = 1 << 31  # pixels of an image of which only the size is asked for


class Source:
    """One image file. `size` is known from the header; pixels are read when they are asked for. Thread-safe."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self.size = reader.size  # in source pixels, EXIF orientation applied
        self._reader = reader

    @property
    def is_decoded(self) -> bool:
        """Whether the pixels are in memory."""
        return self._reader.is_decoded

    @property
    def held(self) -> int:
        """The most source pixels that stay in memory."""
        return self._reader.held

    def crop(self, region: Box) -> Image.Image:
        """The pixels of `region` (source pixels, integer edges inside the image): mode RGB, one to one, a fresh copy.

        Raises:
            InputError: if the file cannot be decoded.
            ValueError: if `region` is not pixel-aligned or not inside the image.
        """
        left, top, right, bottom = edges = self._edges(region)
        return self._reader.read(edges, Size(right - left, bottom - top), "bicubic")

    def show(self, view: View, resample: str = "bicubic") -> Image.Image:
        """The pixels of a view of this source: mode RGB at exactly `view.shown_size`.

        The region is cropped first, then resized, so nothing from outside it bleeds in. resample: a filter of `RESAMPLING`;
        where a region is made more than four times smaller, bicubic averages whole blocks of pixels first.

        Raises:
            InputError: if the file cannot be decoded, or is not of the size that the view was made for.
            ValueError: if the view's region is not pixel-aligned or not inside the image.
        """
        if view.source_size != self.size:
            raise InputError(
                f"the image {self.path} is {self.size} pixels, but was {view.source_size} when this view of it was "
                "recorded; put the original file back."
            )
        return self._reader.read(self._edges(view.region), view.shown_size, resample)

    def _edges(self, region: Box) -> Edges:
        left, top, right, bottom = edges = region.pixels()
        if edges != tuple(region):
            raise ValueError(f"{region} is not aligned to whole pixels")
        if not (0 <= left < right <= self.size.width and 0 <= top < bottom <= self.size.height):
            raise ValueError(f"{region} does not lie inside an image of {self.size}")
        return edges


def open_source(path: str | os.PathLike[str], *, max_source_pixels: int = DEFAULT_MAX_SOURCE_PIXELS) -> Source:
    """Read an image file's header; nothing is decoded yet (except in the rare case that `orientation_of` explains).

    Raises:
        InputError: if there is no such file, it is no image, or it has more than `max_source_pixels` pixels.
    """
    path = Path(path)
    with own_limits(), open_file(path) as file:
        return Source(path, WholeReader(path, *_header(path, file, max_source_pixels)))


def upright_size(file: IO[bytes], name: str) -> Size:
    """The size of an image in an open file, in source pixels; nothing is decoded (but see `orientation_of`).

    Raises:
        InputError: if it is no image, naming `name`.
    """
    with own_limits():
        return _header(Path(name), file, LARGEST_HEADER)[0]


def check_whole(file: IO[bytes], name: str) -> None:
    """Reads an image in an open file to its end, so that one that is cut off is known before its pixels are needed. A PNG is
    checked by its sums, a JPEG decoded at an eighth of its size, all others decoded.

    Raises:
        InputError: if it is no image or cannot be decoded, naming `name`.
    """
    with own_limits():
        image = open_image(Path(name), file)
        try:
            if image.format == "PNG":
                image.verify()
            else:
                image.draft("RGB", (1, 1))
                image.load()
        except Exception as error:
            refuse_damaged(Path(name), error)


def _header(path: Path, file: IO[bytes], max_source_pixels: int) -> tuple[Size, int]:
    """The size in source pixels, and the EXIF orientation that makes it so."""
    image = open_image(path, file)
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"cannot open the image {path}: it has no pixels; use another file.")
    if width * height > max_source_pixels:
        raise InputError(
            f"cannot open the image {path}: its {width} x {height} = {width * height} pixels are more than the "
            f"limit of {max_source_pixels}; if you trust the file, raise --max-source-pixels."
        )
    orientation = orientation_of(image, file)
    return (Size(height, width) if orientation >= 5 else Size(width, height)), orientation
