"""The gallery: every chosen trajectory has its picture, and none lies over another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import CoordinateSystem
from cof_agent.scenes import oracle
from cof_agent.trajectory import to_json
from tests.scenes.shared import Scenes

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import gallery


def test_a_picture_of_trajectories(drawn: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE))
    played = [oracle.play(one, environment.reset(one), environment) for one in read_samples(drawn(4))]
    (tmp_path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in played), "utf-8")
    output = tmp_path / "gallery.webp"
    assert gallery.main([str(tmp_path), "-o", str(output), "--count", "3", "--columns", "2", "--side", "200"]) == 0
    assert "3 of 4 trajectories" in capsys.readouterr().out
    with Image.open(output) as picture:
        assert picture.format == "WEBP" and picture.width > 400 and picture.height > 200


def test_none_lies_over_another() -> None:
    colours = ("red", "green", "blue")
    pictures = [Image.new("RGB", (40, height), colour) for colour, height in zip(colours, (100, 30, 50), strict=True)]
    canvas = gallery.placed(pictures, 2)
    counts = {count for count, _ in canvas.getcolors() or ()}
    assert {40 * 100, 40 * 30, 40 * 50} <= counts


def test_no_trajectories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gallery.main([str(tmp_path), "-o", str(tmp_path / "gallery.webp")]) == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "trajectories.jsonl").write_text("", "utf-8")
    assert gallery.main([str(tmp_path), "-o", str(tmp_path / "gallery.webp")]) == 2
    assert "has no trajectory" in capsys.readouterr().err
