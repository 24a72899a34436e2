"""Reads large TIFF files with libvips: tiles as they are needed, strips in a pass through the file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.files import TRANSPOSE, refuse_damaged
from cof_agent.image.pyramid import FULL_RESOLUTION, Pyramid
from cof_agent.image.reader import Edges
from cof_agent.output.install import how_to_install

if TYPE_CHECKING:
    import pyvips

MOST_PIXELS = 1 << 40
"""Of an image that is read by tiles."""
QUICK, MOST_PASSED, MOST_A_BYTE = 1 << 30, 1 << 35, 1 << 10
"""Pixels through which a pass may be needed: always, at most, and for each byte of the file, since one tile may stand for all."""
MOST_IN_TILE, MOST_IN_ROW, MOST_IN_STRIP = 1 << 24, 1 << 27, 1 << 26
"""Pixels of what is decoded at a time: a tile, the tiles beside each other that a pass keeps, and a strip."""
MOST_LEVELS = 40
_WIDTH, _HEIGHT, _ORIENTATION, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 274, 278, 322, 323  # tags of TIFF
_SUBFILE = 254  # what an image in the file is
_REDUCED, _MASK = 1, 4  # bits of `_SUBFILE`

_EXTRA_SAMPLES = 338  # what channels beside the colours are
_UNSPECIFIED = 0  # of `_EXTRA_SAMPLES`; libvips takes colours that are multiplied by their alpha apart itself

Place = dict[str, int]
"""Which image of a file: options of libvips' loader."""


class NotTiled(Exception):
    """Why a file cannot be read by tiles, as a clause."""


def open_tiled(path: Path, image: ImageFile.ImageFile) -> TiledReader:
    """The reader of a TIFF file, of which Pillow read the header.

    Raises:
        NotTiled: if it is of another kind, or pyvips is missing.
    """
    try:
        import pyvips
    except (ImportError, OSError):  # the latter where libvips itself is missing
        raise NotTiled(f"that needs libvips: {how_to_install('pyvips')}") from None
    tags = dict(image.tag_v2)  # type: ignore[attr-defined]
    full, tiled = Size(int(tags[_WIDTH]), int(tags[_HEIGHT])), _TILE_WIDTH in tags
    alpha = _has_alpha(tags)
    _check(full, tags)
    try:
        first = _opened(path, page=0)
        _plain(first, alpha)
        levels = {full: {"page": 0}} | _reduced(path, image, first, full)
    except pyvips.Error as error:
        raise NotTiled(_told(error)) from None
    stored = sorted(levels, key=lambda size: -size.area)
    passed, most = (stored[-1] if tiled else full).area, min(MOST_PASSED, MOST_A_BYTE * path.stat().st_size)
    if passed > max(QUICK, most):
        raise NotTiled("it has no smaller copy inside" if tiled else "it has strips, not tiles")
    try:
        one = _plain(_opened(path, page=0, access=_access(tiled), fail_on="warning"), alpha).crop(0, 0, 1, 1)
        one.write_to_memory()  # which tells whether libvips can unpack this kind at all
    except pyvips.Error as error:
        raise NotTiled(_told(error)) from None
    orientation = tags.get(_ORIENTATION, 1)
    if orientation not in TRANSPOSE:  # a tag of another type, or a number that means nothing
        orientation = 1
    places = [levels[size] for size in stored]
    return TiledReader(path, stored, places, orientation=orientation, tiled=tiled, alpha=alpha)


def _access(tiled: bool) -> str:
    """How libvips goes through a file: strips from the top each time, since it would unpack a whole file else."""
    return "random" if tiled else "sequential"


