"""`Source`: one image, its size known from the header, its pixels read when they are asked for; bombs are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image.files import head_of, open_file, open_image, orientation_of, own_limits, refuse_damaged
from cof_agent.image.jpeg import JpegReader, with_end
from cof_agent.image.pages import PageReader, is_pdf, split_name
from cof_agent.image.reader import Edges, Reader
from cof_agent.image.slides import SUFFIXES, open_slide
from cof_agent.image.tiled import NotTiled, open_tiled
from cof_agent.image.wavelets import open_wavelets
from cof_agent.image.whole import WholeReader

DEFAULT_MAX_SOURCE_PIXELS = 178_956_970
"""Where Pillow itself stops by default: half a gigapixel as 24-bit RGB. `--max-source-pixels` raises it."""

LARGEST_HEADER = 1 << 31  # pixels of an image of which only the size is asked for
# Tags of TIFF, and the value of the last one for channels that lie apart.
_BITS, _COMPRESSION, _PLANES, _APART = 258, 259, 284, 2


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
    def levels(self) -> tuple[float, ...]:
        """The scales, from 1 down, of which the file holds copies of its own."""
        return self._reader.levels

    @property
    def note(self) -> str | None:
        """What is wrong with the file although its pixels are all there; None until they are decoded."""
        return self._reader.note

    @property
    def passes(self) -> bool:
        """Whether the first overview takes a pass through the whole file."""
        return self._reader.passes

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

    path: of an image file, or of a page: `file.pdf#page=3`. max_source_pixels: the largest image that is decoded whole.

    Raises:
        InputError: if there is no such file, it is no image, a package is missing that its kind needs, or it has more than
            `max_source_pixels` pixels and cannot be read in parts.
    """
    name, page = split_name(os.fspath(path))
    with own_limits(), open_file(Path(name)) as file:
        if page is not None or is_pdf(head_of(Path(name), file)):
            return Source(Path(path), PageReader(Path(name), page))
        slide = open_slide(Path(name)) if Path(name).suffix.lower() in SUFFIXES else None
        return Source(Path(path), slide or _reader(Path(name), file, max_source_pixels))


def file_of(path: str) -> str:
    """The file that holds the image of this name: of a page of a PDF file the whole file."""
    return split_name(path)[0]


def _reader(path: Path, file: IO[bytes], max_source_pixels: int) -> Reader:
    image, size = _opened(path, file)
    misread = image.format == "TIFF" and _is_misread(image)
    is_large = size.area > min(max_source_pixels, DEFAULT_MAX_SOURCE_PIXELS)
    if misread or (is_large and image.format in ("TIFF", "JPEG2000")):
        try:
            return open_tiled(path, image) if image.format == "TIFF" else open_wavelets(path, _upright(image, file)[1])
        except NotTiled as error:
            if misread:
                raise InputError(
                    f"cannot open the image {path}: its channels lie apart, which cannot be read here ({error}); store them "
                    "together, or convert it to PNG."
                ) from None
            _check_area(path, size, max_source_pixels, f", and it cannot be read in parts ({error})")
            image, size = _opened(path, file)  # which is at another of its pages now
    _check_area(path, size, max_source_pixels)
    kind = JpegReader if image.format in ("JPEG", "MPO") else WholeReader
    return kind(path, *_upright(image, file))


def _is_misread(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow makes noise of a TIFF file, without a word: its channels lie apart, uncompressed with 16 bits, or with an
    alpha channel beside grey."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    deep = tags.get(_COMPRESSION, 1) == 1 and max(tags.get(_BITS, (1,))) == 16
    return bool(tags.get(_PLANES, 1) == _APART and (deep or image.mode in ("LA", "La")))


def upright_size(file: IO[bytes], name: str) -> Size:
    """The size of an image in an open file, in source pixels; nothing is decoded (but see `orientation_of`).

    Raises:
        InputError: if it is no image, naming `name`.
    """
    with own_limits():
        image, size = _opened(Path(name), file)
        _check_area(Path(name), size, LARGEST_HEADER)
        return _upright(image, file)[0]


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
        except Exception as error:  # decoders raise anything at damaged bytes
            if image.format == "JPEG" and isinstance(error, OSError):
                with_end(Path(name), file, error)
                return
            refuse_damaged(Path(name), error)


def _opened(path: Path, file: IO[bytes]) -> tuple[ImageFile.ImageFile, Size]:
    """The image, its header read, and its size as stored."""
    image = open_image(path, file)
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"cannot open the image {path}: it has no pixels; use another file.")
    return image, Size(width, height)


def _check_area(path: Path, size: Size, most: int, why: str = "") -> None:
    """Refuses an image that is too large to be decoded whole; why: it has to be."""
    if size.area > most:
        raise InputError(
            f"cannot open the image {path}: its {size} = {size.area} pixels are more than the limit of {most}{why}; "
            "if you trust the file, raise --max-source-pixels."
        )


def _upright(image: ImageFile.ImageFile, file: IO[bytes]) -> tuple[Size, int]:
    """The size in source pixels, and the EXIF orientation that makes it so."""
    (width, height), orientation = image.size, orientation_of(image, file)
    return (Size(height, width) if orientation >= 5 else Size(width, height)), orientation
