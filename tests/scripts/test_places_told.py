"""`scripts/places_told.py` counts wrong answers whose places are right."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, to_json

SIZE = Size(1920, 1080)


def answered(number: int, told: str, answer: str) -> Trajectory:
    """The first thing is at [150, 35] of the overview, the second at [35, 150]."""
    looks = [{"name": "it", "boxes": [box], "detail": 3} for box in ([600, 100, 700, 200], [100, 600, 200, 700])]
    sample = Sample(str(number), "a.png", "?", ("right",), metadata={"category": "relative_position", "looks": looks})
    view = View(SIZE, Box(0, 0, 1920, 1080), Size(448, 252))
    return Trajectory(sample, view, (Turn(told, ()),), StopReason.ANSWERED, answer)


def test_wrong_answers_with_right_places_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, other = (
        "The one is at [152, 36], the other at [36, 152].",
        "The one is at [36, 152], the other at [152, 36].",
    )
    replies = ((right, "left"), (other, "left"), ("It is there.", "left"), (right, "right"))
    played = [answered(number, *reply) for number, reply in enumerate(replies)]
    (tmp_path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in played))
    script = str(Path(__file__).parents[2] / "scripts" / "places_told.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    runpy.run_path(script, run_name="__main__")
    assert capsys.readouterr().out == f"{tmp_path}: of 3 wrong answers 1 name both places rightly\n"
