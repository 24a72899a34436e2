"""How images travel: inside a request, to the last pixel or as JPEG, or as files that the server reads itself."""

from __future__ import annotations

import atexit
import base64
import hashlib
import io
import shutil
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from cof_agent.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class Carrier(Protocol):
    """A way for images to travel. budget: what is kept of it for the next turn, in characters of URLs or bytes of files.
    pixels: what becomes of the pixels, as a part of an image's id; empty where they stay the same."""

    budget: int
    pixels: str

    def url(self, image: Image, key: str) -> str:
        """Where the server finds the image. key: a name of its pixels."""
        ...

    def cost(self, url: str) -> int:
        """Its share of the budget."""
        ...

    def drop(self, url: str) -> None:
        """Called when it is kept no longer."""
        ...


class Inside:
    """Images as data URLs: as PNG, or as JPEG of this quality."""

    budget = 256 * 2**20

    def __init__(self, jpeg: int | None = None) -> None:
        self._jpeg = jpeg
        self.pixels = "" if jpeg is None else f"-jpeg{jpeg}"

    def url(self, image: Image, key: str) -> str:
        kind, data = ("png", png(image)) if self._jpeg is None else ("jpeg", _jpeg(image, self._jpeg))
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def cost(self, url: str) -> int:
        return len(url)

    def drop(self, url: str) -> None:
        pass


class Files:
    """Images as files in a folder that a server on this machine may read; they are removed when the process ends.

    Raises:
        InputError: if nothing can be written there.
    """

    budget = 4 * 2**30
    pixels = ""

    def __init__(self, folder: str) -> None:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="cof-", dir=folder)).resolve()
            self._folder.chmod(0o755)  # the server may run as another user
        except OSError as error:
            raise InputError(f"cannot write images to {folder}: {error.strerror}.") from None
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    def url(self, image: Image, key: str) -> str:
        path = self._folder / f"{key}.bmp"  # no format costs less time on either side
        try:
            image.save(path)
        except OSError as error:
            raise InputError(f"cannot write the image {path}: {error.strerror or error}.") from None
        return path.as_uri()

    def cost(self, url: str) -> int:
        return _path(url).stat().st_size

    def drop(self, url: str) -> None:
        _path(url).unlink(missing_ok=True)


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def name_of(image: Image) -> str:
    """A name that no other pixels have."""
    digest = hashlib.sha256(f"{image.size}{image.mode}".encode())  # processors have instructions for it
    digest.update(image.tobytes())
    return digest.hexdigest()[:_NAME]


_NAME = 32  # letters: 128 bits


def png(image: Image) -> bytes:
    """The image as PNG: each row as what differs from the row above. A third of the time that Pillow takes, at about the same
    size."""
    import numpy as np

    pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, _strategy(lines))
    data = packer.compress(lines.data) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _strategy(lines: NDArray[np.uint8]) -> int:
    """zlib's: to look for runs of the same byte costs a fifth more time, and photographs have none."""
    import numpy as np

    return zlib.Z_RLE if np.count_nonzero(lines) < lines.size / 2 else zlib.Z_HUFFMAN_ONLY


_UP, _RGB = 2, 2  # PNG's numbers of the filter and of the kind of pixels


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _jpeg(image: Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