def _told(error: pyvips.Error) -> str:
    """What libvips says of a file that it cannot unpack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "to memory" not in line]
    return f"libvips cannot unpack it: {lines[0][:120]}" if lines else "libvips cannot unpack it"


def _has_alpha(tags: dict[int, Any]) -> bool:
    """Whether a channel beside the colours is alpha, and not near infrared, for one. Many writers leave the tag out."""
    told = tags.get(_EXTRA_SAMPLES, ())
    return not told or (told[0] if isinstance(told, tuple) else told) != _UNSPECIFIED


def _check(full: Size, tags: dict[int, Any]) -> None:
    if full.area > MOST_PIXELS:
        raise NotTiled(f"it has more than {MOST_PIXELS} pixels")
    if _TILE_WIDTH in tags:
        width, height = int(tags[_TILE_WIDTH]), int(tags.get(_TILE_HEIGHT, tags[_TILE_WIDTH]))
        if width * height > MOST_IN_TILE or (full.width + width) * height > MOST_IN_ROW:
            raise NotTiled(f"its tiles of {width} x {height} are too large")
    elif full.width * min(full.height, int(tags.get(_ROWS, full.height))) > MOST_IN_STRIP:
        raise NotTiled(f"its strips have more than {MOST_IN_STRIP} pixels")


def _reduced(path: Path, image: ImageFile.ImageFile, first: pyvips.Image, full: Size) -> dict[Size, Place]:
    """The smaller copies of the first image that the file holds, as pages that say so or below its first page."""
    places: list[Place] = [
        {"page": page} for page in range(1, min(first.get_n_pages(), MOST_LEVELS)) if _is_copy(image, page)
    ]
    if "n-subifds" in first.get_fields():
        places += [{"page": 0, "subifd": k} for k in range(min(first.get("n-subifds"), MOST_LEVELS))]
    found: dict[Size, Place] = {}
    for place in places:
        one = _opened(path, **place)
        alike = (one.bands, one.format) == (first.bands, first.format) and one.width < full.width
        if alike and abs(one.width * full.height - one.height * full.width) <= full.long_side:  # but for rounding
            found[Size(one.width, one.height)] = place
    return found


def _is_copy(image: ImageFile.ImageFile, page: int) -> bool:
    try:
        image.seek(page)
        kind = int(image.tag_v2.get(_SUBFILE, 0))  # type: ignore[attr-defined]
    except Exception:  # Pillow's readers raise anything at damaged pages, or those of kinds that it does not know
        return False
    return bool(kind & _REDUCED) and not kind & _MASK


class TiledReader(Pyramid):
    """The `Reader` of a TIFF file. places: of each stored size. tiled: whether the file has tiles, else it has strips. alpha:
    whether a channel beside the colours is.

    Where the file has no copy of at most `FULL_RESOLUTION` pixels, the first overview takes one pass through the smallest
    one, and what is left of it is kept as a further size.
    """

    def __init__(
        self, path: Path, stored: list[Size], places: list[Place], *, orientation: int, tiled: bool, alpha: bool
    ) -> None:
        super().__init__(path, stored, orientation)
        self._places, self._tiled, self._alpha = places, tiled, alpha
        self._images: dict[int, pyvips.Image] = {}
        self._lock = threading.Lock()
        self._kept: Image.Image | None = None
        smallest = stored[-1]
        self._by = 1
        while -(-smallest.width // self._by) * -(-smallest.height // self._by) > FULL_RESOLUTION:
            self._by += 1
        self.passes = self._by > 1
        if self.passes:
            self._stored.append(Size(-(-smallest.width // self._by), -(-smallest.height // self._by)))

    def _pixels(self, level: int, region: Edges, by: int) -> Image.Image:
        if level < len(self._places):
            return self._cut(level, region, by)
        with self._lock:
            if self._kept is None:
                whole = self._stored[level - 1]
                self._kept = self._cut(level - 1, (0, 0, whole.width, whole.height), self._by)
        part = self._kept.crop(region)
        return part if by == 1 else part.reduce(by)

    def _cut(self, level: int, region: Edges, by: int) -> Image.Image:
        import pyvips

        left, top, right, bottom = region
        try:
            part = self._image(level).crop(left, top, right - left, bottom - top)
            part = part if by == 1 else part.shrink(by, by, ceil=True)
            return Image.frombytes("RGB", (part.width, part.height), part.write_to_memory())
        except pyvips.Error as error:
            refuse_damaged(self.path, error)
        except MemoryError:
            raise InputError(f"cannot decode a region of {self.path}: it needs more memory than there is.") from None

    def _image(self, level: int) -> pyvips.Image:
        """A stored size as 8-bit RGB."""
        kept = self._images.get(level)
        if kept is not None:
            return kept
        access = _access(self._tiled)
        # A tile that cannot be unpacked is a mere warning to libvips, and black.
        image = _plain(_opened(self.path, access=access, fail_on="warning", **self._places[level]), self._alpha)
        if self._tiled:
            self._images[level] = image
        return image


def _opened(path: Path, **options: int | str) -> pyvips.Image:
    """revalidate: libvips would remember what another file of this name was."""
    import pyvips

    return pyvips.Image.new_from_file(str(path), revalidate=True, **options)


def _plain(image: pyvips.Image, alpha: bool) -> pyvips.Image:
    """As 8-bit RGB, by the rules of `colours`. alpha: whether a second or fourth channel is.

    Raises:
        NotTiled: if it is of a kind of which these rules need the whole image, or that has no colours.
    """
    if image.format not in ("uchar", "ushort") or image.bands > 4 or image.interpretation == "lab":
        raise NotTiled(f"it has {image.bands} channels of type {image.format} ({image.interpretation})")
    if image.format == "ushort":
        grey = image.bands < 3
        image = (image / 257).rint().cast("uchar") if grey else (image >> 8).cast("uchar")
    if image.interpretation == "cmyk":
        key = image[3].invert()
        image = (image[0:3].invert() * key / 255).rint().cast("uchar")
    if image.bands in (2, 4):
        colours, opaque = image[0 : image.bands - 1], image[image.bands - 1]
        image = ((colours * opaque + (255 - opaque) * 255) / 255).rint().cast("uchar") if alpha else colours
    image = image if image.bands == 3 else image.bandjoin([image, image])
    return image.copy(interpretation="srgb")
