"""How images travel to a server: to the last pixel inside a request, as JPEG, or as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.chat.images import Files, png
from cof_agent.cache import LRUCache
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from tests import loopback
from tests.loopback import Body, Reply, saying


@contextmanager
def seeing() -> Iterator[tuple[str, list[Image.Image]]]:
    """A server that answers, and the images that it has been shown."""
    shown: list[Image.Image] = []

    def answer(path: str, body: Body | None) -> Reply:
        messages = body["messages"] if body else []
        parts = [part for one in messages if isinstance(one["content"], list) for part in one["content"]]
        shown.extend(_opened(part["image_url"]["url"]) for part in parts if part["type"] == "image_url")
        return saying("<think>I see.</think>\n<answer>grey</answer>") if body else (404, {})

    with loopback.serving(answer) as (url, _):
        yield f"{url}/v1", shown


def _opened(url: str) -> Image.Image:
    parts = urlsplit(url)
    data = Path(unquote(parts.path)).read_bytes() if parts.scheme == "file" else base64.b64decode(url.partition(",")[2])
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((280, 196), 60).convert("RGB").save(path)
    return path


def test_a_png_has_every_pixel() -> None:
    for size in ((1, 1), (3, 2), (37, 29), (200, 1), (1, 200)):
        for image in (Image.effect_noise(size, 90).convert("RGB"), Image.new("RGB", size, (255, 0, 7))):
            with Image.open(io.BytesIO(png(image))) as found:
                assert (found.format, found.mode, found.size, found.tobytes()) == ("PNG", "RGB", size, image.tobytes())


def test_pixels_arrive_as_they_are_or_as_jpeg_which_is_recorded(path: Path, tmp_path: Path) -> None:
    pixels = Image.open(path).tobytes()
    folder = tmp_path / "with space"
    folder.mkdir()
    for given, kind, recorded in (
        ({}, "PNG", None),
        ({"image_folder": str(folder)}, "BMP", None),
        ({"jpeg": 90}, "JPEG", 90),
    ):
        with seeing() as (url, shown):
            found = Agent("qwen2.5-vl", base_url=url, **given).ask(path, "Which colour?")
        (image,) = shown
        assert (found.answer, image.format, image.size) == ("grey", kind, (280, 196))
        assert (image.tobytes() == pixels) is (kind != "JPEG")
        assert found.settings.get("jpeg") == recorded


def test_files_are_kept_as_long_as_there_is_room(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    kept: LRUCache[str] = LRUCache(70 * 70 * 3 * 2, files.drop)
    for number in range(4):
        image = Image.new("RGB", (64, 64), (number, 0, 0))
        kept.get(number, lambda image=image, number=number: files.url(image, str(number)), files.cost)  # type: ignore[misc]
    assert sorted(file.name for file in tmp_path.rglob("*.bmp")) == ["2.bmp", "3.bmp"]


def test_what_is_no_way_to_send_images(tmp_path: Path) -> None:
    for given, words in (
        ({"jpeg": 0}, "jpeg must be from 1 to 100"),
        ({"jpeg": 90, "image_folder": "x"}, "two ways to send images"),
    ):
        with pytest.raises(InputError, match=words):
            AgentConfig("openai:qwen2.5-vl", **given)
    with pytest.raises(InputError, match="cannot write images to .*: No such file"):
        Agent("qwen2.5-vl", base_url="http://127.0.0.1:9/v1", image_folder=str(tmp_path / "gone"))
    with pytest.raises(InputError, match="--jpeg is for served models"):
        Agent("nano", jpeg=90)
