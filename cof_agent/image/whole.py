"""Reads ordinary files: Pillow decodes the whole image on first use, and its pixels are kept."""

from __future__ import annotations

import threading
from pathlib import Path

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.colours import crop, to_rgb
from cof_agent.image.files import TRANSPOSE, open_file, open_image, own_limits, refuse_damaged
from cof_agent.image.reader import Edges, resized


class WholeReader:
    """The `Reader` of a file that is decoded whole. orientation: of EXIF, 1 to 8, that is still to be applied."""

    levels: tuple[float, ...] = (1.0,)

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
                self._pixels = _decode(self._path, self.size, self._orientation)
            return self._pixels


def _decode(path: Path, size: Size, orientation: int) -> Image.Image:
    """The whole image: mode RGB, upright, without metadata."""
    with own_limits(), open_file(path) as file:
        image = open_image(path, file)
        try:
            image.load()
            pixels = to_rgb(image)
        except MemoryError:
            raise InputError(
                f"cannot decode the image {path}: {size} pixels need more memory than there is; make it smaller."
            ) from None
        except Exception as error:
            refuse_damaged(path, error)
    if orientation in TRANSPOSE:
        pixels = pixels.transpose(TRANSPOSE[orientation])
    if pixels.size != (size.width, size.height):
        raise InputError(f"the image {path} is not of the size that its header gave; get a whole copy of it.")
    pixels.info = {}  # else a crop that is saved would carry the profile and comments of the whole
    return pixels
