"""Opens image files of any size, decodes each at most once and only when pixels are asked for, and refuses bombs.

Every file becomes 8-bit RGB by stated rules: EXIF orientation applied, first frame of an animation, transparency
over white, deep greyscale (16-bit, 32-bit, float) scaled to 8 bits. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from PIL import Image, ImageFile, PngImagePlugin

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MAX_SOURCE_PIXELS = 178_956_970
"""Where Pillow itself stops by default: half a gigabyte as 24-bit RGB. `--max-source-pixels` raises it."""

FORMATS = frozenset(
    {
        "AVIF",
        "BLP",
        "BMP",
        "CUR",
        "DDS",
        "DIB",
        "FTEX",
        "GBR",
        "GIF",
        "ICNS",
        "ICO",
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
"""The formats that are opened, by Pillow's names. Others are refused: EPS runs Ghostscript on the file, for one."""

_TEXT_CHUNK, _TEXT_MEMORY = (
    64 * 2**20,
    256 * 2**20,
)  # bytes of comments and profiles in a PNG; the pixels are whole without
LARGEST_HEADER = 1 << 31  # pixels of an image of which only the size is asked for
_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255)
_REDUCING_GAP = 2.0
"""Pillow's `resize` averages blocks first where at least this factor is left for bicubic; its `thumbnail` does the same.
An overview of a 4K image takes a fifth of the time."""

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
"""Pillow's filters by the names that crop rules have for them."""

_STRIP_PIXELS = 4_000_000  # conversions go strip by strip, so that no second full copy is held


class Source:
    """One image file. `size` is known from the header; pixels are decoded on first use and kept. Thread-safe."""

    def __init__(self, path: Path, size: Size, orientation: int) -> None:
        self.path = path
        self.size = size  # in source pixels, EXIF orientation applied
        self._orientation = orientation
        self._pixels: Image.Image | None = None
        self._lock = threading.Lock()

    @property
    def is_decoded(self) -> bool:
        """Whether the pixels are in memory."""
        return self._pixels is not None

    def crop(self, region: Box) -> Image.Image:
        """The pixels of `region` (source pixels, integer edges inside the image): mode RGB, one to one, a fresh copy.

        Raises:
            InputError: if the file cannot be decoded.
            ValueError: if `region` is not pixel-aligned or not inside the image.
        """
        return _crop(self._decoded(), self._edges(region))

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
        edges = self._edges(view.region)
        pixels = self._decoded()
        shown = (view.shown_size.width, view.shown_size.height)
        # A crop of everything would be a second full copy.
        part = pixels if edges == (0, 0, *pixels.size) else _crop(pixels, edges)
        if part.size != shown:
            gap = _REDUCING_GAP if resample == "bicubic" else None
            return part.resize(shown, RESAMPLING[resample], reducing_gap=gap)
        return part.copy() if part is pixels else part

    def _edges(self, region: Box) -> tuple[int, int, int, int]:
        left, top, right, bottom = edges = region.pixels()
        if edges != tuple(region):
            raise ValueError(f"{region} is not aligned to whole pixels")
        if not (0 <= left < right <= self.size.width and 0 <= top < bottom <= self.size.height):
            raise ValueError(f"{region} does not lie inside an image of {self.size}")
        return edges

    def _decoded(self) -> Image.Image:
        with self._lock:
            if self._pixels is None:
                self._pixels = _decode(self.path, self.size, self._orientation)
            return self._pixels


def open_source(path: str | os.PathLike[str], *, max_source_pixels: int = DEFAULT_MAX_SOURCE_PIXELS) -> Source:
    """Read an image file's header; nothing is decoded yet (except in the rare case that `_orientation` explains).

    Raises:
        InputError: if there is no such file, it is no image, or it has more than `max_source_pixels` pixels.
    """
    path = Path(path)
    with _own_limits(), _open_file(path) as file:
        return Source(path, *_header(path, file, max_source_pixels))


def upright_size(file: IO[bytes], name: str) -> Size:
    """The size of an image in an open file, in source pixels; nothing is decoded (but see `_orientation`).

    Raises:
        InputError: if it is no image, naming `name`.
    """
    with _own_limits():
        return _header(Path(name), file, LARGEST_HEADER)[0]


def check_whole(file: IO[bytes], name: str) -> None:
    """Reads an image in an open file to its end, so that one that is cut off is known before its pixels are needed. A PNG is
    checked by its sums, a JPEG decoded at an eighth of its size, all others decoded.

    Raises:
        InputError: if it is no image or cannot be decoded, naming `name`.
    """
    with _own_limits():
        image = _open_image(Path(name), file)
        try:
            if image.format == "PNG":
                image.verify()
            else:
                image.draft("RGB", (1, 1))
                image.load()
        except Exception as error:
            _refuse_damaged(Path(name), error)


def _header(path: Path, file: IO[bytes], max_source_pixels: int) -> tuple[Size, int]:
    """The size in source pixels, and the EXIF orientation that makes it so."""
    image = _open_image(path, file)
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"cannot open the image {path}: it has no pixels; use another file.")
    if width * height > max_source_pixels:
        raise InputError(
            f"cannot open the image {path}: its {width} x {height} = {width * height} pixels are more than the "
            f"limit of {max_source_pixels}; if you trust the file, raise --max-source-pixels."
        )
    orientation = _orientation(image, file)
    return (Size(height, width) if orientation >= 5 else Size(width, height)), orientation


