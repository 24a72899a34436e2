"""Rollouts in the trackers: the pictures and words that their own files hold afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK

from cof_agent.trajectory import Trajectory
from rl.pictures import MOST, RolloutPictures, chosen, fenced
from tests.rl.events import events
from tests.viewer.drawn import NASTY, TARGET, crop, draw_field, is_close, trajectory, zoom


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Trajectory]:
    """Three groups of two, of which the first has no variance."""
    image = draw_field(tmp_path_factory.mktemp("played") / "field.png")
    good = trajectory(image, zoom(crop(TARGET)))
    bad = trajectory(image, zoom(crop(TARGET), f"```\n````\n{NASTY}"), answer="# 9")
    return [
        replace(one, step=3, group=f"3-0-{group}", advantage=advantage, rewards={"accuracy": max(0.0, advantage)})
        for group, one, advantage in [
            (0, good, 0),
            (0, good, 0),
            (1, bad, -1),
            (1, good, 1),
            (2, good, 1),
            (2, bad, -1),
        ]
    ]


def log(tracker: str, played: Sequence[Trajectory], folder: Path) -> None:
    """What a training does at its begin, at the end of its fourth step, and at its end, by transformers' own callback."""
    args = TrainingArguments(output_dir=str(folder), report_to=[], use_cpu=True, run_name="run")
    state, control = TrainerState(), TrainerControl()
    own: Any = INTEGRATION_TO_CALLBACK[tracker]()
    pictures = RolloutPictures(2, [own, TrainerCallback()])
    own.on_train_begin(args, state, control, model=None)
    pictures.take(played)
    for state.global_step in (3, 4):
        pictures.on_step_end(args, state, control)
    own.on_train_end(args, state, control, model=None)


def test_the_best_and_the_worst_of_a_group_are_shown(played: list[Trajectory]) -> None:
    found = chosen(played)
    assert [(one.group, one.advantage) for one in found] == [("3-0-1", 1), ("3-0-1", -1), ("3-0-2", 1), ("3-0-2", -1)]
    assert [one.group for one in chosen(played[:3])] == ["3-0-0", "3-0-1"]
    assert len(chosen(played * 3)) == MOST


def test_tensorboard_has_pictures_and_words(played: list[Trajectory], tmp_path: Path) -> None:
    log("tensorboard", played, tmp_path)
    found = [one for one in events(tmp_path) if one[1].startswith("rollouts/")]
    assert [(step, tag) for step, tag, _ in found] == [(4, f"rollouts/{place}") for place in (1, 1, 2, 2, 3, 3, 4, 4)]
    for picture in (value for _, _, value in found if isinstance(value, Image.Image)):
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**6) or []}
        assert any(is_close(one, "#ffee00") for one in colours) and any(is_close(one, "#ff4d2e") for one in colours)
    right, wrong = (value for _, _, value in found[:4] if isinstance(value, str))
    assert "question: What is on it?\nanswer: 7K (right)\ntruth: 7K\nrewards: accuracy 1\n" in right
    assert "answer: # 9 (wrong)" in wrong and "step: 4, group 3-0-1, sample one" in wrong
    assert wrong.startswith("`````\n") and wrong.endswith("\n`````")
    assert "\u2028" not in wrong  # nor other control characters


def test_no_text_closes_its_fence() -> None:
    for text in ("", "plain", "```", "a\n`````\n<b>", "``` ````\n```", "~~~\n"):
        fence, *lines, end = fenced(text).split("\n")
        assert re.fullmatch("`{3,}", fence) and end == fence and fence not in text
        assert "\n".join(lines) == text


def test_without_its_picture_a_rollout_is_left_out(
    played: list[Trajectory], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = [replace(one, sample=replace(one.sample, image=str(tmp_path / "gone.png"))) for one in played]
    log("tensorboard", gone, tmp_path)
    assert not [tag for _, tag, _ in events(tmp_path) if tag.startswith("rollouts/")]
    assert "a rollout of sample one has no picture" in caplog.text


def test_trackio_has_pictures_with_words(
    played: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    log("trackio", played, tmp_path)
    (entry,) = (one for one in SQLiteStorage.get_logs("huggingface", "run") if "rollouts/1" in one)
    assert entry["train/global_step"] == 4
    shown = [entry[f"rollouts/{place}"] for place in range(1, MOST + 1)]
    assert "answer: 7K (right)" in shown[0]["caption"] and "answer: # 9 (wrong)" in shown[1]["caption"]
    assert {Image.open(tmp_path / "media" / one["file_path"]).width > 1000 for one in shown} == {True}


def test_wandb_has_pictures_with_words(
    played: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    log("wandb", played, tmp_path)
    wandb.teardown()  # as the end of the process does
    (record,) = tmp_path.rglob("*.wandb")
    content = record.read_bytes()
    assert b"answer: 7K (right)" in content and b"answer: # 9 (wrong)" in content
    assert len(list(tmp_path.rglob("media/images/rollouts/*.png"))) == MOST
