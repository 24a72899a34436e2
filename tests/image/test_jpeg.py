"""JPEG files: overviews at a reduced scale by a stated rule, crops at full resolution, and files without their end mark."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import check_whole, open_source
from cof_agent.image.jpeg import _NO_END, REDUCED_FROM
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import write_answer


def photograph(width: int, height: int) -> Image.Image:
    """Shapes of every size with grain, as in a photograph."""
    rng, total = np.random.default_rng(2), np.zeros((height, width, 3), np.float32)
    for block, weight in ((600, 60), (90, 40), (12, 20), (2, 8)):
        few = rng.normal(128, weight, (height // block + 2, width // block + 2, 3)).clip(0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BILINEAR), np.float32) - 128
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jpeg") / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, part = Image.new("RGB", (4800, 3600)), photograph(1200, 900)
    for k in range(16):
        picture.paste(part, (1200 * (k % 4), 900 * (k // 4)))
    picture.save(path, quality=85, exif=exif)
    return path


def test_an_overview_is_nearly_that_of_the_whole_and_a_crop_is_exact(path: Path) -> None:
    with Image.open(path) as image:
        plain = ImageOps.exif_transpose(image)
    source = open_source(path)
    assert source.size == Size(3600, 4800) and source.size.area > REDUCED_FROM
    everything = Box(0, 0, 3600, 4800)
    for width, height in ((840, 1120), (420, 560), (210, 280)):
        view = View(source.size, everything, Size(width, height))
        shown = source.show(view)
        assert not source.is_decoded and shown.size == (width, height)
        expected = plain.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        error = np.abs(np.asarray(shown, float) - np.asarray(expected, float))
        assert 0 < error.mean() < 2 and error.max() < 24, (width, error.mean(), error.max())
    region = Box(100, 200, 900, 1000)
    assert source.crop(region).tobytes() == plain.crop(region.pixels()).tobytes()
    assert source.is_decoded and source.show(view).tobytes() == shown.tobytes()  # whatever was decoded before


def test_an_overview_with_few_pixels_to_spare_is_made_of_the_whole(path: Path) -> None:
    with Image.open(path) as image:
        plain = ImageOps.exif_transpose(image)
    source = open_source(path)
    shown = source.show(View(source.size, Box(0, 0, 3600, 4800), Size(1400, 1848)))
    assert shown.tobytes() == plain.resize((1400, 1848), Image.Resampling.BICUBIC, reducing_gap=2.0).tobytes()


def test_4k_is_decoded_whole(tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((3840, 2160)).convert("RGB")
    image.save(tmp_path / "a.jpg")
    source = open_source(tmp_path / "a.jpg")
    shown = source.show(View(source.size, Box(0, 0, 3840, 2160), Size(448, 252)))
    with Image.open(tmp_path / "a.jpg") as again:
        assert shown.tobytes() == again.resize((448, 252), Image.Resampling.BICUBIC, reducing_gap=2.0).tobytes()


def test_grey_and_cmyk_are_reduced_too(tmp_path: Path) -> None:
    for mode in ("L", "CMYK"):
        Image.radial_gradient("L").resize((4800, 3600)).convert(mode).save(tmp_path / "a.jpg")
        source = open_source(tmp_path / "a.jpg")
        view = View(source.size, Box(0, 0, 4800, 3600), Size(420, 308))
        with Image.open(tmp_path / "a.jpg") as image:
            expected = image.convert("RGB").resize((420, 308), Image.Resampling.BICUBIC, reducing_gap=2.0)
        assert np.abs(np.asarray(source.show(view), float) - np.asarray(expected, float)).mean() < 2
        assert not source.is_decoded


class TestWithoutItsEnd:
    def test_is_read_with_a_note(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        image = photograph(400, 300)
        # As these are written, Pillow's decoder misses the mark. Of some files it takes no notice that there is none.
        ways = ({"progressive": True}, {"optimize": True}, {"quality": 20, "subsampling": 0})
        for number, options in enumerate(ways):
            path = tmp_path / f"{number}.jpg"
            image.save(path, **options)  # type: ignore[arg-type]
            with Image.open(path) as whole:
                expected = whole.convert("RGB").crop((250, 250, 400, 300)).tobytes()
            path.write_bytes(path.read_bytes()[:-2])
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert open_source(path).crop(Box(250, 250, 400, 300)).tobytes() == expected
            assert caplog.text.count(f"{number}.jpg lacks the mark at its end; its pixels are all there.") == 1
            with open(path, "rb") as file:
                check_whole(file, str(path))
            assert caplog.text.count("lacks the mark") == 1  # once for each file

    def test_the_trajectory_notes_it(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "b.jpg").write_bytes(path.read_bytes()[:-2])
        for image, notes in ((path, ()), (tmp_path / "b.jpg", (f"b.jpg {_NO_END}",))):
            agent = Agent(AgentConfig(overview_pixels=112_896), policy=ScriptedPolicy([write_answer("Seen.", "7")]))
            assert agent.ask(str(image), "What is written?").notes == notes

    def test_what_lacks_pixels_is_refused(self, tmp_path: Path) -> None:
        path, buffer = tmp_path / "a.jpg", io.BytesIO()
        photograph(400, 304).save(buffer, "JPEG")  # blocks of 16 x 16; of others, the last bytes are not seen
        data = buffer.getvalue()
        for missing in (4, 10, 100, len(data) // 3, len(data) // 2):
            path.write_bytes(data[:-missing])
            with pytest.raises(InputError, match="is damaged, cut off"):
                open_source(path).crop(Box(0, 0, 10, 10))
            with open(path, "rb") as file, pytest.raises(InputError, match="is damaged, cut off"):
                check_whole(file, "a.jpg")

    def test_the_overview_of_a_large_one(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "b.jpg").write_bytes(path.read_bytes()[:-2])
        source = open_source(tmp_path / "b.jpg")
        view = View(source.size, Box(0, 0, 3600, 4800), Size(420, 560))
        expected = np.asarray(open_source(path).show(view), float)
        assert np.abs(np.asarray(source.show(view), float) - expected).mean() < 2
