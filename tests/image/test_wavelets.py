"""Large JPEG 2000 files: in parts the same pixels as whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source, pyramid, wavelets
from tests.image.ramps import REGIONS, SMALL, picture

pytest.importorskip("rasterio")


def test_every_kind_of_pixels_is_the_same_as_read_whole(tmp_path: Path) -> None:
    image, path = picture(), tmp_path / "a.jp2"
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)
    kinds = [image, image.convert("L"), deep, Image.merge("RGBA", (*image.split(), image.getchannel(0)))]
    kinds += [Image.merge("LA", image.split()[:2])]
    for one in kinds:
        for tiles in (None, (64, 64)):
            one.save(path, num_resolutions=3, tile_size=tiles)
            parts, plain = open_source(path, max_source_pixels=SMALL), open_source(path)
            assert parts.levels[0] == 1 and len(parts.levels) > 1 and parts.size == plain.size
            for region in REGIONS:
                assert parts.crop(region).tobytes() == plain.crop(region).tobytes(), (one.mode, tiles, region)


def test_an_overview_is_made_of_a_lower_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "FULL_RESOLUTION", 1 << 10)
    picture().save(tmp_path / "a.jp2", num_resolutions=4)
    parts, plain = (open_source(tmp_path / "a.jp2", max_source_pixels=most) for most in (SMALL, 1 << 20))
    view = View(plain.size, Box(0, 0, 300, 200), Size(70, 42))
    one, other = (np.asarray(source.show(view), dtype=float) for source in (parts, plain))
    assert np.abs(one - other).mean() < 3


def test_a_file_without_smaller_copies_is_decoded_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.jp2", num_resolutions=1, tile_size=(64, 64))
    view = View(Size(300, 200), Box(0, 0, 300, 200), Size(70, 42))
    whole = open_source(tmp_path / "a.jp2", max_source_pixels=SMALL).show(view)
    monkeypatch.setattr(wavelets, "_AT_ONCE", 300 * 20)
    assert open_source(tmp_path / "a.jp2", max_source_pixels=SMALL).show(view).tobytes() == whole.tobytes()


def test_a_damaged_file_and_what_is_no_colour_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    picture().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="a.jp2"):
        open_source(path, max_source_pixels=SMALL).crop(Box(0, 0, 300, 200))
    for mode in ("CMYK", "YCbCr"):  # GDAL makes RGB of some files in YCbCr, and of others not
        picture().convert(mode).save(path)
        with pytest.raises(InputError, match="cannot be read in parts"):
            open_source(path, max_source_pixels=SMALL)
