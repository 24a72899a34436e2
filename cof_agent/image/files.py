"""Opens image files with Pillow: which formats, which limits, and what a file that cannot be opened is called in a sentence."""

from __future__ import annotations

import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from PIL import Image, ImageFile, PngImagePlugin

from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install

FORMATS = frozenset(
    {
        "AVIF",
        "BMP",
        "DDS",
        "DIB",
        "FTEX",
        "GBR",
        "GIF",
        "IM",
        "JPEG",
        "JPEG2000",
        "MPO",
        "MSP",
        "PCX",
        "PNG",
        "PPM",
        "PSD",
        "QOI",
        "SGI",
        "SUN",
        "TGA",
        "TIFF",
        "WEBP",
        "XBM",
        "XPM",
    }
)
"""The formats that are opened, by Pillow's names. Others are refused: EPS runs Ghostscript on the file, for one, and what lies
inside BLP, CUR, ICNS and ICO files may be far larger than their header says."""

_TEXT_CHUNK, _TEXT_MEMORY = (
    64 * 2**20,
    256 * 2**20,
)  # bytes of comments and profiles in a PNG; the pixels are whole without
_ORIENTATION = 0x0112  # EXIF tag
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands of the container
_MOST_BRANDS = 256  # bytes
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_limits = threading.Lock()
_within = 0
_before: tuple[Any, ...] = ()


@contextmanager
def own_limits() -> Iterator[None]:
    """While images are opened and decoded here, Pillow's own limits are out of the way: its plugins know one limit of pixels
    for the whole process, and take a PNG with a long comment for damaged. Ours are checked by `source.open_source`."""
    global _within, _before
    with _limits:
        if not _within:
            _before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
            Image.MAX_IMAGE_PIXELS = None
            PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _TEXT_CHUNK, _TEXT_MEMORY
        _within += 1
    try:
        yield
    finally:
        with _limits:
            _within -= 1
            if not _within:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = _before


def open_file(path: Path) -> IO[bytes]:
    """Opens a regular file for reading.

    Raises:
        InputError: if there is none, or it cannot be opened.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"cannot open the image {path}: it is a directory; name an image file.")
        if not stat.S_ISREG(mode):  # a pipe or device might block or never end
            raise InputError(f"cannot open the image {path}: it is not a regular file; name an image file.")
        return open(path, "rb")
    except InputError:
        raise
    except FileNotFoundError:
        hint = "save it to disk first" if ":/" in str(path) else "check the path"
        raise InputError(f"cannot open the image {path}: there is no such file; {hint}.") from None
    except OSError as error:
        raise InputError(f"cannot open the image {path}: {error.strerror}; check the path.") from None
    except ValueError:  # a NUL character
        raise InputError(f"cannot open the image {str(path)!r}: that is no file name; check the path.") from None


def head_of(path: Path, file: IO[bytes]) -> bytes:
    """The first bytes of an open file, by which its format is known.

    Raises:
        InputError: if they cannot be read.
    """
    file.seek(0)
    try:
        return file.read(16)
    except OSError as error:  # of the disk or the network
        raise InputError(f"cannot read the image {path}: {error.strerror}; check the disk or copy the file.") from None


def open_image(path: Path, file: IO[bytes]) -> ImageFile.ImageFile:
    """As `Image.open`, without its check of the size, whose limit is one global of the whole process."""
    prefix = head_of(path, file)
    if not prefix:
        raise InputError(f"cannot open the image {path}: the file is empty; get a whole copy of it.")
    if _is_heif(file, prefix):
        return _open_heif(path, file)
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                if name not in FORMATS:
                    if accept is not None and _accepted(accept(prefix)):
                        raise InputError(
                            f"cannot open the image {path}: {name} files are not opened; convert it to PNG or JPEG."
                        )
                    continue
                if accept is None or _accepted(accept(prefix)):
                    file.seek(0)
                    return factory(file, "")
            except InputError:
                raise
            except (SyntaxError, IndexError, TypeError, KeyError, struct.error):
                continue  # how a plugin says that the file is none of its own
            except Exception as error:  # plugins raise anything at damaged bytes
                refuse_damaged(path, error)
    raise InputError(
        f"cannot open the image {path}: it is in no image format that can be read; convert it to PNG or JPEG."
    )


def _is_heif(file: IO[bytes], prefix: bytes) -> bool:
    """Whether a file is in the container of HEIC and AVIF, and not said to be AVIF."""
    if prefix[4:8] != b"ftyp":
        return False
    brands = prefix[8:] + file.read(max(0, min(int.from_bytes(prefix[:4], "big"), _MOST_BRANDS) - len(prefix)))
    return bool(_HEIF & {brands[at : at + 4] for at in range(0, len(brands), 4)}) and b"avif" not in brands


def _open_heif(path: Path, file: IO[bytes]) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise InputError(
            f"cannot open the image {path}: HEIC needs the package pillow-heif: {how_to_install('pillow-heif')}."
        ) from None
    file.seek(0)
    try:
        image: ImageFile.ImageFile = HeifImageFile(file)
        return image
    except Exception as error:  # plugins raise anything at damaged bytes
        refuse_damaged(path, error)


def _accepted(answer: bool | str) -> bool:
    return bool(answer) and not isinstance(answer, str)  # a string is a reason for refusing


def orientation_of(image: ImageFile.ImageFile, file: IO[bytes]) -> int:
    """The EXIF orientation still to be applied to the decoded pixels, 1 to 8; 1 where it cannot be read.

    A PNG may carry it behind its pixels; only then the file is decoded to find it.
    """
    if image.format == "TIFF":
        return 1  # Pillow applies it itself while decoding, and its `size` says so already
    try:
        if image.format == "PNG" and not _png_orientation_follows_pixels(file):
            exif = Image.Image.getexif(image)  # PngImageFile.getexif would decode in search of a late chunk
        else:
            exif = image.getexif()
        value = exif.get(_ORIENTATION)
    except Exception:  # Pillow's readers of EXIF raise anything at damaged bytes; the pixels are whole without them
        return 1
    return value if isinstance(value, int) and value in TRANSPOSE else 1


def _png_orientation_follows_pixels(file: IO[bytes]) -> bool:
    """Whether a chunk that can hold an orientation stands behind the pixels. The file's position is kept."""
    position = file.tell()
    try:
        file.seek(8)
        pixels_seen = False
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            kind, length, keyword = head[4:], int.from_bytes(head[:4], "big"), b""
            pixels_seen = pixels_seen or kind == b"IDAT"
            if pixels_seen and kind in (b"iTXt", b"tEXt", b"zTXt"):
                keyword = file.read(min(length, 24))
            if pixels_seen and (
                kind == b"eXIf" or keyword.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif"))
            ):
                return True
            file.seek(length + 4 - len(keyword), os.SEEK_CUR)
        return False
    finally:
        file.seek(position)


def refuse_damaged(path: Path, error: Exception) -> NoReturn:
    """Says in a sentence that the pixels cannot be decoded, for which reason."""
    detail = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    raise InputError(
        f"cannot decode the image {path}: it is damaged, cut off or of an unsupported kind ({detail}); "
        "get a whole copy of it or convert it to PNG."
    ) from None


def turned(pixels: Image.Image, orientation: int) -> Image.Image:
    """Upright, by an EXIF orientation."""
    return pixels.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else pixels
