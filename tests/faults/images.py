"""Mutated image files, and what must hold for each: a good picture or one sentence, in bounded time and memory. Image `k` of a
seed is the same in every run."""

from __future__ import annotations

import io
import random
import resource
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pillow_heif
from PIL import Image, ImageDraw, PngImagePlugin

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source
from tests.computing import timed

LIMIT = 4_000_000  # source pixels; what claims more is refused, or read by tiles
SLOWEST = 10.0  # seconds of computing for one file
MOST_MEMORY = 600 * 2**20  # bytes by which the process may grow beyond what good pictures took
SIDE = Size(96, 64)
Change = Callable[[bytearray, random.Random], None]


@cache
def originals() -> tuple[tuple[str, bytes], ...]:
    """Good files by format, in several ways to write each."""
    picture = Image.new("RGB", (SIDE.width, SIDE.height), "#204060")
    draw = ImageDraw.Draw(picture)
    for at in range(0, SIDE.width, 4):
        draw.line((at, 0, SIDE.width - at, SIDE.height), fill=(2 * at, 255 - at, 90))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a note"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello" * 50, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    frames = [picture.rotate(angle) for angle in (90, 180)]
    ways: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("PNG", picture, {"pnginfo": text, "exif": exif}),
        ("PNG", picture.convert("P"), {"transparency": 3}),
        ("PNG", picture.convert("L").convert("I;16"), {}),
        ("JPEG", picture, {"exif": exif, "comment": b"c" * 90}),
        ("JPEG", picture.convert("CMYK"), {"progressive": True}),
        ("WEBP", picture, {"exif": exif}),
        ("WEBP", picture, {"lossless": True, "save_all": True, "append_images": frames}),
        ("TIFF", picture, {"exif": exif}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", picture.convert("1"), {"compression": "group4"}),
        ("TIFF", picture.convert("F"), {"compression": "tiff_deflate"}),
        ("TIFF", picture.convert("CMYK"), {"compression": "jpeg"}),
        ("GIF", picture, {"save_all": True, "append_images": frames}),
        ("BMP", picture, {}),
        ("BMP", picture.convert("P"), {}),
        ("JPEG2000", picture, {}),
    ]
    made = []
    for kind, image, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append((kind, buffer.getvalue()))
    return (*made, ("HEIF", _heif(picture)), ("PDF", _page(picture)))


def _heif(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer)
    return buffer.getvalue()


def _page(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PDF", resolution=72)
    return buffer.getvalue()


def image_of(seed: int, number: int) -> tuple[str, bytes]:
    """The format that the file was of, and the file."""
    chance = random.Random(f"{seed}:{number}")
    kind, content = originals()[number % len(originals())]
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(_CHANGES)(data, chance)
    return kind, bytes(data)


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 30))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


def _header(data: bytearray, chance: random.Random) -> None:
    """Sizes, offsets and counts stand in the first bytes, in either order."""
    form = chance.choice((">H", "<H", ">I", "<I"))
    most = 2 ** (8 * struct.calcsize(form)) - 1
    value = chance.choice((0, 1, 2, 255, 2_000, 65_535, 100_000, most // 2, most))
    if len(data) > 8:
        at = chance.randrange(min(200, len(data) - struct.calcsize(form)))
        struct.pack_into(form, data, at, min(value, most))


def _repeat(data: bytearray, chance: random.Random) -> None:
    start, at = chance.randint(0, len(data)), chance.randint(0, len(data))
    data[at:at] = data[start : start + chance.choice((1, 20, 400))]


def _remove(data: bytearray, chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    del data[start : start + chance.choice((1, 4, 100))]


def _splice(data: bytearray, chance: random.Random) -> None:
    """The beginning of one file and the rest of another."""
    _, other = chance.choice(originals())
    at = chance.randint(0, len(data))
    data[at:] = other[min(at, len(other)) :]


_CHANGES: tuple[Change, ...] = (_flip, _flip, _truncate, _header, _header, _header, _repeat, _remove, _splice)


def fault_of(path: Path) -> str | None:
    """What is wrong with the way a file is opened; None if it gives a picture or is refused in a sentence."""
    wrong, seconds = timed(lambda: _wrong_with(path), SLOWEST, time.process_time)
    return wrong or (f"it took {seconds:.1f} s" if seconds > SLOWEST else None)


def _wrong_with(path: Path) -> str | None:
    with warnings.catch_warnings(action="ignore"):
        try:
            _look(path)
            _look_by_tiles(path)
        except InputError as error:
            if "\n" in str(error) or str(path) not in str(error) or len(str(error)) > 600:
                return f"this is no sentence about the file: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"[:300]
    return None


def _look(path: Path) -> None:
    source = open_source(path, max_source_pixels=LIMIT)
    size = source.size
    assert source.held <= 5 * LIMIT, f"{source.held} pixels would be kept"
    shown = source.show(View(size, Box(0, 0, size.width, size.height), SIDE))
    assert (shown.mode, shown.size) == ("RGB", (SIDE.width, SIDE.height))
    corner = source.crop(Box(size.width - 1, size.height - 1, size.width, size.height))
    assert (corner.mode, corner.size) == ("RGB", (1, 1))


def _look_by_tiles(path: Path) -> None:
    """A TIFF file above the limit is read by tiles; what libvips makes of it must be as good. All others are refused."""
    source = open_source(path, max_source_pixels=SIDE.area // 8)
    assert source.held <= 5 * LIMIT, f"{source.held} pixels would be kept"
    size = source.size
    if size.area <= LIMIT:
        source.show(View(size, Box(0, 0, size.width, size.height), SIDE))
    source.crop(Box(0, 0, 1, 1))


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def faults(numbers: Iterable[int], seed: int = 0) -> Iterator[tuple[int, bytes, str]]:
    """Number, content and fault of each of these files that is opened wrongly; the good files, as number -1, come first."""
    with TemporaryDirectory(prefix="cof-images-") as folder:
        path = Path(folder) / "mutated"
        for kind, content in originals():
            path.write_bytes(content)
            if (fault := fault_of(path)) is not None:
                yield -1, content, f"the good {kind} file: {fault}"
        before = _memory()
        for number in numbers:
            kind, content = image_of(seed, number)
            path.write_bytes(content)
            if (fault := fault_of(path)) is not None:
                yield number, content, f"{kind}: {fault}"
            elif (grown := _memory() - before) > MOST_MEMORY:
                yield number, content, f"{kind}: the process grew by {grown / 2**20:.0f} MiB"
                before += grown
