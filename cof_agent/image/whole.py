"""Reads ordinary files: Pillow decodes the whole image on first use, and its pixels are kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.colours import crop, to_rgb
from cof_agent.image.files import open_file, open_image, own_limits, refuse_damaged, turned
from cof_agent.image.reader import Edges, resized

_COLOUR_MAP = 320  # TIFF's tag


class WholeReader:
    """The `Reader` of a file that is decoded whole. orientation: of EXIF, 1 to 8, that is still to be applied."""

    levels: tuple[float, ...] = (1.0,)
    passes = False
    note: str | None = None

    def __init__(self, path: Path, size: Size, orientation: int) -> None:
        self.size, self.held = size, size.area
        self._path, self._orientation = path, orientation
        self._pixels: Image.Image | None = None
        self._lock = threading.Lock()

    @property
    def is_decoded(self) -> bool:
        return self._pixels is not None

    def read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        pixels = self._decoded()
        # A crop of everything would be a second full copy.
        part = pixels if region == (0, 0, *pixels.size) else crop(pixels, region)
        if part.size != (shown.width, shown.height):
            return resized(part, shown, resample)
        return part.copy() if part is pixels else part

    def _decoded(self) -> Image.Image:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
            return self._pixels

    def _decode(self) -> Image.Image:
        """The whole image: mode RGB, upright, without metadata."""
        with own_limits(), open_file(self._path) as file:
            image = open_image(self._path, file)
            try:
                pixels = to_rgb(self._loaded(image, file))
            except InputError:
                raise
            except MemoryError:
                raise InputError(
                    f"cannot decode the image {self._path}: {self.size} pixels need more memory than there is; "
                    "make it smaller."
                ) from None
            except Exception as error:  # decoders raise anything at damaged bytes
                refuse_damaged(self._path, error)
        pixels = turned(pixels, self._orientation)
        if pixels.size != (self.size.width, self.size.height):
            raise InputError(f"the image {self._path} is not of the size that its header gave; get a whole copy of it.")
        pixels.info = {}  # else a crop that is saved would carry the profile and comments of the whole
        return pixels

    def _loaded(self, image: ImageFile.ImageFile, file: IO[bytes]) -> Image.Image:
        """The image with its pixels, as they are stored."""
        image.load()
        if image.format == "TIFF" and image.mode == "P":
            _with_small_palette(image)
        return image


def _with_small_palette(image: ImageFile.ImageFile) -> None:
    """Some writers give the colours of a palette 8 bits where TIFF has 16; libtiff knows such a palette by its largest value,
    and Pillow makes it black."""
    colours = image.tag_v2.get(_COLOUR_MAP, ())  # type: ignore[attr-defined]
    if colours and max(colours) < 256:
        count = len(colours) // 3
        image.putpalette(bytes(colours[channel * count + entry] for entry in range(count) for channel in range(3)))
