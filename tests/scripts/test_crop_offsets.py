"""`scripts/crop_offsets.py` counts answers by where in the crop their thing lies."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Observation, Sample, StopReason, Trajectory, Turn, Zoom, to_json

SIZE = Size(1920, 1080)


def answered(corner: int, answer: str) -> Trajectory:
    """The thing is 100 pixels wide, the crop 200, from this corner on."""
    looks = [{"name": "it", "boxes": [[500, 500, 600, 600]], "detail": 3}]
    sample = Sample(str(corner), "a.png", "?", ("red",), metadata={"category": "direct_attributes", "looks": looks})
    crop = View(SIZE, Box(corner, 450, corner + 200, 650), Size(196, 196))
    turn = Turn("", (Zoom((0, 0, 1, 1)),), (Observation(view=crop),))
    return Trajectory(sample, View(SIZE, Box(0, 0, 1920, 1080), Size(448, 252)), (turn,), StopReason.ANSWERED, answer)


def test_answers_are_counted_by_the_place_in_the_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played = [answered(450, "red"), answered(460, "blue"), answered(410, "red"), answered(550, "red")]
    (tmp_path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in played))
    script = str(Path(__file__).parents[2] / "scripts" / "crop_offsets.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    runpy.run_path(script, run_name="__main__")
    assert capsys.readouterr().out == "at most 0.15: 1 of 2 right\nmore: 1 of 1 right\n"
