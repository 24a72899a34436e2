"""What an engine reads in a view of an image, with its place in the source; each view is read once."""

from __future__ import annotations

from dataclasses import replace

from cof_agent.cache import LRUCache
from cof_agent.environment import ZoomEnvironment, identity
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.ocr.lines import Engine, Line
from cof_agent.ocr.rapid import LONGEST
from cof_agent.trajectory import Sample

KEPT = 200_000  # lines


class Reading:
    """Reads views with one engine. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._read: LRUCache[list[Line]] = LRUCache(KEPT)

    def lines(self, environment: ZoomEnvironment, sample: Sample, view: View) -> list[Line]:
        """The lines that can be read in `view` of the sample's first image as it is shown, their boxes in source pixels.

        Raises:
            InputError: if the image cannot be decoded, or the engine fails.
        """
        key = (identity(sample.image), view, environment.settings.crop)
        return self._read.get(key, lambda: self._fresh(environment, sample, view), len)

    def _fresh(self, environment: ZoomEnvironment, sample: Sample, view: View) -> list[Line]:
        found = self.engine.read(environment.image(sample, view))
        return [replace(line, box=view.to_source(line.box, CoordinateSystem.ABSOLUTE)) for line in found]


def whole(size: Size) -> View:
    """A whole source of `size` pixels, as large as it is read at a time."""
    scale = min(1.0, LONGEST / size.long_side)
    shown = Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))
    return View(size, Box(0, 0, size.width, size.height), shown)
