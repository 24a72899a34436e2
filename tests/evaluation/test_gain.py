"""What looking closer gains and costs, and the figures that others published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cof_agent.cli import main
from cof_agent.data.benchmarks import BENCHMARKS
from cof_agent.episodes import PART_OF
from cof_agent.evaluation import gain, published
from cof_agent.evaluation.compare import Pair
from cof_agent.evaluation.metrics import summarise, wilson
from cof_agent.evaluation.runs import Run, side_by_side
from cof_agent.trajectory import Sample, StopReason, Trajectory
from tests.evaluation.test_compare import answered, questions, written

OVERVIEW = [True] * 6 + [False] * 4
CLOSER = [True] * 5 + [False] + [True] * 3 + [False]  # one of six broken, three of four mended


def run_of(name: str, right: Sequence[bool], zooms: int, **metadata: object) -> Run:
    samples = [replace(one, metadata=one.metadata | metadata) for one in questions(len(right))]
    return Run(name, [replace(one, settings={"max_zooms": zooms}) for one in answered(samples, right)])


def test_gain_and_harm_are_counted_apart() -> None:
    runs = [run_of("agent", CLOSER, 6), run_of("direct", OVERVIEW, 0), run_of("other", OVERVIEW, 6)]
    found = gain.gains(runs)
    assert list(found) == ["agent", "other"]
    told = {key: value for key, value in found["agent"].items() if not key.startswith("by_")}
    assert told == {
        "overview": "direct",
        "n": 10,
        "wrong": 4,
        "mended": 3,
        "mended_share": 0.75,
        "mended_ci95": wilson(3, 4),
        "right": 6,
        "broken": 1,
        "broken_share": 0.1667,
        "broken_ci95": wilson(1, 6),
    }
    assert (found["other"]["mended"], found["other"]["broken"]) == (0, 0)
    by_category = found["agent"]["by_category"]
    assert sum(one["mended"] for one in by_category.values()) == 3 and set(by_category) == {"a", "b"}
    assert gain.gains(runs[:1]) == gain.gains(runs[1:2]) == {}


def test_nothing_to_mend_is_no_share() -> None:
    found = gain.gains([run_of("direct", [True] * 3, 0), run_of("agent", [False] * 3, 6)])["agent"]
    assert (found["wrong"], found["mended"], found["mended_share"], found["mended_ci95"]) == (0, 0, None, None)
    assert gain.cells(found) == ["0", "-", "-", "3", "3 (1.000)", "0.439 to 1.000"]


def test_a_question_that_was_asked_twice_is_no_more_evidence() -> None:
    once = gain.part(pairs_of(OVERVIEW * 8, CLOSER * 8, plays=1))
    twice = gain.part(pairs_of(OVERVIEW * 8, CLOSER * 8, plays=2))
    assert (twice["wrong"], twice["mended"]) == (2 * once["wrong"], 2 * once["mended"])
    for name in ("mended", "broken"):
        assert twice[f"{name}_ci95"] == pytest.approx(once[f"{name}_ci95"], abs=0.06)


def pairs_of(before: Sequence[bool], after: Sequence[bool], *, plays: int) -> list[Pair]:
    samples = questions(len(before))
    pairs = zip(answered(samples, before), answered(samples, after), strict=True)
    return [Pair(first, second) for first, second in pairs for _ in range(plays)]


def of_benchmark(right: Sequence[bool], zooms: int, name: str) -> list[Trajectory]:
    return list(run_of("", right, zooms, benchmark=name).trajectories)


def test_the_command_says_both_and_shows_published_figures_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = written(tmp_path / "direct", of_benchmark(OVERVIEW, 0, "vstar"))
    agent = written(tmp_path / "agent", of_benchmark(CLOSER, 6, "vstar"))
    output = tmp_path / "out"
    assert main(["compare", str(direct), str(agent), "--published", "-o", str(output)]) == 0
    shown = capsys.readouterr().out
    found = json.loads((output / "comparison.json").read_text())
    assert found["gain"]["agent"]["mended"] == 3
    assert {one["benchmark"] for one in found["published"]} == {"vstar"}
    page, text = (output / "report.html").read_text(), (output / "comparison.md").read_text()
    for where in (shown, page, text):
        assert "What looking closer gains and costs" in where and "agent against direct" in where
        assert "3 (0.750)" in where and "1 (0.167)" in where
        assert published.TITLE in where and "github.com/Mini-o3/Mini-o3" in where and "92.2" in where
    assert "direct was asked 10 of the 191 questions of V*." in shown
    ours = text[: text.index(published.TITLE)]
    assert "92.2" not in ours and "Mini-o3" not in ours


def test_one_run_is_enough_beside_published_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", of_benchmark(CLOSER, 6, "hrbench-4k"))
    assert main(["compare", str(run), "-o", str(tmp_path / "out")]) == 2
    assert "name at least two runs" in capsys.readouterr().err
    assert main(["compare", str(run), "--published", "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "run has an accuracy of 0.800 on 10 questions" in page and "against" not in page.partition("<main>")[0]
    own = written(tmp_path / "own", of_benchmark(CLOSER, 6, "scenes"))
    assert main(["compare", str(own), "--published", "-o", str(tmp_path / "none")]) == 2
    assert "no published figures are known for scenes; leave --published out. They are known for vstar," in (
        capsys.readouterr().err
    )


def test_published_figures_are_of_benchmarks_that_there_are() -> None:
    for figure in published.figures():
        benchmark = BENCHMARKS[figure.benchmark]
        assert figure.part in ("", *benchmark.parts)
        assert 0 < figure.percent < 100
        assert figure.source.startswith("https://") and figure.protocol and figure.size and figure.how


def test_what_pope_reports_beside_accuracy() -> None:
    """Three said yes, of which two are right; three should have been yes."""
    truth, said = ("yes", "yes", "yes", "no", "no"), ("Yes.", "yes, it sleeps", "I do not see one", "Yes", "No")
    samples = [
        Sample(f"q{n}", "a.png", "Is there a cat?", (text,), metadata={"scoring": "yes_no"})
        for n, text in enumerate(truth)
    ]
    made = [Trajectory(one, None, (), StopReason.ANSWERED, text) for one, text in zip(samples, said, strict=True)]
    told = summarise(made)
    assert told["yes_and_no"] == {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "yes": 0.6}
    assert told["accuracy"] == 0.6
    assert "yes_and_no" not in summarise(answered(questions(4), [True] * 4))
    parts = [
        replace(one, sample=replace(one.sample, metadata=one.sample.metadata | {"category": "ab"[n % 2]}))
        for n, one in enumerate(made)
    ]
    each = summarise(parts)["yes_and_no_by_category"]
    assert set(each) == {"a", "b"} and "yes_and_no_by_category" not in told


def test_parts_are_averaged_as_the_authors_do() -> None:
    """CV-Bench: the mean of 2D, itself the mean of its two sources, and 3D."""
    parts = [["2D", "ADE20K"]] * 4 + [["2D", "COCO"]] * 2 + [["3D", "Omni3D"]] * 2
    right = [True, True, True, False, True, False, True, True]
    made = answered(questions(8), right)
    made = [
        replace(one, sample=replace(one.sample, metadata={PART_OF: part}))
        for one, part in zip(made, parts, strict=True)
    ]
    assert summarise(made)["accuracy_over_parts"] == pytest.approx(((3 / 4 + 1 / 2) / 2 + 1) / 2, abs=1e-4)
    assert summarise(made)["accuracy"] == 0.75
    headings, row = side_by_side([Run("a run", made)])
    assert dict(zip(headings, row, strict=True))["over parts"] == "0.812"
    assert "over parts" not in side_by_side([Run("a run", answered(questions(4), [True] * 4))])[0]
    assert "accuracy_over_parts" not in summarise(answered(questions(4), [True] * 4))
