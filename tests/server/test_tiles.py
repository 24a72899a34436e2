"""Tiles are the image, at every level."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.server.refusals import Refusal
from cof_agent.server.service import Service
from cof_agent.server.settings import ServerSettings
from cof_agent.server.tiles import SIDE, Shown, Tiles


async def assembled(tiles: Tiles, shown: Shown, level: int) -> Image.Image:
    step = SIDE << (shown.last - level)
    columns, rows = -(-shown.size.width // step), -(-shown.size.height // step)
    whole = Image.new("RGBA", (columns * SIDE, rows * SIDE))
    for column in range(columns):
        for row in range(rows):
            tile = Image.open(io.BytesIO(await tiles.tile(shown.id, level, column, row)))
            assert tile.size == (SIDE, SIDE)
            whole.paste(tile, (column * SIDE, row * SIDE))
    for beyond in ((columns, 0), (0, rows), (-1, 0)):
        with pytest.raises(Refusal, match="no such tile"):
            await tiles.tile(shown.id, level, *beyond)
    return whole


async def check(tiles: Tiles, path: Path, picture: Path) -> None:
    """That the tiles of each level of a file make up the picture in it."""
    shown = await tiles.show(str(path))
    assert (shown.size, shown.last) == (Size(800, 600), 2)
    with Image.open(picture) as source:
        for level in range(shown.last + 1):
            made = await assembled(tiles, shown, level)
            width, height = (side >> (shown.last - level) for side in source.size)
            assert made.getbbox() == (0, 0, width, height)  # what lies beyond is transparent
            wanted = source.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            difference = ImageChops.difference(made.convert("RGB").crop((0, 0, width, height)), wanted)
            assert max(ImageStat.Stat(difference).mean) < 8  # of 255; WebP is not exact
    for level, column in ((-1, 0), (3, 0), (99, 0)):
        with pytest.raises(Refusal):
            await tiles.tile(shown.id, level, column, 0)


def test_the_tiles_of_each_level_make_up_the_image(picture: Path) -> None:
    async def run() -> None:
        service = Service(AgentConfig(), ServerSettings())
        tiles = Tiles(service)
        await check(tiles, picture, picture)
        with pytest.raises(Refusal):
            await tiles.tile("another", 0, 0, 0)
        with pytest.raises(InputError):
            await tiles.show(str(picture.parent / "none.png"))
        service.close()

    asyncio.run(run())
    small = Shown("a", Size(100, 1))
    assert small.last == 0 and (view := small.view(0, 0, 0)) and view.shown_size == Size(100, 1)
    huge = Shown("b", Size(300_000, 200_000))
    assert huge.last == 11 and (view := huge.view(0, 0, 0)) and view.shown_size.long_side <= SIDE


def test_a_tiff_that_is_too_large_to_be_decoded_whole(picture: Path, tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    path = tmp_path / "large.tif"
    pyvips.Image.new_from_file(str(picture)).tiffsave(
        str(path), tile=True, pyramid=True, tile_width=128, tile_height=128
    )

    async def run() -> None:
        service = Service(AgentConfig(max_source_pixels=100_000), ServerSettings())
        await check(Tiles(service), path, picture)
        with pytest.raises(InputError, match="more than the limit of 100000"):
            await service.size(str(picture))  # the same pixels in a file that has no tiles
        service.close()

    asyncio.run(run())
