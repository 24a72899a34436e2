"""Tiles of an image for a deep-zoom viewer, and crops: cut from the source by the reader of regions that the agent uses.

Level 0 shows the whole image within one tile, and each further level twice as large; the last one has the pixels of the file.
"""

from __future__ import annotations

import asyncio
import io
import math
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from fastapi import APIRouter
from PIL import Image
from starlette.responses import Response

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.server.looks import Looks
from cof_agent.server.refusals import Refusal
from cof_agent.server.service import Service

SIDE = 256
"""Shown pixels of a tile's side."""

_MOST_SHOWN = 2_000  # images whose ids are remembered
_QUALITY = 88  # of WebP
_FOR_AN_HOUR = {"cache-control": "private, max-age=3600"}


@dataclass(frozen=True)
class Shown:
    """An image in the viewer. id: what its tiles are called by; it says nothing of the path, and nobody can guess it."""

    path: str
    size: Size
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    @property
    def last(self) -> int:
        """The level that has the pixels of the file."""
        return max(0, math.ceil(math.log2(self.size.long_side / SIDE)))

    def view(self, level: int, column: int, row: int) -> View | None:
        """What a tile shows; None where there is none."""
        if not (0 <= level <= self.last and column >= 0 and row >= 0):
            return None
        step = SIDE << (self.last - level)  # source pixels
        left, top = column * step, row * step
        if left >= self.size.width or top >= self.size.height:
            return None
        right, lower = min(left + step, self.size.width), min(top + step, self.size.height)
        shown = Size(max(1, round((right - left) * SIDE / step)), max(1, round((lower - top) * SIDE / step)))
        return View(self.size, Box(left, top, right, lower), shown)


class Tiles:
    """The images that are shown to somebody."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._shown: OrderedDict[str, Shown] = OrderedDict()

    async def show(self, path: str) -> Shown:
        """Makes the tiles of an image available.

        Raises:
            InputError: if it cannot be opened.
        """
        shown = Shown(path, await self._service.size(path))
        self._shown[shown.id] = shown
        while len(self._shown) > _MOST_SHOWN:
            self._shown.popitem(last=False)
        return shown

    async def tile(self, id: str, level: int, column: int, row: int) -> bytes:
        """One tile as WebP, `SIDE` pixels a side; beyond the edge of the image it is transparent.

        Raises:
            Refusal: 404, if there is none.
            InputError: if the image cannot be decoded.
        """
        shown = self._shown.get(id)
        view = None if shown is None else shown.view(level, column, row)
        if shown is None or view is None:
            raise Refusal(404, "there is no such tile.")
        (pixels,) = await self._service.pixels(shown.path, [view])
        return await asyncio.to_thread(_webp, pixels)


def _webp(pixels: Image.Image) -> bytes:
    if pixels.size != (SIDE, SIDE):
        padded = Image.new("RGBA", (SIDE, SIDE))
        padded.paste(pixels, (0, 0))
        pixels = padded
    buffer = io.BytesIO()
    pixels.save(buffer, "WEBP", quality=_QUALITY, method=0)
    return buffer.getvalue()


def routes(tiles: Tiles, looks: Looks) -> APIRouter:
    """Where the page gets its pictures."""
    router = APIRouter()

    @router.get("/tiles/{id}/{level:int}/{column:int}/{row:int}")
    async def tile(id: str, level: int, column: int, row: int) -> Response:
        try:
            return Response(await tiles.tile(id, level, column, row), media_type="image/webp", headers=_FOR_AN_HOUR)
        except InputError:
            raise Refusal(404, "the image cannot be read any more.") from None

    @router.get("/crops/{id}")
    async def crop(id: str) -> Response:
        try:
            kind, content = await looks.picture(looks.known(id))
        except InputError:
            raise Refusal(404, "the image cannot be read any more.") from None
        return Response(content, media_type=kind, headers=_FOR_AN_HOUR)

    return router
