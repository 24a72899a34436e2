"""Looks at one image without a model: the overview, and crops at full resolution, with their place in source pixels."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from cof_agent.environment import identity
from cof_agent.errors import InputError
from cof_agent.geometry import Box, BoxError, CoordinateSystem, Size, View, clip_to_view, crop_region, read_box
from cof_agent.image import png_of
from cof_agent.server.service import Service

LONGEST = 1568
"""Shown pixels of the long side of a picture in a reply: chat models make a larger one smaller."""

MOST_PIXELS = 16_000_000
"""Source pixels of a crop that is read at full resolution."""

_PNG_BYTES = 700_000  # of a picture in a reply; a larger one becomes a JPEG
_JPEG_QUALITY = 90
_MOST_KEPT = 2_000

Coordinates = Literal["source", "overview", "thousand", "unit"]


@dataclass(frozen=True)
class Look:
    """A region of an image (source pixels) as it is shown."""

    path: str
    view: View

    @property
    def id(self) -> str:
        """A name for it that says nothing of the path, and changes when the file does."""
        text = repr((*identity(self.path), self.view.region.pixels()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]

    def described(self) -> dict[str, Any]:
        """Its place, as plain values."""
        view = self.view
        reduced = view.scale < 1
        return {
            "region": list(view.region.pixels()),
            "source_size": [view.source_size.width, view.source_size.height],
            "shown_size": [view.shown_size.width, view.shown_size.height],
            "full_resolution": not reduced,
        }


class Looks:
    """Overviews and crops of the images that a service can open. Crops are remembered by their ids, without pixels."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept: OrderedDict[str, Look] = OrderedDict()

    async def overview(self, path: str) -> Look:
        """The whole image, `LONGEST` at most.

        Raises:
            InputError: if it cannot be opened.
        """
        size = await self._service.size(path)
        return Look(path, View(size, Box(0, 0, size.width, size.height), fitted(size)))

    async def crop(self, path: str, box: Any, coordinates: Coordinates) -> Look:
        """The region that a box names.

        coordinates: what its four numbers mean: pixels of the source, pixels of the overview as `overview` shows it, 0 to
        1000, or 0 to 1.

        Raises:
            InputError: if the image cannot be opened, or the box lies outside.
        """
        overview = (await self.overview(path)).view
        whole = View(overview.source_size, overview.region, overview.source_size)
        view = overview if coordinates == "overview" else whole
        system = {"thousand": CoordinateSystem.THOUSAND, "unit": CoordinateSystem.UNIT}.get(
            coordinates, CoordinateSystem.ABSOLUTE
        )
        try:
            inside = clip_to_view(read_box(box, system, name="box"), view, system)
        except BoxError as error:
            raise InputError(str(error)) from None
        return self.of(path, crop_region(view.to_source(inside, system), overview.source_size), overview.source_size)

    def of(self, path: str, region: Box, size: Size) -> Look:
        """A region (whole source pixels) of an image of this size; it is remembered."""
        look = Look(path, View(size, region, fitted(Size(int(region.width), int(region.height)))))
        self._kept[look.id] = look
        self._kept.move_to_end(look.id)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return look

    def known(self, id: str) -> Look:
        """The crop of this id.

        Raises:
            InputError: if there is none, or there were many others since.
        """
        if (look := self._kept.get(id)) is None:
            raise InputError("there is no such crop any more; zoom again.")
        return look

    async def picture(self, look: Look) -> tuple[str, bytes]:
        """The pixels as they are shown: the media type, and the file.

        Raises:
            InputError: if the image cannot be decoded.
        """
        (pixels,) = await self._service.pixels(look.path, [look.view])
        return await asyncio.to_thread(encoded, pixels)

    async def whole(self, look: Look) -> bytes:
        """The region at full resolution, as PNG.

        Raises:
            InputError: if it is larger than `MOST_PIXELS`, or cannot be decoded.
        """
        view = look.view
        size = Size(int(view.region.width), int(view.region.height))
        if size.area > MOST_PIXELS:
            raise InputError(f"the crop has {size.area:,} pixels, more than {MOST_PIXELS:,}; zoom into a part of it.")
        (pixels,) = await self._service.pixels(look.path, [View(view.source_size, view.region, size)])
        return await asyncio.to_thread(png_of, pixels)


def fitted(size: Size) -> Size:
    """The size at which a region of this size is shown: its own, or smaller."""
    scale = min(1.0, LONGEST / size.long_side)
    return Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))


def encoded(pixels: Image.Image) -> tuple[str, bytes]:
    """A picture for a reply: PNG where that is small, else JPEG."""
    content = png_of(pixels)
    if len(content) <= _PNG_BYTES:
        return "image/png", content
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "image/jpeg", buffer.getvalue()
