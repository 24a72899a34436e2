"""Reads large JPEG 2000 files with GDAL's OpenJPEG: the blocks of a region, at the resolution that is just sharp enough."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.colours import to_rgb
from cof_agent.image.files import refuse_damaged
from cof_agent.image.pyramid import Pyramid
from cof_agent.image.reader import Edges
from cof_agent.image.tiled import MOST_PIXELS, NotTiled
from cof_agent.output.install import how_to_install

if TYPE_CHECKING:
    import numpy as np

_DRIVER = "JP2OpenJPEG"
_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
"""No file beside this one is read."""

_MODES = {
    ("gray",): "L",
    ("gray", "alpha"): "LA",
    ("red", "green", "blue"): "RGB",
    ("red", "green", "blue", "alpha"): "RGBA",
}
_BITS = {"uint8": "8", "uint16": "16"}
_SRGB, _GREY = 16, 17  # colour spaces that a file names by number
_MOST_BOXES, _MOST_HEADER = 64, 1 << 16


def open_wavelets(path: Path, orientation: int) -> WaveletReader:
    """The reader of a JPEG 2000 file. orientation: of EXIF, still to be applied.

    Raises:
        NotTiled: if its pixels are of another kind, or rasterio is missing.
    """
    try:
        from rasterio.errors import RasterioError
    except ImportError:
        raise NotTiled(f"that needs GDAL: {how_to_install('rasterio')}") from None
    try:
        with _opened(path) as data:
            full, mode = Size(data.width, data.height), _mode(data, _colour_space(path))
            count = len(data.overviews(1))
        sizes = [full]
        for level in range(count):
            with _opened(path, overview_level=level) as data:
                sizes.append(Size(data.width, data.height))
    except RasterioError as error:
        raise NotTiled(f"GDAL says: {' '.join(str(error).split())[:120]}") from None
    if full.area > MOST_PIXELS:
        raise NotTiled(f"it has more than {MOST_PIXELS} pixels")
    return WaveletReader(path, sizes, orientation, mode)


class WaveletReader(Pyramid):
    """The `Reader` of a JPEG 2000 file. stored: its resolutions. mode: of Pillow, of its pixels with 8 bits."""

    def __init__(self, path: Path, stored: list[Size], orientation: int, mode: str) -> None:
        super().__init__(path, stored, orientation)
        self._mode = mode
        self._lock = threading.Lock()  # GDAL's decoder has threads of its own

    def _pixels(self, level: int, region: Edges, by: int) -> Image.Image:
        left, top, right, bottom = region
        rows = max(1, _AT_ONCE // ((right - left) * by)) * by
        bands = [
            self._band(level, (left, start, right, min(start + rows, bottom)), by) for start in range(top, bottom, rows)
        ]
        if len(bands) == 1:
            return bands[0]
        whole = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
        for number, band in enumerate(bands):
            whole.paste(band, (0, number * (rows // by)))
        return whole

    def _band(self, level: int, region: Edges, by: int) -> Image.Image:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        left, top, right, bottom = region
        try:
            with self._lock, _opened(self.path, **({"overview_level": level - 1} if level else {})) as data:
                values = data.read(window=Window(left, top, right - left, bottom - top))
        except RasterioError as error:
            refuse_damaged(self.path, error)
        except MemoryError:
            raise InputError(f"cannot decode a region of {self.path}: it needs more memory than there is.") from None
        part = to_rgb(_image(values, self._mode))
        return part if by == 1 else part.reduce(by)


_AT_ONCE = 1 << 24  # pixels that are decoded at once: a file without smaller copies is decoded whole for each overview


def _opened(path: Path, **options: int) -> Any:
    """GDAL's data set of the file. The path is made absolute: a name such as `zip://...` has a meaning of its own there."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    with rasterio.Env(**_ALONE):
        return rasterio.open(path.resolve(), driver=_DRIVER, **options)


def _colour_space(path: Path) -> int | None:
    """The number of the colour space in the file's header, which GDAL does not tell; None where the file names it otherwise."""
    with open(path, "rb") as file:
        header = next((body for kind, body in _boxes(file) if kind == b"jp2h"), b"")
    colours = [body for kind, body in _boxes(io.BytesIO(header)) if kind == b"colr" and body[:1] == b"\x01"]
    return int.from_bytes(colours[0][3:7], "big") if colours else None


def _boxes(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Type and first bytes of each box in front of the pixels."""
    for _ in range(_MOST_BOXES):
        head = file.read(8)
        length = int.from_bytes(head[:4], "big") - 8
        if len(head) < 8 or length < 0:  # the end, a box up to the end, or one above 4 GiB: those of pixels
            return
        body = file.read(min(length, _MOST_HEADER))
        file.seek(length - len(body), os.SEEK_CUR)
        yield head[4:], body


def _mode(data: Any, space: int | None) -> str:
    """The mode of the pixels, from what the channels mean.

    Raises:
        NotTiled: if the rules of `colours` have no say on them.
    """
    channels = tuple(one.name for one in data.colorinterp)
    bits = data.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", _BITS.get(data.dtypes[0]))
    if channels not in _MODES or len(set(data.dtypes)) > 1 or bits != _BITS.get(data.dtypes[0]):
        raise NotTiled(f"it has the channels {', '.join(channels)} of type {data.dtypes[0]}")
    if space not in (None, _SRGB, _GREY):  # of sYCC, GDAL turns some files into RGB and others not
        raise NotTiled(f"it has the colour space {space}")
    return _MODES[channels]


def _image(values: np.ndarray[Any, Any], mode: str) -> Image.Image:
    """Channels x rows x columns as an image; deep colours keep their upper 8 bits."""
    import numpy as np

    if values.dtype == np.uint16 and mode != "L":
        values = (values >> 8).astype(np.uint8)
    pixels = np.ascontiguousarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))
    return Image.fromarray(pixels, mode if pixels.dtype == np.uint8 else None)
