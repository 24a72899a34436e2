"""Sources: exact crops, every mode and orientation, refusals in one sentence, bounded memory."""

from __future__ import annotations

import math
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import DEFAULT_MAX_SOURCE_PIXELS, open_source

WIDTH, HEIGHT = 67, 41


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def picture(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    width, height = size
    if mode in ("I;16", "I", "F"):
        ramp = np.linspace(0, 65_535, width * height).reshape(height, width)
        return Image.fromarray(ramp.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    bands = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}[mode]
    return Image.merge(mode, [Image.fromarray(band) for band in noise(bands, height, width)])


def whole(size: Size) -> Box:
    return Box(0, 0, size.width, size.height)


def opened(path: Path) -> Image.Image:
    source = open_source(path)
    pixels = source.crop(whole(source.size))
    assert pixels.mode == "RGB" and Size(*pixels.size) == source.size
    return pixels


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, colour_type: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crops") / "scene.png"
    picture(size=(301, 203)).save(path)
    return path


class TestCrops:
    @given(st.data())
    @settings(deadline=None, max_examples=60)
    def test_byte_identical_to_pillow(self, path: Path, data: st.DataObject) -> None:
        left, top = data.draw(st.integers(0, 300)), data.draw(st.integers(0, 202))
        right, bottom = data.draw(st.integers(left + 1, 301)), data.draw(st.integers(top + 1, 203))
        with Image.open(path) as image:
            expected = image.convert("RGB").crop((left, top, right, bottom))
        crop = open_source(path).crop(Box(left, top, right, bottom))
        assert crop.size == expected.size and crop.tobytes() == expected.tobytes()

    @pytest.mark.parametrize("name", ["scene.jpg", "scene.webp", "scene.bmp", "scene.tif"])
    def test_in_other_formats_too(self, tmp_path: Path, name: str) -> None:
        picture(size=(301, 203)).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            expected = image.convert("RGB").crop((17, 5, 200, 99))
        assert open_source(tmp_path / name).crop(Box(17, 5, 200, 99)).tobytes() == expected.tobytes()

    def test_a_crop_larger_than_a_strip(self, tmp_path: Path) -> None:
        image = Image.radial_gradient("L").resize((3000, 2500)).convert("RGB")
        image.save(tmp_path / "large.png", compress_level=1)
        region = Box(10, 20, 2990, 2499)
        assert open_source(tmp_path / "large.png").crop(region).tobytes() == image.crop(region.pixels()).tobytes()

    def test_shown_is_the_crop_resized(self, path: Path) -> None:
        source = open_source(path)
        for region in (Box(10, 20, 110, 80), whole(source.size)):
            shown = source.show(View(source.size, region, Size(224, 140)))
            expected = source.crop(region).resize((224, 140), Image.Resampling.BICUBIC)
            assert shown.mode == "RGB" and shown.tobytes() == expected.tobytes()

    def test_what_is_made_far_smaller_is_averaged_first(self, tmp_path: Path) -> None:
        picture(size=(900, 600)).save(tmp_path / "a.png")
        source = open_source(tmp_path / "a.png")
        shown = source.show(View(source.size, whole(source.size), Size(84, 56)))
        pixels = source.crop(whole(source.size))
        quick, slow = (pixels.resize((84, 56), Image.Resampling.BICUBIC, reducing_gap=gap) for gap in (2.0, None))
        assert shown.tobytes() == quick.tobytes() != slow.tobytes()

    def test_no_resize_at_equal_size_and_always_a_copy(self, path: Path) -> None:
        source = open_source(path)
        for region in (Box(0, 0, 56, 28), whole(source.size)):
            view = View(source.size, region, Size(int(region.width), int(region.height)))
            shown = source.show(view)
            expected = source.crop(region).tobytes()
            assert shown.tobytes() == expected
            shown.paste((1, 2, 3), (0, 0, 20, 20))
            assert source.show(view).tobytes() == expected

    @pytest.mark.parametrize(
        "region", [Box(0.5, 0, 10, 10), Box(-1, 0, 10, 10), Box(0, 0, 302, 10), Box(5, 5, 5, 9), Box(9, 0, 5, 9)]
    )
    def test_a_region_that_is_no_region_is_a_programming_error(self, path: Path, region: Box) -> None:
        with pytest.raises(ValueError, match="Box") as error:
            open_source(path).crop(region)
        assert not isinstance(error.value, InputError)

    def test_a_view_of_another_image_is_refused(self, path: Path) -> None:
        view = View(Size(300, 203), Box(0, 0, 300, 203), Size(28, 28))
        with pytest.raises(InputError, match="is 301 x 203 pixels, but was 300 x 203"):
            open_source(path).show(view)

    def test_the_header_is_enough_for_the_size(self, tmp_path: Path) -> None:
        path = tmp_path / "header.png"
        path.write_bytes(png_header(640, 480) + png_chunk(b"IDAT", b""))
        assert open_source(path).size == Size(640, 480)

    def test_decoded_once_by_many_threads(self, tmp_path: Path) -> None:
        path = tmp_path / "scene.png"
        picture(size=(800, 600)).save(path)
        source = open_source(path)
        expected = open_source(path).crop(Box(1, 2, 300, 400)).tobytes()
        crops: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: crops.append(source.crop(Box(1, 2, 300, 400)).tobytes())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        path.unlink()  # nothing is read again
        crops.append(source.crop(Box(1, 2, 300, 400)).tobytes())
        assert crops == [expected] * 9

    def test_a_crop_carries_no_metadata_of_the_whole(self, tmp_path: Path) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "secret")
        picture().save(tmp_path / "a.png", pnginfo=info, icc_profile=b"profile", dpi=(300, 300))
        assert open_source(tmp_path / "a.png").crop(Box(0, 0, 9, 9)).info == {}


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "name"), [("L", "a.png"), ("L", "a.jpg"), ("RGB", "a.png"), ("CMYK", "a.tif"), ("CMYK", "a.jpg")]
    )
    def test_opaque(self, tmp_path: Path, mode: str, name: str) -> None:
        picture(mode).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert opened(tmp_path / name).tobytes() == image.convert("RGB").tobytes()

    @pytest.mark.parametrize(("mode", "name"), [("1", "a.png"), ("P", "a.gif"), ("YCbCr", "a.tif"), ("LAB", "a.tif")])
    def test_opaque_and_rare(self, tmp_path: Path, mode: str, name: str) -> None:
        image = Image.merge("LAB", picture().split()) if mode == "LAB" else picture().convert(mode)
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as again:
            assert again.mode == mode
            assert opened(tmp_path / name).tobytes() == again.convert("RGB").tobytes()

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_over_white(self, tmp_path: Path, mode: str) -> None:
        image = picture(mode)
        image.save(tmp_path / "a.png")
        values = np.asarray(image).astype(float)
        alpha = values[..., -1:] / 255
        expected = values[..., :-1] * alpha + 255 * (1 - alpha)
        assert np.abs(np.asarray(opened(tmp_path / "a.png")) - expected).max() <= 1

    def test_transparent_palette_and_transparent_colour(self, tmp_path: Path) -> None:
        image = Image.new("P", (WIDTH, HEIGHT), 1)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.paste(0, (0, 0, 5, 5))
        image.save(tmp_path / "p.png", transparency=0)
        image.save(tmp_path / "half.png", transparency=bytes([0, 128]))
        rgb = Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 255))
        rgb.paste((255, 0, 0), (0, 0, 5, 5))
        rgb.save(tmp_path / "rgb.png", transparency=(255, 0, 0))
        for name, colour in (("p.png", (0, 0, 255)), ("half.png", (127, 127, 255)), ("rgb.png", (0, 0, 255))):
            pixels = opened(tmp_path / name)
            assert pixels.getpixel((0, 0)) == (255, 255, 255)
            assert pixels.getpixel((60, 40)) == colour

    def test_sixteen_bits_are_scaled(self, tmp_path: Path) -> None:
        image = picture("I;16")
        expected = np.rint(np.asarray(image) / 257).astype(np.uint8)
        for name in ("a.png", "a.tif", "a.pgm"):
            image.save(tmp_path / name)
            pixels = np.asarray(opened(tmp_path / name))
            assert (pixels == expected[..., None]).all(), name
        dark = Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16))
        dark.save(tmp_path / "dark.png")
        assert opened(tmp_path / "dark.png").getextrema() == ((1, 1),) * 3

    @pytest.mark.parametrize(
        ("mode", "low", "high", "expected"),
        [
            ("I", 0, 65_535, (0, 255)),
            ("I", 0, 200, (0, 200)),
            ("I", -500, 100_000, (0, 255)),
            ("I", 7, 7, (7, 7)),
            ("F", 0, 1, (0, 255)),
            ("F", 0, 0.5, (0, 128)),
            ("F", 0, 255, (0, 255)),
            ("F", 0, 65_535, (0, 255)),
            ("F", -1, 1, (0, 255)),
            ("F", math.nan, math.nan, (0, 0)),
        ],
    )
    def test_32_bits_are_scaled(
        self, tmp_path: Path, mode: str, low: float, high: float, expected: tuple[int, int]
    ) -> None:
        ramp = np.linspace(low, high, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
        Image.fromarray(ramp.astype({"I": np.int32, "F": np.float32}[mode])).save(tmp_path / "a.tif")
        assert opened(tmp_path / "a.tif").getextrema() == (expected,) * 3

    def test_what_is_not_finite_does_not_hide_the_rest(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 0.5, 1, math.nan, math.inf, -math.inf]], np.float32)).save(tmp_path / "a.tif")
        assert [pixel[0] for pixel in np.asarray(opened(tmp_path / "a.tif"))[0]] == [0, 128, 255, 0, 255, 0]

    @pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
    def test_first_frame_of_an_animation(self, tmp_path: Path, name: str) -> None:
        red, blue = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        red.save(tmp_path / name, save_all=True, append_images=[blue], **options)
        assert opened(tmp_path / name).getpixel((5, 5)) == (255, 0, 0)


