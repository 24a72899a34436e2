"""`cof ask` with regions, by a real model: what it keeps and shows of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cof_agent.cli import main
from cof_agent.geometry import Box
from cof_agent.trajectory import Trajectory, read_jsonl


@pytest.mark.parametrize("crops", [False, True])
def test_ask_with_regions_keeps_them_in_its_record(
    crops: bool, checkpoint: Callable[[str], Path], picture: Path, tmp_path: Path
) -> None:
    command = [
        "ask",
        str(picture),
        "What is <region1>?",
        "--region",
        "90,60,180,150",
        "--model",
        str(checkpoint("qwen2_5_vl")),
    ]
    command += ["--max-tokens", "4", "-o", str(tmp_path / "out")]
    assert main(command + ["--region-crops"] * crops) == 3  # it has learned nothing, and babbles
    (trajectory,) = read_jsonl(tmp_path / "out" / "trajectory.jsonl", Trajectory)
    assert trajectory.sample.regions == (Box(90, 60, 180, 150),)
    assert trajectory.zooms == crops
    page = (tmp_path / "out" / "report.html").read_text()
    assert "region 1 at [90, 60, 180, 150]" in page
