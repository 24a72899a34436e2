"""`cof data`: the table, the examples, and our own layout that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cof_agent.cli import main as cof
from cof_agent.data.samples import read_samples
from tests.data import layouts

pytest.importorskip("pyarrow")


def test_a_table_and_three_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = layouts.pictures(tmp_path)
    made = layouts.rows(
        lambda n: {"image": names[n], "question": layouts.QUESTIONS[n], "choices": layouts.CHOICES[n], "answer": "A"}
    )
    several = made[0] | {"image": names, "question": "<image> <image>Which?"}
    both = made[0] | {"image": names[:2]}
    spec = layouts.as_json(tmp_path / "set.json", [*made, made[0] | {"image": "lost.png"}, several, both])
    assert cof(["data", str(spec)]) == 0
    printed = capsys.readouterr().out
    counts = {
        cells[0]: cells[1]
        for line in printed.splitlines()
        if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 2
    }
    assert counts == {
        "rows read": "6",
        "samples": "4",
        "with choices": "4",
        "with a known answer": "4",
        "with boxes": "0",
        "with several images": "1",
        "left out": "2",
        "image file not found": "1",
        "more or fewer images than marks for them": "1",
    }
    assert "image file not found: say with --images DIR" in printed
    assert "Which colour has the kite?\nA. green\nB. red\nC. blue\nanswer: green\n" in printed
    assert printed.count("\nanswer: ") == 3
    assert cof(["data", str(spec), "--strict"]) == 2
    assert "2 of 6 rows are left out" in capsys.readouterr().err


def test_our_own_layout_is_written_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, out = layouts.verl(tmp_path), tmp_path / "out"
    assert cof(["data", str(spec), "-o", str(out), "--quiet"]) == 0
    assert "answer: " not in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert all(line["image"].startswith("images/") for line in lines) and not (out / "left_out.jsonl").exists()
    found = read_samples(out)
    assert [(one.question, *one.answers) for one in found] == list(zip(layouts.QUESTIONS, layouts.ANSWERS, strict=True))
    assert cof(["data", str(out), "-o", str(out)]) == 2
    assert "is what is read; use another output folder" in capsys.readouterr().err
    written = (out / "samples.jsonl").read_bytes()
    assert cof(["data", str(spec), "-o", str(out), "--samples", "1"]) == 2
    assert "holds something else" in capsys.readouterr().err and (out / "samples.jsonl").read_bytes() == written
    assert cof(["data", str(spec), "-o", str(out)]) == 0


def test_warnings_do_not_reach_the_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.pictures(tmp_path, "{}.png")
    rows = [{"image": f"{name}.png", "question": "What?", "answers": ["it"]} for name in ("0", "lost")]
    folder = tmp_path / "set\x1b[31m"
    folder.mkdir()
    layouts.as_lines(folder / "samples.jsonl", [{**row, "image": f"../{row['image']}"} for row in rows])
    assert cof(["eval", "--data", str(folder), "-o", str(tmp_path / "out"), "--max-tokens", "2"]) == 0
    said = capsys.readouterr().err
    assert "set\\u001b[31m: 1 of 2 rows are left out" in said and "\x1b" not in said


def test_the_options_say_how_a_set_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set").mkdir()
    made = layouts.rows(
        lambda n: {"extra": {"asked": layouts.QUESTIONS[n], "where": f"{n}.png"}, "truth": layouts.ANSWERS[n]}
    )
    spec = layouts.as_json(tmp_path / "set" / "rows.json", made)
    layouts.pictures(tmp_path, "photos/{}.png")
    columns = ["--column", "question=extra.asked", "--column", "image=extra.where", "--column", "answer=truth"]
    out = tmp_path / "out"
    assert (
        cof(["data", str(spec), *columns, "--images", str(tmp_path / "photos"), "--samples", "2", "-o", str(out)]) == 0
    )
    found = read_samples(out)
    assert [one.question for one in found] == list(layouts.QUESTIONS[:2])
    assert found[0].image == str(tmp_path / "photos" / "0.png")
    assert cof(["data", str(spec), "--column", "question"]) == 2
    assert "--column must be NAME=COLUMN" in capsys.readouterr().err
    assert cof(["data", str(spec), *columns, "--boxes", "xywh"]) == 2
    assert "--boxes must be one of" in capsys.readouterr().err
    assert cof(["data", str(tmp_path / "missing.json")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
