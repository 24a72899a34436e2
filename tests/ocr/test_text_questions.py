"""A drawn notice through both real engines: questions of it, trajectories, and what is said where something is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from cof_agent.cli import main as cof
from cof_agent.ocr.relations import RULES
from cof_agent.ocr.tesseract import Tesseract
from cof_agent.trajectory import Trajectory, Zoom, read_jsonl

NOTICE = (
    "Opening hours of the harbour museum",
    "Tuesday until Sunday morning",
    "Annual ticket",
    "Guided tours on request",
)
PRICE = "45.50"

needs_rapid = pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra ocr")
needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs the program tesseract")


@pytest.fixture(scope="module")
def notice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of 30 pixels in a corner of a picture of 1600 x 1000 whose overview in the tests is a seventh as large."""
    image, font = Image.new("RGB", (1600, 1000), "white"), ImageFont.load_default(size=30)
    drawing = ImageDraw.Draw(image)
    for number, text in enumerate(NOTICE):
        drawing.text((900, 600 + 40 * number), text, fill="black", font=font)
    drawing.text((1300, 600 + 40 * 2), PRICE, fill="black", font=font)
    path = tmp_path_factory.mktemp("pictures") / "board.png"
    image.save(path)
    return path


def make(spec: Path, output: Path, *options: str) -> int:
    small = ("--overview-pixels", "30000", "--per-picture", "9")
    return cof(["data", str(spec), "--make", "text-questions", "-o", str(output), "--quiet", *small, *options])


@pytest.mark.slow
@needs_rapid
@needs_tesseract
def test_a_notice_becomes_questions_and_trajectories(notice: Path, tmp_path: Path) -> None:
    made, collected = tmp_path / "made", tmp_path / "collected"
    assert make(notice.parent, made) == 0
    rows = [json.loads(row) for row in (made / "samples.jsonl").read_text("utf-8").splitlines()]
    answers = {row["question"]: row["answers"] for row in rows}
    assert answers == {
        "Which word comes right after “Opening hours of the”?": ["harbour"],
        "Which number comes first to the right of “Annual ticket”?": [PRICE],
    }

    record = (made / "pictures.jsonl").read_bytes()
    assert make(notice.parent, made) == 0
    assert (made / "pictures.jsonl").read_bytes() == record, "what was read is read once"
    assert make(notice.parent, made, "--seed", "1") == 2
    older = tmp_path / "older"
    older.mkdir()
    (older / "pictures.jsonl").write_bytes(record.replace(f',"rules":{RULES}'.encode(), b""))
    assert (older / "pictures.jsonl").stat().st_size < len(record)
    assert make(notice.parent, older) == 2, "other rules would have asked otherwise"

    roles = ["--locator", "ocr", "--describer", "ocr", "--resolutions", "224", "--quiet"]
    assert cof(["collect", "--data", str(made), "-o", str(collected), *roles]) == 0
    kept = list(read_jsonl(collected / "trajectories.jsonl", Trajectory))
    assert len(kept) == len(rows)
    for one in kept:
        (look,) = (action for turn in one.turns for action in turn.actions if isinstance(action, Zoom))
        assert one.answer == one.sample.answers[0] and look.image == 0


@pytest.mark.slow
@needs_rapid
@needs_tesseract
def test_what_the_overview_shows_is_not_asked(notice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(notice, tmp_path / "made", "--overview-pixels", "2000000") == 2
    assert "the overview shows every answer; a smaller one shows less" in capsys.readouterr().err
    assert not (tmp_path / "made" / "samples.jsonl").exists()


@needs_tesseract
def test_the_second_engine_reads_words(notice: Path) -> None:
    with Image.open(notice) as image:
        words = Tesseract().read(image)
    assert {"harbour", "museum", "Annual", PRICE} <= {word.text for word in words}
    museum = next(word for word in words if word.text == "museum")
    assert 900 < museum.box.x0 < museum.box.x1 < 1600 and 590 < museum.box.y0 < museum.box.y1 < 645


def test_what_is_missing_is_named(
    notice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make(notice, tmp_path / "made") == 2
    assert "needs the program tesseract: apt-get install tesseract-ocr" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--make", "text-questions"], "name it with -o DIR"),
        (["--make", "text-questions", "-o", "out", "--split", "test"], "--split is for rows of a data set"),
        (["-o", "out", "--per-picture", "5"], "--per-picture is for making questions; add --make text-questions"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str],
    sentence: str,
    notice: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cof(["data", str(notice), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_describer_takes_text_questions_only(
    notice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"image": str(notice), "question": "What is this?", "answer": "a notice", "boxes": [[1, 1, 90, 90]]}
    spec = tmp_path / "rows.jsonl"
    spec.write_text(json.dumps(row), "utf-8")
    assert cof(["collect", "--data", str(spec), "-o", str(tmp_path / "out"), "--describer", "ocr"]) == 2
    assert "1 of 1 samples are no questions of `cof data --make text-questions`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
