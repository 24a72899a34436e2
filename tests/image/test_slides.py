"""Whole-slide images: a file as Aperio's scanners write them, drawn here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source

pytest.importorskip("openslide")
pyvips = pytest.importorskip("pyvips")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17.3 megapixels at several sizes."""
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    ramps = np.stack(
        [np.asarray(Image.linear_gradient("L").rotate(turn).resize((300, 200))) for turn in (0, 90, 180)], -1
    )
    image = pyvips.Image.new_from_array(ramps).copy(interpretation="srgb").replicate(12, 24)
    image.set_type(pyvips.GValue.gstr_type, "image-description", "Aperio Image Library v1\r\n3600x4800 |MPP = 0.5")
    image.tiffsave(str(path), tile=True, pyramid=True, tile_width=256, tile_height=256, compression="jpeg", Q=95)
    return path


def test_regions_are_those_of_the_whole(path: Path) -> None:
    source = open_source(path, max_source_pixels=1000)  # no limit for what is never decoded whole
    with Image.open(path) as image:  # its first page is the whole
        whole = image.convert("RGB")
    assert source.size == Size(*whole.size) and source.levels[:3] == (1.0, 0.5, 0.25)
    region = Box(1000, 900, 1300, 1100)
    error = np.abs(np.asarray(source.crop(region), float) - np.asarray(whole.crop(region.pixels()), float))
    assert error.max() <= 2  # two decoders of JPEG
    for edges in (Box(0, 0, 3600, 4800), Box(10, 10, 3600, 4791)):
        shown = source.show(View(source.size, edges, Size(420, 560)))
        expected = whole.crop(edges.pixels()).resize((420, 560), Image.Resampling.BICUBIC, reducing_gap=2.0)
        assert np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean() < 2


def test_another_file_of_such_a_name(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.svs", "TIFF")
    assert open_source(tmp_path / "a.svs").crop(Box(0, 0, 1, 1)).getpixel((0, 0)) == (255, 0, 0)


def test_refusals(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(path.read_bytes())
    data[8:400_000] = bytes(len(data[8:400_000]))
    (tmp_path / "b.svs").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot decode the image .*b\.svs: it is damaged"):
        open_source(tmp_path / "b.svs").crop(Box(0, 0, 100, 100))
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match="slides need OpenSlide: pip install 'openslide-python"):
        open_source(path)
