"""What a row says about its image, and the file that comes of it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.data.fetch import Fetcher
from cof_agent.data.image_files import ImageFiles
from cof_agent.data.images import images_in, is_base64_image, is_video, kind_of_image, references
from cof_agent.data.unusable import IMAGE_BY_URL, IMAGE_MISSING, NOT_AN_IMAGE, Unusable
from cof_agent.geometry import Size
from tests.data.layouts import picture, text_of

PNG = picture(0)
HERE = Fetcher(allowed=lambda address: str(address) == "127.0.0.1")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("photos/a.png", "path"),
        ("file:///photos/a%20b.png", "path"),
        ("https://example.org/a.png", "url"),
        (f"data:image/png;base64,{text_of(0)}", "base64"),
        (text_of(0), "base64"),
        ("\n".join(text_of(0)[start : start + 76] for start in range(0, len(text_of(0)), 76)), "base64"),
        (base64.urlsafe_b64encode(PNG).decode(), "base64"),
        (text_of(0).encode(), "base64"),
        (PNG, "bytes"),
        ({"bytes": PNG, "path": "a.png"}, "bytes"),
        ({"bytes": None, "path": "a.png"}, "path"),
        ({"image": "a.png"}, "path"),
        ({"url": "https://example.org/a.png"}, "url"),
        ({"image_url": {"url": "https://example.org/a.png"}}, "url"),
        (["a.png"], "path"),
        ('["a.png"]', "path"),
    ],
)
def test_an_image_in_each_shape(value: Any, kind: str) -> None:
    (found,) = references(value)
    assert found.kind == kind


def test_what_refers_to_no_image() -> None:
    nothing: list[Any] = [None, "", " ", [], {}, 7, {"bytes": None, "path": None}, "two\nlines", b""]
    for value in nothing:
        assert references(value) == []
    assert references("file:///a%20b.png")[0].value == "/a b.png"
    assert references("a.png###[1, 2, 3, 4]")[0].box == "[1, 2, 3, 4]"


def test_base64_is_told_from_names() -> None:
    for text in ("iVBORw0KGgo.png", "abcdefghijklmnop", "images/photo12345678", "AAAAAAAAAAAAAAAAAAAAAAAA"):
        assert not is_base64_image(text)


def test_kinds_by_the_first_bytes() -> None:
    for head, kind in (
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF0000WEBPVP8 ", "webp"),
        (b"GIF89a", "gif"),
        (b"text", None),
    ):
        assert kind_of_image(head) == kind


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"image": "a.png", "question": "b.png?"}, ["a.png"]),
        ({"images": ["a.png", "b.png"]}, ["a.png", "b.png"]),
        ({"image_2": "b.png", "image_1": "a.png", "image_10": "c.png", "image_3": None}, ["a.png", "b.png", "c.png"]),
        ({"image": "a.png", "image_2": "b.png"}, ["a.png", "b.png"]),
        ({"image_id": 7, "image_path": "a.png"}, ["a.png"]),
        ({"file_name": "a.png", "image_caption": "kite.png"}, ["a.png"]),
        ({"figure_path": "a.png", "thumbnail": "t.png"}, ["a.png"]),
        ({"photo": "a", "size": "b.png"}, ["a"]),
        ({"Image": "a"}, ["a"]),
        ({"question": "What is in a.png"}, []),
        ({"image": {"bytes": PNG, "path": None}, "crop_image": {"bytes": picture(1), "path": None}}, [PNG]),
        ({"image": "lost.png", "decoded_image": {"bytes": PNG, "path": None}}, [PNG]),
        ({"image": "a.png", "masked_image": {"bytes": PNG, "path": None}}, ["a.png"]),
        ({"blob": PNG, "sound": b"RIFF0000WAVE"}, [PNG]),
    ],
)
def test_the_column_of_the_image(row: dict[str, Any], found: list[Any]) -> None:
    assert [one.value for one in images_in(row)] == found


def test_videos() -> None:
    assert is_video({"video": "a.mp4"}) and is_video({"is_video": True}) and is_video({"videos": ["a"]})
    assert not is_video({"is_video": False, "video": None, "videos": [], "video_id": 3})
    assert not is_video({"video": 0}) and not is_video({"videos": [None], "has_video": "no"})


def taken(value: Any, files: ImageFiles, **how: Any) -> Path:
    (ref,) = references(value)
    return Path(files.take(ref, **how).path)


def test_an_image_in_a_row_is_written_once(tmp_path: Path) -> None:
    files = ImageFiles([tmp_path], tmp_path / "kept")
    shapes: list[Any] = [PNG, text_of(0), {"bytes": PNG, "path": "x.jpg"}, f"data:image/png;base64,{text_of(0)}"]
    paths = {taken(shape, files) for shape in shapes}
    (path,) = paths
    assert path.read_bytes() == PNG and path.suffix == ".png"
    assert [one.name for one in (tmp_path / "kept").iterdir()] == [path.name]
    (ref,) = references(picture(1))
    assert files.take(ref, write=False).path == "" and len(list((tmp_path / "kept").iterdir())) == 1
    assert files.take(ref, measure=True, write=False).size == Size(400, 300)


@pytest.mark.parametrize("value", [b"no image at all", "data:image/png;base64,!!!!", {"bytes": b"GIF9", "path": None}])
def test_what_is_no_image(value: Any, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as found:
        taken(value, ImageFiles([tmp_path], tmp_path / "kept"))
    assert found.value.reason == NOT_AN_IMAGE


def test_a_path_is_looked_for_in_each_folder_and_then_below(tmp_path: Path) -> None:
    for name in ("a/x.png", "deep/er/set/y.png", "one/z.png", "two/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    files = ImageFiles([tmp_path, tmp_path / "a"], None)
    assert taken("./a/x.png", files) == taken("x.png", files) == tmp_path / "a/x.png"
    assert taken(str(tmp_path / "a/x.png"), files) == tmp_path / "a/x.png"
    assert taken("set/y.png", files) == tmp_path / "deep/er/set/y.png"
    for lost in ("z.png", "other/y.png", "none.png", "/"):
        with pytest.raises(Unusable) as found:
            taken(lost, files)
        assert found.value.reason == IMAGE_MISSING


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    files = ImageFiles([tmp_path], None)
    for value in ("turned.jpg", (tmp_path / "turned.jpg").read_bytes()):
        (ref,) = references(value)
        assert files.take(ref, measure=True, write=False).size == Size(40, 60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the folder `tmp_path / "served"`, which holds a picture and a text."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.png").write_bytes(PNG)
    (tmp_path / "served" / "b.txt").write_text("text")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            broken = {
                "/garbage.png": b"no HTTP\r\n\r\n",
                "/cut.png": b"HTTP/1.0 200 OK\r\nContent-Length: 9999\r\n\r\n" + PNG,
            }
            if self.path in broken:
                self.wfile.write(broken[self.path])
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_urls_are_fetched_only_on_demand_and_once(served: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as found:
        taken(f"{served}/a.png", ImageFiles([tmp_path], tmp_path / "kept"))
    assert found.value.reason == IMAGE_BY_URL
    files = ImageFiles([tmp_path], tmp_path / "kept", fetcher=HERE)
    path = taken(f"{served}/a.png", files)
    assert path.read_bytes() == PNG
    (tmp_path / "served" / "a.png").unlink()
    assert taken(f"{served}/a.png", files) == path
    for name, reason in (
        ("b.txt", NOT_AN_IMAGE),
        ("none.png", IMAGE_MISSING),
        ("garbage.png", IMAGE_MISSING),
        ("cut.png", IMAGE_MISSING),
    ):
        with pytest.raises(Unusable) as found:
            taken(f"{served}/{name}", files)
        assert found.value.reason == reason
    with pytest.raises(Unusable, match="'127.0.0.1' is no public address") as found:
        taken(f"{served}/private.png", ImageFiles([tmp_path], tmp_path / "kept", fetcher=Fetcher()))
    assert found.value.reason == IMAGE_MISSING
    with pytest.raises(Unusable, match="larger than 3 bytes") as found:
        taken(f"{served}/b.txt", ImageFiles([tmp_path], tmp_path / "kept", fetcher=Fetcher(3, HERE.allowed)))
    assert found.value.reason == NOT_AN_IMAGE
