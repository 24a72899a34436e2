"""The table over seeds: means over runs, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.evaluation.metrics import figures, wilson
from cof_agent.geometry import CoordinateSystem
from cof_agent.output.files import write_atomic
from cof_agent.scenes import oracle
from cof_agent.trajectory import Trajectory, to_json
from tests.scenes.shared import Scenes

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import seeds_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "seeds_table.py"


def table(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)


def written(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    write_atomic(folder / "trajectories.jsonl", "".join(to_json(one) + "\n" for one in trajectories))
    return folder


@pytest.fixture(scope="module")
def right(drawn: Scenes) -> list[Trajectory]:
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE))
    return [oracle.play(one, environment.reset(one), environment) for one in read_samples(drawn(4))]


def test_rows_are_means_over_runs(right: list[Trajectory], tmp_path: Path) -> None:
    wrong = [replace(one, answer="nothing of the kind") for one in right]
    first, second = written(tmp_path / "first", right), written(tmp_path / "second", [*right[:2], *wrong[2:]])
    found = table(f"alone={first}", f"both={first},{second}", "--by", "category").stdout.splitlines()
    assert found[2].startswith("| alone | ") and "| 1.000 (0.510 to 1.000) |" in found[2]
    assert "| 0.750 (" in found[3] and "; 0.500 to 1.000) |" in found[3]
    zooms = sum(one.zooms for one in right) / len(right)
    assert f"| {zooms:.3f} (" in table(f"alone={first}", "--figure", "zooms").stdout


def test_differences_are_of_single_questions(right: list[Trajectory], tmp_path: Path) -> None:
    wrong = [replace(one, answer="nothing of the kind") for one in right]
    first, second = written(tmp_path / "first", [*wrong[:2], *right[2:]]), written(tmp_path / "second", right)
    head, _, line = table(f"a={first}", f"b={first},{second}", "--differences").stdout.splitlines()
    assert head.endswith("| all |") and line.startswith("| b | ")
    assert "| +0.250 (+0.000 to +0.500) |" in line  # two of four questions, each right in one of two runs


def test_plots_show_the_rows(right: list[Trajectory], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    wrong = [replace(one, answer="nothing of the kind") for one in right]
    first, second = written(tmp_path / "first", right), written(tmp_path / "second", [*right[:2], *wrong[2:]])
    assert not table(f"both={first},{second}", f"one={first}", "--plots", str(tmp_path / "drawn")).returncode
    assert {file.name for file in (tmp_path / "drawn").iterdir()} >= {"category.png"}


def test_the_interval_of_several_runs_is_over_questions(right: list[Trajectory]) -> None:
    one = [replace(found, answer="nothing of the kind") if at else found for at, found in enumerate(right)]
    assert seeds_table.over_questions([*one, *one, *one])["accuracy_ci95"] == figures(one)["accuracy_ci95"]


def test_sizes_of_one_question_are_no_questions_of_their_own(right: list[Trajectory], tmp_path: Path) -> None:
    """A question that is right at one size and wrong at the other is one piece of evidence."""
    sizes = [
        replace(one, resolution=size, answer=one.answer if size == 448 else "nothing of the kind")
        for one in right
        for size in (224, 448)
    ]
    found = table(f"a={written(tmp_path / 'sizes', sizes)}").stdout
    low, high = wilson(2, 4) or (0, 0)
    assert f"| 0.500 ({low:.3f} to {high:.3f}) |" in found


def test_what_cannot_be_put_in_one_table_is_refused(right: list[Trajectory], tmp_path: Path) -> None:
    whole, part = written(tmp_path / "whole", right), written(tmp_path / "part", right[:2])
    twice = written(tmp_path / "twice", [*right, right[0]])
    unknown = written(tmp_path / "unknown", [replace(one, sample=replace(one.sample, answers=())) for one in right])
    for words, said in (
        ((f"a={whole}", f"b={part}"), "have not answered the same questions"),
        ((f"a={twice}",), "asked several times"),
        ((f"a={unknown}",), "without a known answer"),
        ((f"a={tmp_path / 'none'}",), "evaluate with -o"),
    ):
        found = table(*words)
        assert found.returncode and said in found.stderr and "Traceback" not in found.stderr
