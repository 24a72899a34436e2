"""Reads whole-slide images of microscopes (SVS, NDPI, MRXS, ...) with OpenSlide, which decodes the tiles that are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.image.colours import to_rgb
from cof_agent.image.files import refuse_damaged
from cof_agent.image.pyramid import Pyramid
from cof_agent.image.reader import MOST_SHOWN, Edges
from cof_agent.output.install import how_to_install

if TYPE_CHECKING:
    import openslide

SUFFIXES = {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"}
"""Ends of the names of such files. Some look like plain TIFF or JPEG files inside, which would show a part of them only."""


def open_slide(path: Path) -> SlideReader | None:
    """The reader of a slide; None for another kind of file under such a name.

    Raises:
        InputError: if the file is damaged, or OpenSlide is missing.
    """
    try:
        import openslide
    except (ImportError, OSError):  # the latter where the library itself is missing
        needed = how_to_install("openslide-python", "openslide-bin")
        raise InputError(f"cannot open the image {path}: slides need OpenSlide: {needed}.") from None
    try:
        return None if openslide.OpenSlide.detect_format(path) is None else SlideReader(path, openslide.OpenSlide(path))
    except openslide.OpenSlideError as error:
        refuse_damaged(path, error)


class SlideReader(Pyramid):
    """The `Reader` of a slide, which is open as long as the reader lives."""

    def __init__(self, path: Path, slide: openslide.OpenSlide) -> None:
        super().__init__(path, [Size(width, height) for width, height in slide.level_dimensions])
        self._slide = slide

    def _pixels(self, level: int, region: Edges, by: int) -> Image.Image:
        import openslide

        left, top, right, bottom = region
        if (right - left) * (bottom - top) > MOST_SHOWN:
            raise InputError(f"a region of {self.path} is too large: no copy in the file is small enough for it.")
        full, stored = self._stored[0], self._stored[level]
        corner = (round(left * full.width / stored.width), round(top * full.height / stored.height))
        try:
            part = to_rgb(self._slide.read_region(corner, level, (right - left, bottom - top)))
        except openslide.OpenSlideError as error:
            refuse_damaged(self.path, error)
        return part if by == 1 else part.reduce(by)
