"""Pixels of every mode as 8-bit RGB: transparency over white, deep greyscale scaled. Colour profiles are not applied."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

if TYPE_CHECKING:
    import numpy as np

WHITE = (255, 255, 255)
_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 339  # TIFF's tags
_UNSIGNED = 1  # of TIFF's sample formats
_STRIP_PIXELS = 4_000_000  # conversions go strip by strip, so that no second full copy is held


def to_rgb(image: Image.Image) -> Image.Image:
    """The whole of `image` as mode RGB; itself, if it is that."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    deep = _deep(image)
    pixels = Image.new("RGB", image.size)
    for start, end in _strips(image.size):
        pixels.paste(_strip_to_rgb(image.crop((0, start, image.width, end)), deep), (0, start))
    return pixels


@dataclass(frozen=True)
class _Deep:
    """How the values of a deep greyscale image become grey: which are black and white, whether 32 bits are without a sign (Pillow
    reads them with one), and which value stands for transparency, if any."""

    black: float
    white: float
    unsigned: bool
    clear: float | None


def _deep(image: Image.Image) -> _Deep | None:
    """None for the 8-bit modes."""
    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and _SAMPLES in tags and tags[_SAMPLES][0] == _UNSIGNED
    levels = _levels(image, unsigned)
    if levels is None:
        return None
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0: Pillow turns 8 bits round only
        levels = levels[1], levels[0]
    clear = image.info.get("transparency")
    return _Deep(*levels, unsigned, float(clear) if isinstance(clear, int) else None)


def _strip_to_rgb(strip: Image.Image, deep: _Deep | None) -> Image.Image:
    if deep is not None:
        return _deep_to_grey(strip, deep).convert("RGB")
    if not strip.has_transparency_data:
        return strip.convert("RGB")
    if strip.mode in ("La", "RGBa"):  # colours multiplied by alpha have one way out each
        strip = strip.convert({"La": "LA", "RGBa": "RGBA"}[strip.mode])
    strip = strip.convert("RGBA")
    over_white = Image.new("RGB", strip.size, WHITE)
    over_white.paste(strip, mask=strip.getchannel("A"))
    return over_white


def _levels(image: Image.Image, unsigned: bool) -> tuple[float, float] | None:
    """The values of black and white in a deep greyscale image; None for the 8-bit modes.

    16-bit files use their whole range, and TIFF files of 12 bits theirs. 32-bit and float files do not say what white is: it is
    the smallest of 1 (float only), 255 and 65535 that holds every value; with negative or larger values, the extremes are taken.
    """
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))[0]
        return 0.0, float(2 ** (bits if 8 < bits < 16 else 16) - 1)
    return _extremes(image, unsigned) if image.mode in ("I", "F") else None


def _extremes(image: Image.Image, unsigned: bool) -> tuple[float, float]:
    import numpy as np

    low, high = np.inf, -np.inf
    for start, end in _strips(image.size):
        values = _values(image.crop((0, start, image.width, end)), unsigned)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:  # not one finite value
        return 0.0, 1.0
    for white in (1.0, 255.0, 65535.0)[image.mode == "I" :]:
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _deep_to_grey(strip: Image.Image, deep: _Deep) -> Image.Image:
    import numpy as np

    values = _values(strip, deep.unsigned)
    scaled = (values - deep.black) * (255.0 / ((deep.white - deep.black) or 1.0))
    grey = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0.0, 255.0))
    grey[values == deep.clear] = 255.0
    return Image.fromarray(grey.astype(np.uint8))


def _values(strip: Image.Image, unsigned: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    values = np.asarray(strip)
    return (values.view(np.uint32) if unsigned else values).astype(np.float64)


def crop(pixels: Image.Image, edges: tuple[int, int, int, int]) -> Image.Image:
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


_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")  # that PNG holds without loss


def png_of(image: Image.Image) -> bytes:
    """A picture as a PNG file, upright, without loss where PNG knows its mode, else as RGB."""
    buffer = io.BytesIO()
    upright = ImageOps.exif_transpose(image)
    (upright if upright.mode in _PNG_MODES else to_rgb(upright)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