_limits = threading.Lock()
_within = 0
_before: tuple[Any, ...] = ()


@contextmanager
def _own_limits() -> Iterator[None]:
    """While images are opened and decoded here, Pillow's own limits are out of the way: its plugins know one limit of pixels
    for the whole process, and take a PNG with a long comment for damaged. Ours are checked by `open_source`."""
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


def _open_file(path: Path) -> IO[bytes]:
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


def _open_image(path: Path, file: IO[bytes]) -> ImageFile.ImageFile:
    """As `Image.open`, without its check of the size, whose limit is one global of the whole process."""
    try:
        prefix = file.read(16)
    except OSError as error:  # of the disk or the network
        raise InputError(f"cannot read the image {path}: {error.strerror}; check the disk or copy the file.") from None
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
            except Exception as error:
                _refuse_damaged(path, error)
    raise InputError(
        f"cannot open the image {path}: it is in no image format that can be read; convert it to PNG or JPEG."
    )


def _accepted(answer: bool | str) -> bool:
    return bool(answer) and not isinstance(answer, str)  # a string is a reason for refusing


def _orientation(image: ImageFile.ImageFile, file: IO[bytes]) -> int:
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
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


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


def _decode(path: Path, size: Size, orientation: int) -> Image.Image:
    """The whole image: mode RGB, upright, without metadata."""
    with _own_limits(), _open_file(path) as file:
        image = _open_image(path, file)
        try:
            image.load()
            pixels = _to_rgb(image)
        except MemoryError:
            raise InputError(
                f"cannot decode the image {path}: {size} pixels need more memory than there is; make it smaller."
            ) from None
        except Exception as error:
            _refuse_damaged(path, error)
    if orientation in _TRANSPOSE:
        pixels = pixels.transpose(_TRANSPOSE[orientation])
    if pixels.size != (size.width, size.height):
        raise InputError(f"the image {path} is not of the size that its header gave; get a whole copy of it.")
    pixels.info = {}  # else a crop that is saved would carry the profile and comments of the whole
    return pixels


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    detail = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    raise InputError(
        f"cannot decode the image {path}: it is damaged, cut off or of an unsupported kind ({detail}); "
        "get a whole copy of it or convert it to PNG."
    ) from None


def _crop(pixels: Image.Image, edges: tuple[int, int, int, int]) -> Image.Image:
    """Pillow's crop; a huge one is put together from strips, since Pillow takes a huge crop for a bomb."""
    left, top, right, bottom = edges
    if (right - left) * (bottom - top) <= _STRIP_PIXELS:
        return pixels.crop(edges)
    part = Image.new(pixels.mode, (right - left, bottom - top))
    for start, end in _strips(part.size):
        part.paste(pixels.crop((left, top + start, right, top + end)), (0, start))
    return part


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    width, height = size
    rows = max(1, _STRIP_PIXELS // width)
    return ((start, min(start + rows, height)) for start in range(0, height, rows))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    levels = _levels(image)
    pixels = Image.new("RGB", image.size)
    for start, end in _strips(image.size):
        pixels.paste(_strip_to_rgb(image.crop((0, start, image.width, end)), levels), (0, start))
    return pixels


def _strip_to_rgb(strip: Image.Image, levels: tuple[float, float] | None) -> Image.Image:
    if levels is not None:
        return _deep_to_grey(strip, *levels).convert("RGB")
    if not strip.has_transparency_data:
        return strip.convert("RGB")
    if strip.mode in ("La", "RGBa"):  # colours multiplied by alpha have one way out each
        strip = strip.convert({"La": "LA", "RGBa": "RGBA"}[strip.mode])
    strip = strip.convert("RGBA")
    over_white = Image.new("RGB", strip.size, _WHITE)
    over_white.paste(strip, mask=strip.getchannel("A"))
    return over_white


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """The values of black and white in a deep greyscale image; None for the 8-bit modes.

    16-bit files use their whole range. 32-bit and float files do not say what white is: it is the smallest of
    1 (float only), 255 and 65535 that holds every value; with negative or larger values, the extremes are taken.
    """
    if image.mode.startswith("I;16"):
        return 0.0, 65535.0
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    low, high = np.inf, -np.inf
    for start, end in _strips(image.size):
        values = _values(image.crop((0, start, image.width, end)))
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:  # not one finite value
        return 0.0, 1.0
    for white in (1.0, 255.0, 65535.0)[image.mode == "I" :]:
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _deep_to_grey(strip: Image.Image, black: float, white: float) -> Image.Image:
    import numpy as np

    scaled = (_values(strip) - black) * (255.0 / ((white - black) or 1.0))
    grey = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0.0, 255.0))
    return Image.fromarray(grey.astype(np.uint8))


def _values(strip: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    return np.asarray(strip).astype(np.float64)


_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")  # that PNG holds without loss


def png_of(image: Image.Image) -> bytes:
    """A picture as a PNG file, without loss where PNG knows its mode, else as RGB."""
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