class TestOrientation:
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
    def test_as_pillow_turns_it(self, tmp_path: Path, name: str) -> None:
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            picture().save(tmp_path / name, exif=exif)
            with Image.open(tmp_path / name) as image:
                expected = ImageOps.exif_transpose(image).convert("RGB")
            assert expected.size == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
            pixels = opened(tmp_path / name)
            assert pixels.size == expected.size and pixels.tobytes() == expected.tobytes(), orientation
            part = open_source(tmp_path / name).crop(Box(3, 4, 30, 20))
            assert part.tobytes() == expected.crop((3, 4, 30, 20)).tobytes(), orientation

    def test_behind_the_pixels_of_a_png(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture().save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        end = data.rindex(b"IEND") - 4
        late = png_chunk(b"tEXt", b"date\0now") + png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        (tmp_path / "late.png").write_bytes(data[:end] + late + data[end:])
        assert opened(tmp_path / "late.png").tobytes() == picture().transpose(Image.Transpose.ROTATE_270).tobytes()

    def test_nonsense_is_ignored(self, tmp_path: Path) -> None:
        picture().save(tmp_path / "nonsense.png", exif=b"Exif\0\0nonsense")
        assert opened(tmp_path / "nonsense.png").tobytes() == picture().tobytes()
        for value in (0, 9, 77):
            exif = Image.Exif()
            exif[0x0112] = value
            picture().save(tmp_path / "a.png", exif=exif)
            assert opened(tmp_path / "a.png").tobytes() == picture().tobytes(), value


def missing(folder: Path) -> Path:
    return folder / "none.png"


def address(folder: Path) -> Path:
    return Path("https://example.org/a.png")


def nul(folder: Path) -> Path:
    return folder / "a\0b.png"


def too_long(folder: Path) -> Path:
    return folder / ("a" * 5000)


def directory(folder: Path) -> Path:
    return folder


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def empty(folder: Path) -> Path:
    (folder / "empty.png").write_bytes(b"")
    return folder / "empty.png"


def words(folder: Path) -> Path:
    (folder / "words.png").write_text("These are words.\n" * 100)
    return folder / "words.png"


def cut_header(folder: Path) -> Path:
    (folder / "cut.png").write_bytes(png_header(10, 10)[:20])
    return folder / "cut.png"


def no_pixels(folder: Path) -> Path:
    (folder / "zero.png").write_bytes(png_header(0, 10) + png_chunk(b"IDAT", b""))
    return folder / "zero.png"


def broken_pixels(folder: Path) -> Path:
    data = png_header(64, 64) + png_chunk(b"IDAT", zlib.compress(b"\x07" * 64 * 193)) + png_chunk(b"IEND", b"")
    (folder / "broken.png").write_bytes(data)
    return folder / "broken.png"


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "words_in_it"),
        [
            (missing, "there is no such file; check the path"),
            (address, "there is no such file; save it to disk first"),
            (nul, "is no file name"),
            (too_long, "File name too long"),
            (directory, "it is a directory"),
            (pipe, "it is not a regular file"),
            (empty, "the file is empty; get a whole copy of it."),
            (words, "in no image format"),
            (cut_header, "damaged"),
            (no_pixels, "in no image format"),
            (broken_pixels, "damaged"),
        ],
    )
    def test_in_one_sentence(self, tmp_path: Path, make: Callable[[Path], Path], words_in_it: str) -> None:
        self.refused(make(tmp_path), words_in_it)

    def test_what_is_cut_in_half(self, tmp_path: Path) -> None:
        for name in ("a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"):
            picture(size=(300, 200)).save(tmp_path / name)
            data = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(data[: len(data) // 2])
            self.refused(tmp_path / name, "damaged")

    def refused(self, path: Path, words_in_it: str) -> None:
        with pytest.raises(InputError) as error:
            source = open_source(path)
            source.crop(whole(source.size))
        sentence = str(error.value)
        assert words_in_it in sentence and "\n" not in sentence and sentence.endswith(".") and "; " in sentence
        assert path.name.replace("\0", "\\x00") in sentence

    def test_garbage_in_any_format_is_refused_or_opened(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp", "a.ppm", "a.ico", "a.jp2", "a.tga"):
            picture().save(tmp_path / name)
            good = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
            for _ in range(15):
                bad = good.copy()
                bad[rng.integers(0, min(len(bad), 400), 6)] = rng.integers(0, 256, 6)
                (tmp_path / name).write_bytes(bad.tobytes())
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        source = open_source(tmp_path / name, max_source_pixels=1_000_000)
                        source.crop(whole(source.size))
                    except InputError:
                        continue

    def test_what_runs_programs_is_not_opened(self, tmp_path: Path) -> None:
        for name in ("a.eps", "a.png"):  # whatever its name says
            path = tmp_path / name
            path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
            with pytest.raises(InputError, match="EPS files are not opened; convert it to PNG"):
                open_source(path)

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file here whose reading fails")
    def test_a_disk_that_fails_is_said(self) -> None:
        with pytest.raises(InputError, match="cannot read the image /proc/self/mem: Input/output error"):
            open_source("/proc/self/mem")

    def test_long_comments_and_profiles_of_a_png_are_no_damage(self, tmp_path: Path) -> None:
        comment = PngImagePlugin.PngInfo()
        comment.add_text("Comment", "x" * 3_000_000, zip=True)
        Image.new("RGB", (40, 30), "red").save(tmp_path / "text.png", pnginfo=comment)
        Image.new("RGB", (40, 30), "red").save(tmp_path / "icc.png", icc_profile=random.Random(0).randbytes(3_000_000))
        for name in ("text.png", "icc.png"):
            source = open_source(tmp_path / name)
            assert source.crop(Box(0, 0, 40, 30)).getpixel((5, 5)) == (255, 0, 0)

    @pytest.mark.parametrize(
        "name", ["a.png", "a.jpg", "a.bmp", "raw.tif", "lzw.tif", "a.webp", "a.jp2", "a.avif", "a.gif"]
    )
    def test_the_limit_is_ours_in_every_format(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # so that small files show it
        compression = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        Image.new("RGB", (300, 200), "red").save(tmp_path / name, **compression)
        source = open_source(tmp_path / name)
        assert source.show(View(source.size, Box(0, 0, 300, 200), Size(30, 20))).size == (30, 20)
        assert Image.MAX_IMAGE_PIXELS == 10_000

    def test_a_bomb_is_refused_by_its_header(self, tmp_path: Path) -> None:
        (tmp_path / "bomb.png").write_bytes(png_header(100_000, 100_000) + png_chunk(b"IDAT", b""))
        with pytest.raises(InputError, match=r"100000 x 100000 = 10000000000 pixels .* raise --max-source-pixels\.$"):
            open_source(tmp_path / "bomb.png")

    def test_the_limit_can_be_moved_and_pillows_is_left_alone(self, tmp_path: Path) -> None:
        before = Image.MAX_IMAGE_PIXELS
        (tmp_path / "large.png").write_bytes(png_header(20_000, 20_000) + png_chunk(b"IDAT", b""))
        (tmp_path / "small.png").write_bytes(png_header(10_000, 12_000) + png_chunk(b"IDAT", b""))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_source(tmp_path / "large.png", max_source_pixels=400_000_000).size == Size(20_000, 20_000)
            assert open_source(tmp_path / "small.png").size.area < DEFAULT_MAX_SOURCE_PIXELS
            with pytest.raises(InputError, match="limit of 1000;"):
                open_source(tmp_path / "small.png", max_source_pixels=1000)
        assert before == Image.MAX_IMAGE_PIXELS


MEASURE = """
import re, sys
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source
source = open_source(sys.argv[1])
everything = Box(0, 0, 12000, 12000)
assert source.show(View(Size(12000, 12000), everything, Size(980, 980))).size == (980, 980)
assert source.crop(Box(5000, 5000, 6000, 6000)).size == (1000, 1000)
assert source.show(View(Size(12000, 12000), Box(0, 0, 6000, 6000), Size(448, 448))).size == (448, 448)
assert "torch" not in sys.modules
# Not ru_maxrss, which after a fork knows the peak of the parent.
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["turned.jpg", "transparent.png"])  # of each format the kind that costs most
def test_12000_x_12000_within_2_gb(tmp_path: Path, name: str) -> None:
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (12_000, 12_000), "teal").save(tmp_path / name, exif=exif, quality=60)
    else:
        rows = zlib.compress((b"\0" + bytes([0, 128]) * 12_000) * 12_000, 1)  # faster than by Pillow
        header = png_header(12_000, 12_000, colour_type=4)
        (tmp_path / name).write_bytes(header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b""))
    command = [sys.executable, "-W", "error", "-c", MEASURE, str(tmp_path / name)]
    peak_kb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak_kb < 1_400_000  # two copies at most, well below 2 GB
