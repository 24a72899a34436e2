"""Reads JPEG files: the overview of a large one at a reduced scale, and one whose end mark is missing."""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from cof_agent.geometry import Size
from cof_agent.image.colours import to_rgb
from cof_agent.image.files import open_file, open_image, own_limits, refuse_damaged, turned
from cof_agent.image.reader import Edges, resized
from cof_agent.image.whole import WholeReader

_log = logging.getLogger(__name__)

REDUCED_FROM = 1 << 24
"""Pixels from which on an overview is decoded at a half, a quarter or an eighth of the size: the least that leaves `SPARE`
pixels a side for each shown one. On average its pixels differ by less than two grey levels from those made of the whole."""
SPARE = 1.4

_NO_END = "lacks the mark at its end; its pixels are all there."
_END = b"\xff\xd9"
_MOST_NOTED = 4_096  # files
_GARBAGE = tuple(bytes([byte]) * 4096 for byte in (0x55, 0xAA, 0x33, 0xCC))


class JpegReader(WholeReader):
    """The `Reader` of a JPEG file. Only a view of the whole image is read at a reduced scale, and always: what a model is shown
    does not depend on what was decoded before."""

    def read(self, region: Edges, shown: Size, resample: str) -> Image.Image:
        is_whole = region == (0, 0, self.size.width, self.size.height)
        if is_whole and self.size.area > REDUCED_FROM and self._scale(shown) > 1:
            return resized(self._reduced(self._scale(shown)), shown, resample)
        return super().read(region, shown, resample)

    def _scale(self, shown: Size) -> int:
        spare = min(self.size.width / shown.width, self.size.height / shown.height) / SPARE
        return max(scale for scale in (1, 2, 4, 8) if scale <= max(1, spare))

    def _reduced(self, scale: int) -> Image.Image:
        with own_limits(), open_file(self._path) as file:
            image = open_image(self._path, file)
            try:
                image.draft(image.mode, (image.width // scale, image.height // scale))
                image.load()
                pixels = to_rgb(image)
            except OSError as error:
                pixels = to_rgb(self._with_end(file, error))
            except Exception as error:  # decoders raise anything at damaged bytes
                refuse_damaged(self._path, error)
        return turned(pixels, self._orientation)

    def _loaded(self, image: ImageFile.ImageFile, file: IO[bytes]) -> Image.Image:
        try:
            return super()._loaded(image, file)
        except OSError as error:
            return self._with_end(file, error)

    def _with_end(self, file: IO[bytes], error: Exception) -> Image.Image:
        image = with_end(self._path, file, error)
        self.note = f"{self._path.name} {_NO_END}"
        return image


def with_end(path: Path, file: IO[bytes], error: Exception) -> Image.Image:
    """The image in a JPEG file that lacks nothing but its end mark; a warning says so. error: of the decoder.

    Bytes behind the end become pixels where pixels are missing; so they are all there if they do not depend on these bytes.

    Raises:
        InputError: if pixels are missing, too.
    """
    file.seek(0)
    data = file.read().rstrip(_END[:1])
    try:
        image = _ended(data)
        pixels = image.tobytes()
        if any(_ended(data + tail).tobytes() != pixels for tail in _GARBAGE):  # one copy at a time
            refuse_damaged(path, error)
    except (OSError, SyntaxError, ValueError, MemoryError):
        refuse_damaged(path, error)
    _note(path)
    return image


def _ended(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data + _END), formats=["JPEG"])


@lru_cache(_MOST_NOTED)
def _note(path: Path) -> None:
    """One warning for each file, however often it is read; a server is sent new ones without end."""
    _log.warning("%s %s", path, _NO_END)
