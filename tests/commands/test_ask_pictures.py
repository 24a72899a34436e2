"""`cof ask` with images from standard input, addresses, folders and patterns."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from cof_agent.cli import main
from cof_agent.commands import pictures
from cof_agent.data.fetch import Fetcher
from cof_agent.errors import InputError
from cof_agent.image import open_source
from cof_agent.trajectory import Trajectory, read_jsonl

ANSWERED, BAD_INPUT, UNANSWERED = 0, 2, 3


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> str:
    """A nano that has learned nothing: it babbles."""
    return str(checkpoint("qwen2_5_vl"))


def png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.png", "deeper/c.png"):
        (tmp_path / "in" / name).write_bytes(png())
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image either")
    return tmp_path / "in"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_image_of_a_folder_is_a_question(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ask", str(folder), "What is it?", "--model", model, "--max-tokens", "4", "--quiet"]
    command += ["-o", str(tmp_path / "out")]
    assert main(command) == UNANSWERED  # the model knows no answer
    found = lines(capsys)
    names = ["a.png", "b.png", "broken.jpg", "deeper/c.png"]
    assert [line["image"] for line in found] == [str(folder / name) for name in names]
    assert [line["stop"] for line in found] == ["truncated", "truncated", "error", "truncated"]
    assert "in no image format" in str(found[2]["error"])
    assert [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()] == found
    stored = (tmp_path / "out" / "trajectories.jsonl").read_bytes()
    (folder / "broken.jpg").write_bytes(png())
    assert main(command) == UNANSWERED  # which plays what failed only
    assert [line["stop"] for line in lines(capsys)] == ["truncated"] * 4
    assert stored.splitlines()[:2] == (tmp_path / "out" / "trajectories.jsonl").read_bytes().splitlines()[:2]


def test_an_image_of_another_size_is_no_longer_the_one_that_was_asked_about(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ask", str(folder), "What is it?", "--model", model, "--max-tokens", "4", "--quiet"]
    command += ["-o", str(tmp_path / "out")]
    assert main(command) == UNANSWERED
    before = lines(capsys)
    newer = (tmp_path / "out" / "trajectories.jsonl").stat().st_mtime + 9
    os.utime(folder / "a.png", (newer, newer))
    assert main(command) == UNANSWERED
    shown = capsys.readouterr()
    assert [json.loads(line) for line in shown.out.splitlines()] == before
    assert "1 of the images are newer than the answers" in shown.err
    Image.new("RGB", (30, 20)).save(folder / "a.png")
    assert main(command) == BAD_INPUT
    assert "a.png has 30 x 20 pixels, and had 300 x 200" in capsys.readouterr().err


def test_pictures_that_a_command_has_written_are_no_questions(folder: Path) -> None:
    kept = f"out/images/{'0a' * 12}.png"
    for name in ("out/trajectory.png", kept, "trajectory.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png())
    for name in ("out/trajectories.jsonl", "trajectory.jsonl"):
        (folder / name).write_text("")
    found = pictures.find(str(folder))
    assert found is not None
    assert found.paths == tuple(str(folder / name) for name in ("a.png", "b.png", "broken.jpg", "deeper/c.png"))
    (folder / "deeper" / "trajectories.jsonl").write_text("")  # of `cof ask deeper ... -o deeper`
    assert pictures.find(str(folder)) == found


def test_a_pattern(model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = str(folder / "**" / "*.png")
    assert main(["ask", pattern, "?", "--model", model, "--max-tokens", "4", "--quiet", "--json"]) == UNANSWERED
    assert [Path(str(line["sample"]["image"])).name for line in lines(capsys)] == ["a.png", "b.png", "c.png"]  # type: ignore[index]


def test_each_page_of_a_pdf_file(folder: Path) -> None:
    pytest.importorskip("pypdfium2")
    page = Image.new("RGB", (30, 20), "red")
    page.save(folder / "d.pdf", save_all=True, append_images=[page])
    page.save(folder / "e.pdf")
    (folder / "f.pdf").write_text("no page")
    found = pictures.find(str(folder / "*.pdf"))
    names = ["d.pdf#page=1", "d.pdf#page=2", "e.pdf", "f.pdf"]
    assert found is not None and found.paths == tuple(str(folder / name) for name in names)
    found = pictures.find(str(folder / "e.pdf#page=*"))
    assert found is not None and found.each and found.paths == (str(folder / "e.pdf#page=1"),)
    with pytest.raises(InputError, match="damaged"):
        pictures.find(str(folder / "f.pdf#page=*"))
    with pytest.raises(InputError, match="no such file"):
        pictures.find(str(folder / "g.pdf#page=*"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(png())
    assert pictures.find(str(tmp_path / "a[1].png")) is None
    assert pictures.find("https://example.org/a.png?x=[1]") is None


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([str(tmp_path / "empty")], "has no images."),
        ([str(folder / "*.gif")], "no file matches"),
        ([str(folder), "--image", "x.png"], "leave --image out."),
        ([str(folder), "--region", "1,2,3,4"], "are of one image"),
        (["https://example.org/a.png"], "is an address; with --download it is fetched."),
        (["http://127.0.0.1:9/a.png", "--download"], "'127.0.0.1' is no public address."),
        (["http://[::1]:9/a.png", "--download"], "'::1' is no public address."),
        ([str(folder / "a.png"), "--font", str(folder / "notes.txt")], "notes.txt is no font that can be read"),
        ([str(folder / "a.png"), "--image", "http://10.0.0.1/a.png", "--download"], "'10.0.0.1' is no public address."),
    ):
        image, *others = arguments
        assert main(["ask", image, "What is it?", *others]) == BAD_INPUT
        shown = capsys.readouterr()
        assert shown.out == "" and words in shown.err and shown.err.count("\n") == 1


class _Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_standard_input_is_kept_beside_the_trajectory(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ask", "-", "What is it?", "--model", model, "--max-tokens", "4", "--quiet"]
    monkeypatch.setattr(sys, "stdin", _Stdin(png()))
    assert main([*command, "-o", str(tmp_path / "out")]) == UNANSWERED
    (trajectory,) = read_jsonl(tmp_path / "out" / "trajectory.jsonl", Trajectory)
    image = Path(trajectory.sample.image)
    assert image.parent == tmp_path / "out" / "images" and image.read_bytes() == png()
    monkeypatch.setattr(sys, "stdin", _Stdin(b""))
    assert main(command) == BAD_INPUT
    assert "standard input is empty" in capsys.readouterr().err


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = png("red")
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.png"
    server.shutdown()
    server.server_close()


def test_what_is_fetched_is_a_file(site: str, tmp_path: Path) -> None:
    here = Fetcher(10_000, allowed=lambda address: str(address) == "127.0.0.1")
    path = pictures.taken(site, tmp_path, here)
    assert Path(path).suffix == ".png" and open_source(path).size.width == 300
    assert pictures.taken(site, tmp_path, here) == path
    with pytest.raises(InputError, match="is no public address"):
        pictures.taken(site, tmp_path, Fetcher(10_000))
    with pytest.raises(InputError, match="is larger than 100 bytes"):
        pictures.taken(site, tmp_path, Fetcher(100, here.allowed))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names of files are text")
def test_a_name_that_is_no_text_is_written_all_the_same(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in (b"a.png", b"caf\xe9.png"):
        (Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name))).write_bytes(png())
    main(["ask", str(tmp_path / "in"), "What?", "--model", model, "--max-tokens", "2", "-o", str(tmp_path / "out")])
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.png", "caf\udce9.png"]
    assert "caf" in capsys.readouterr().out
    main(["ask", str(tmp_path / "in"), "What?", "--model", model, "--max-tokens", "2", "-o", str(tmp_path / "out")])
    assert len((tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()) == 2  # none was asked again
