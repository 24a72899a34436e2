"""Commands on samples of several images: how they are given, and who leaves them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cof_agent.cli import main as cof
from cof_agent.trajectory import Trajectory, read_jsonl, to_json
from tests.pairs import pair


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with samples.jsonl, one sample of two images, and what looks like a checkpoint."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "samples.jsonl").write_text(to_json(pair(tmp_path)) + "\n")
    return tmp_path


def test_ask_takes_further_images(
    here: Path, checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(here / "0.png"), str(here / "1.png")
    asked = ["ask", first, "Which is older?", "--image", second]
    cof(
        [
            *asked,
            "--model",
            str(checkpoint("qwen2_vl")),
            "--max-tokens",
            "2",
            "--overview-pixels",
            "40000",
            "-o",
            str(here / "out"),
        ]
    )
    assert "image 1: 560 x 1120 shown at 140 x 280" in capsys.readouterr().out
    (played,) = read_jsonl(here / "out" / "trajectory.jsonl", Trajectory)
    assert played.sample.images == (first, second) and (here / "out" / "trajectory.png").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--image", "gone.png"], "cannot open the image gone.png"),
        (["--image", "1.png", "--strategy", "tree"], "0.png has 2 images, but the strategy tree looks at one"),
        (["--image", "1.png", "--region", "1,2,30,40"], "has regions and 2 images"),
    ],
)
def test_ask_refuses_before_a_model_is_loaded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    monkeypatch.chdir(here)
    assert cof(["ask", "0.png", "Which?", "--model", str(here), *given]) == 2
    assert said in capsys.readouterr().err


def test_what_looks_at_one_image_refuses_a_set_of_several(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(here), "-o", str(here / "out")]
    for command in (
        ["eval", "--strategy", "grid"],
        ["rollout", "--strategy", "spot"],
        ["collect"],
        ["spots"],
    ):
        assert cof([*command, *data]) == 2
        assert "1 of 1 rows are left out (1 several images)" in capsys.readouterr().err


def test_some_are_left_out_and_listed(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = {"image": "0.png", "question": "Which?", "answer": "left"}
    with open(here / "samples.jsonl", "a") as file:
        file.write(json.dumps(alone) + "\n")
    out = here / "out"
    assert cof(["collect", "--data", str(here), "-o", str(out)]) == 2  # the other has no boxes for the locator
    assert f"1 of 2 rows are left out (1 several images), listed in {out / 'left_out.jsonl'}" in caplog.text
    assert json.loads((out / "left_out.jsonl").read_text())["reason"] == "several images"


def test_data_writes_several_images_as_a_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cof(["data", str(here), "-o", str(here / "out")]) == 0
    assert f"images: {here / '0.png'}, {here / '1.png'}" in capsys.readouterr().out
    line = json.loads((here / "out" / "samples.jsonl").read_text())
    assert [Path(path).name for path in line["images"]] == ["0.png", "1.png"] and "image" not in line
