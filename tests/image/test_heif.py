"""HEIC files, as telephones write them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size
from cof_agent.image import check_whole, open_source

pillow_heif = pytest.importorskip("pillow_heif")

SIZE = Size(320, 200)


def write(path: Path, **options: object) -> Image.Image:
    picture = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize((320, 200)) for turn in (0, 90, 180)])
    pillow_heif.from_pillow(picture).save(path, quality=95, **options)
    return picture


def test_pixels_and_size(tmp_path: Path) -> None:
    picture = write(tmp_path / "a.heic")
    source = open_source(tmp_path / "a.heic")
    assert source.size == SIZE and not source.is_decoded
    crop = np.asarray(source.crop(Box(100, 50, 200, 150)), float)
    assert np.abs(crop - np.asarray(picture.crop((100, 50, 200, 150)), float)).mean() < 3


def test_a_turned_one_is_upright_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = write(tmp_path / "a.heic", exif=exif.tobytes())
    source = open_source(tmp_path / "a.heic")
    assert source.size == Size(200, 320)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(source.crop(Box(0, 0, 200, 320)), float) - np.asarray(upright, float)).mean() < 3


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"  # whatever its name says
    write(path, format="HEIF")
    with pytest.raises(InputError, match="= 64000 pixels are more than the limit of 1000"):
        open_source(path, max_source_pixels=1000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        open_source(path).crop(Box(0, 0, 320, 200))
    with open(path, "rb") as file, pytest.raises(InputError, match="damaged"):
        check_whole(file, "a.jpg")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match="HEIC needs the package pillow-heif: pip install 'pillow-heif"):
        open_source(path)


def test_avif_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.avif")
    assert open_source(tmp_path / "a.avif").size == Size(64, 48)
