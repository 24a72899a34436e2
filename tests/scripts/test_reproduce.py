"""The list of the tables that a script makes: what it names is there, and results are read as commands leave them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import reproduce

from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.evaluation.compare import compare
from cof_agent.geometry import CoordinateSystem
from cof_agent.output.files import write_atomic
from cof_agent.scenes import oracle
from tests.scenes.shared import Scenes

ROOT = Path(__file__).parents[2]


def test_each_table_has_its_script_and_guide() -> None:
    for name, table in reproduce.TABLES.items():
        script = ROOT / "scripts" / table.script.split()[0]
        assert script.exists() and (ROOT / table.guide).exists(), name
        if script.name != "paper.sh":  # whose folder is not named in it
            assert f"outputs/{table.result.split('/')[0]}" in script.read_text(), name


def test_results_are_read_where_they_are(drawn: Scenes, tmp_path: Path) -> None:
    table = reproduce.TABLES["resolutions"]
    assert reproduce.described("a", table, tmp_path).endswith("last result: not run here")
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE))
    right = [oracle.play(one, environment.reset(one), environment) for one in read_samples(drawn(2))]
    half = [right[0], replace(right[1], answer="nothing of the kind")]
    found = {"base": "first", "others": {"second": compare(right, half)}}
    write_atomic(tmp_path / table.result / "comparison.json", json.dumps(found))
    assert "last result: accuracy first 1.000, second 0.500 (" in reproduce.described("a", table, tmp_path)


def test_names_are_checked(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bash", str(ROOT / "scripts" / "reproduce.sh")]
    assert subprocess.call([*command, "--list"]) == 0
    assert "paper: bash scripts/paper.sh nano" in capfd.readouterr().out
    for words in (["nothing"], [], ["paper", "adaptive"]):
        assert subprocess.call([*command, *words]) == 2
        assert "give --list, or one of paper, " in capfd.readouterr().err
