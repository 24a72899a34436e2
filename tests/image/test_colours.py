"""Pictures of Pillow's are what the same pictures are as files."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cof_agent.geometry import Box
from cof_agent.image import open_source, png_of


def read(path: Path, content: bytes) -> Image.Image:
    path.write_bytes(content)
    source = open_source(path)
    return source.crop(Box(0, 0, source.size.width, source.size.height))


def test_a_photograph_that_was_turned(tmp_path: Path) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((60, 40)).save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as image:
        given = read(tmp_path / "given.png", png_of(image))
    assert given.size == (40, 60)
    assert given.tobytes() == read(tmp_path / "file.png", buffer.getvalue()).tobytes()


@pytest.mark.parametrize("mode", ["F", "I", "I;16B", "La", "RGBa", "RGBA", "PA", "CMYK", "YCbCr", "1"])
def test_every_mode(mode: str, tmp_path: Path) -> None:
    grey = Image.linear_gradient("L").resize((32, 32))
    deep = {"F": ("F", 1 / 255), "I": ("I", 257.0), "I;16B": ("I", 257.0)}
    clear = {"La": "LA", "RGBa": "RGBA", "RGBA": "RGBA", "PA": "PA"}  # as they are first
    if mode in deep:
        through, scale = deep[mode]
        image = Image.fromarray((np.asarray(grey) * scale).astype("f4" if mode == "F" else "i4"), through).convert(mode)
        mean = 127.5
    elif mode in clear:
        image = Image.new(clear[mode], (32, 32), 0).convert(mode)
        mean = 255
    else:
        image, mean = grey.convert("RGB").convert(mode), 127.5
    shown = np.asarray(read(tmp_path / "a.png", png_of(image)))
    assert shown.shape == (32, 32, 3) and abs(shown.mean() - mean) < 3


@pytest.mark.parametrize(("kind", "white"), [("u2", 65535), ("f4", 1.0)])
def test_a_tiff_whose_white_is_nought(kind: str, white: float, tmp_path: Path) -> None:
    """As X-rays are stored. Pillow turns those of 8 bits round, and no deeper ones."""
    row = (np.linspace(0, 1, 16) * white).astype(kind)
    Image.fromarray(np.tile(row, (8, 1))).save(tmp_path / "a.tif", tiffinfo={262: 0})
    shown = np.asarray(open_source(tmp_path / "a.tif").crop(Box(0, 0, 16, 8)))[0, :, 0]
    assert shown[0] == 255 and shown[-1] == 0 and all(np.diff(shown.astype(int)) < 0)


def shown_row(path: Path) -> list[int]:
    with Image.open(path) as image:
        width, height = image.size
    row: list[int] = np.asarray(open_source(path).crop(Box(0, 0, width, height)))[0, :, 0].tolist()
    return row


def test_deep_grey_that_is_transparent_is_white(tmp_path: Path) -> None:
    row = np.array([0, 20000, 40000, 65535], "u2")
    Image.fromarray(np.tile(row, (4, 1))).save(tmp_path / "a.png", transparency=0)
    assert shown_row(tmp_path / "a.png") == [255, 78, 156, 255]


def test_a_tiff_of_32_bits_without_a_sign(tmp_path: Path) -> None:
    row = np.array([0, 2**31, 2**32 - 1, 2**30], "u4")
    Image.fromarray(np.tile(row.view("i4"), (4, 1))).save(tmp_path / "a.tif")
    with_sign, without = (struct.pack("<HHII", 339, 3, 1, form) for form in (2, 1))  # the tag of the sample format
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes().replace(with_sign, without))
    assert shown_row(tmp_path / "a.tif") == [0, 128, 255, 64]
