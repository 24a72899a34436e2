"""Curves of RL runs: which state is read, what is drawn, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import rl_curves


def written(folder: Path, steps: int) -> Path:
    """A state such as transformers saves it, in which the last step was logged twice."""
    log = [{"step": step, "reward": step / 10, "zooms/mean": 1.0, "entropy": 0.5} for step in range(1, steps + 1)]
    folder.mkdir(parents=True)
    state = {
        "global_step": steps,
        "log_history": [{"step": steps, "reward": -1.0}, *log, {"step": steps, "train_loss": 0.0}],
    }
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_the_newest_state_is_read(tmp_path: Path) -> None:
    for steps in (2, 10):
        written(tmp_path / f"checkpoint-{steps}", steps)
    curves = rl_curves.curves_of(rl_curves.history(tmp_path))
    assert list(curves) == ["reward", "zooms/mean", "entropy"]
    assert curves["reward"] == [(step, step / 10) for step in range(1, 11)]


def test_a_thick_line_is_a_mean_over_the_last_steps() -> None:
    assert rl_curves.smoothed([(1, 1.0), (2, 3.0), (3, 8.0)], 2) == [(1, 1.0), (2, 2.0), (3, 5.5)]


def test_runs_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [str(written(tmp_path / name, 5)) for name in ("one$", "two")]
    assert rl_curves.main([*runs, "-o", str(tmp_path / "new" / "curves.png")]) == 0
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.width > picture.height


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "trainer_state.json").write_text('{"global_step": 3')
    for name, said in (("empty", "has no trainer_state.json"), ("cut", "cannot be read")):
        assert rl_curves.main([str(tmp_path / name), "-o", str(tmp_path / "curves.png")]) == 2
        assert said in capsys.readouterr().err
    assert rl_curves.main([str(written(tmp_path / "run", 3)), "-o", str(tmp_path / "curves.nothing")]) == 2
    assert "cannot write" in capsys.readouterr().err
