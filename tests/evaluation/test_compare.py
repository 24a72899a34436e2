"""Runs held against each other: paired differences, their intervals and tests, and what `cof compare` writes."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cof_agent.cli import main
from cof_agent.episodes import QUESTION, RESOLUTION, episodes, question_of
from cof_agent.errors import InputError
from cof_agent.evaluation import compare as comparing
from cof_agent.evaluation.compare import compare, paired
from cof_agent.evaluation.metrics import figures
from cof_agent.evaluation.runs import Run, read_runs, remembered
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Sample, StopReason, Tokens, Trajectory, Turn, to_json

OVERVIEW = View(Size(1000, 500), Box(0, 0, 1000, 500), Size(448, 224))


def questions(count: int) -> list[Sample]:
    return [
        Sample(f"q{k}", "a.png", f"What is {k}?", (str(k),), metadata={"category": "ab"[k % 2]}) for k in range(count)
    ]


def answered(samples: Sequence[Sample], right: Sequence[bool]) -> list[Trajectory]:
    return [
        Trajectory(
            sample,
            OVERVIEW,
            (Turn(f"<answer>{sample.answers[0] if good else '?'}</answer>", (), tokens=Tokens(100, 10)),),
            StopReason.ANSWERED,
            sample.answers[0] if good else "?",
        )
        for sample, good in zip(samples, right, strict=True)
    ]


def written(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    folder.mkdir()
    (folder / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in trajectories))
    return folder


def test_a_run_with_a_question_twice_is_refused() -> None:
    run = answered(questions(10), [True] * 10)
    with pytest.raises(
        InputError, match="a run has 'q0' twice, so it cannot be compared; were two runs put into one file"
    ):
        compare(run, [*run, *answered(questions(10), [False] * 10)])


def test_a_failure_that_was_tried_again_does_not_count(tmp_path: Path) -> None:
    run = answered(questions(3), [True] * 3)
    failed = replace(run[1], answer=None, stop=StopReason.ERROR, error="The server is gone.")
    for name, lines in (("whole", run), ("cut", [run[0], failed, *run[1:]])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in lines))
    whole, cut = read_runs([tmp_path / "whole", tmp_path / "cut"])
    assert cut.trajectories == whole.trajectories == run


def test_pictures_of_many_sizes_are_put_together() -> None:
    run = answered(questions(6), [True] * 6)
    sizes = (600, 700, 1024, 1025, 3000, 4096)
    views = [one.overviews[0] for one in run]
    found = [
        replace(one, overview=replace(view, source_size=Size(side, 10)))
        for one, view, side in zip(run, views, sizes, strict=True)
    ]
    assert {row: part["n"] for row, part in compare(found, found)["by_resolution"].items()} == {
        "to 1024": 3,
        "to 2048": 1,
        "to 4096": 2,
    }


def test_a_pair_that_cannot_be_scored_is_left_out() -> None:
    run = answered(questions(10), [True] * 10)
    without = replace(run[0], sample=replace(run[0].sample, metadata={"scoring": "iou"}))  # and no box
    assert compare([without, *run[1:]], run)["n"] == 9


def test_one_play_against_several_says_so() -> None:
    run = answered(questions(10), [True] * 10)
    with pytest.raises(InputError, match="one was asked once, the other several times"):
        compare(run, [replace(one, play=play) for one in run for play in (1, 2)])


def test_the_same_run_twice_differs_by_nothing() -> None:
    run = answered(questions(30), [k % 3 > 0 for k in range(30)])
    found = compare(run, run)
    assert found["accuracy"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    assert (found["n"], found["gained"], found["lost"]) == (30, 0, 0)


def test_the_interval_is_that_of_the_mean_difference() -> None:
    """Of many pairs, the normal approximation."""
    values = [(float(k % 2), float(k % 4 > 0)) for k in range(800)]
    differences = [after - before for before, after in values]
    mean = sum(differences) / len(differences)
    spread = 1.96 * math.sqrt(sum((one - mean) ** 2 for one in differences)) / len(differences)
    found = paired(values, [str(k) for k in range(800)])
    assert found["difference"] == pytest.approx(mean, abs=1e-4)
    assert found["ci95"] == pytest.approx([mean - spread, mean + spread], abs=0.004)
    assert found["p"] < 0.001


def test_p_is_the_share_of_permutations_at_least_as_far() -> None:
    values = [(0.0, 1.0)] * 5 + [(1.0, 0.0)] + [(1.0, 1.0)] * 4
    differences = [after - before for before, after in values]
    flips = list(itertools.product((-1, 1), repeat=len(values)))
    exact = sum(
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) >= 4 for signs in flips
    ) / len(flips)
    assert paired(values, [str(k) for k in range(10)])["p"] == pytest.approx(exact, abs=0.015)


def test_a_question_at_three_resolutions_is_no_more_evidence_than_at_one() -> None:
    once = [(0.0, 1.0)] * 12 + [(1.0, 0.0)] * 5 + [(1.0, 1.0)] * 13
    names = [str(k) for k in range(len(once))]
    assert paired(once * 3, names * 3) == paired(once, names)
    apart = paired(once * 3, [str(k) for k in range(3 * len(once))])
    assert apart["ci95"][0] > paired(once, names)["ci95"][0]


def test_a_question_that_is_asked_twice_is_one() -> None:
    def played() -> list[Trajectory]:
        return [
            Trajectory(
                one.sample,
                None,
                (),
                StopReason.ANSWERED,
                one.sample.answers[0],
                resolution=one.resolution,
                play=one.play,
            )
            for one in episodes(questions(3), resolutions=(224, 448), plays=2)
        ]

    pairs = comparing.pairs_of(played(), played())
    assert [pair.question for pair in pairs] == ["q0"] * 4 + ["q1"] * 4 + ["q2"] * 4
    assert [question_of(sample) for sample in drawn(questions(2), (224, 448))] == ["q0", "q0", "q1", "q1"]


def drawn(samples: Sequence[Sample], sides: Sequence[int]) -> list[Sample]:
    """The samples as `cof scenes --resolutions` writes them, each at each of these sizes."""
    return [
        replace(one, id=f"{one.id}@{side}", metadata=one.metadata | {RESOLUTION: side, QUESTION: one.id})
        for one in samples
        for side in sides
    ]


def test_kinds_of_questions_are_drawn_as_the_questions_would_be() -> None:
    """Means and spread of the bootstrap, against one that draws question by question."""
    random = np.random.default_rng(1)
    sums, counts = random.choice([-2.0, -1, 0, 0, 1], size=90), random.choice([1.0, 2, 3], size=90)
    means, extreme = comparing._draw(sums, counts)
    drawn = random.integers(90, size=(comparing.DRAWS, 90))
    plain = sums[drawn].sum(1) / counts[drawn].sum(1)
    flipped = abs((random.integers(2, size=(comparing.DRAWS, 90)) * 2 - 1) @ sums)
    assert means.mean() == pytest.approx(plain.mean(), abs=0.003)
    assert np.percentile(means, (2.5, 97.5)) == pytest.approx(np.percentile(plain, (2.5, 97.5)), abs=0.01)
    assert extreme / comparing.DRAWS == pytest.approx((flipped >= abs(sums.sum())).mean(), abs=0.02)


def test_options_in_another_order_are_the_same_question() -> None:
    samples = [replace(one, choices=("x", "y", one.answers[0])) for one in questions(4)]
    moved = [replace(one, choices=one.choices[::-1]) for one in samples]
    assert compare(answered(samples, [True] * 4), answered(moved, [False] * 4))["lost"] == 4
    changed = [replace(one, choices=("x", "z", one.answers[0])) for one in samples]
    with pytest.raises(InputError, match="different things"):
        compare(answered(samples, [True] * 4), answered(changed, [True] * 4))


def test_pairs_are_found_by_id_and_grouped() -> None:
    samples = questions(8)
    first, second = answered(samples, [False] * 8), answered(samples[::-1][:6], [True] * 6)
    found = compare(first, second)
    assert (found["n"], found["gained"]) == (6, 6)
    assert {row: part["n"] for row, part in found["by_category"].items()} == {"a": 3, "b": 3}
    with pytest.raises(InputError, match="share no question"):
        compare(first[:2], second)
    with pytest.raises(InputError, match="different things under the id 'q7'"):
        compare(first, [replace(second[0], sample=replace(samples[7], question="Why?")), *second[1:]])


def test_a_resolution_that_is_no_number_is_not_one() -> None:
    samples = [replace(one, metadata={"resolution": "4K"}) for one in questions(4)]
    run = answered(samples, [True] * 4)
    assert set(compare(run, run)["by_resolution"]) == {"to 1024"}


@pytest.mark.slow
def test_the_command_writes_tables_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = drawn(questions(20), (224, 448))
    samples = [replace(one, metadata=one.metadata | {"category": "[/b]"[: 4 - k % 2]}) for k, one in enumerate(samples)]
    base = written(tmp_path / "ba|se", answered(samples, [k % 2 == 0 for k in range(40)]))
    other = written(tmp_path / "$other[red]", answered(samples, [k % 4 > 0 for k in range(40)]))
    output = tmp_path / "out"
    assert main(["compare", str(base), str(other), "-o", str(output)]) == 0
    assert "$other[red] against ba|se" in capsys.readouterr().out
    found = json.loads((output / "comparison.json").read_text())
    assert found["base"] == "ba|se"
    assert found["others"]["$other[red]"]["accuracy"]["difference"] == 0.25
    rows = list(csv.DictReader((output / "comparison.csv").open()))
    assert [row["rows"] for row in rows] == ["all", "category [/b", "category [/b]", "resolution 224", "resolution 448"]
    assert rows[0]["accuracy_base"] == "0.5" and rows[0]["accuracy"] == "0.75"
    assert (output / "comparison.md").read_text().count("\n|") == (2 + 2) + (2 + len(rows))
    for name in ("resolution.png", "category.png", "tokens.png"):
        with Image.open(output / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_run_is_named_by_its_folder_wherever_it_is_compared_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = questions(4)
    for name in ("zooms", "direct"):
        written(tmp_path / name, answered(samples, [True] * 4))
    monkeypatch.chdir(tmp_path / "zooms")
    assert [run.name for run in read_runs([Path("."), Path("../direct")])] == ["zooms", "direct"]


@pytest.mark.slow
def test_a_reader_that_goes_leaves_all_files(tmp_path: Path) -> None:
    samples = questions(4)
    runs = [str(written(tmp_path / name, answered(samples, [True] * 4))) for name in ("zooms", "direct")]
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cof_agent.cli", "compare", *runs, "-o", str(tmp_path / "out")]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (tmp_path / "out" / "report.html").exists()


def test_a_category_without_a_right_answer_has_its_bar() -> None:
    from matplotlib.patches import Rectangle

    from cof_agent.viewer.plots import by_category

    figure = by_category(
        [Run("some", answered(questions(4), [True, False] * 2)), Run("none", answered(questions(4), [False] * 4))]
    )
    assert figure is not None
    lengths = [bar.get_width() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert sorted(lengths) == [0, 0, 0, 1]


def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", answered(questions(3), [True] * 3))
    strange = written(
        tmp_path / "strange", answered([replace(one, id="x" + one.id) for one in questions(3)], [True] * 3)
    )
    output = tmp_path / "out"
    for others, sentence in (
        ([], "name at least two runs"),
        ([str(tmp_path)], "has no trajectories.jsonl"),
        ([str(run)], "is named twice"),
        ([str(strange)], "share no question"),
    ):
        assert main(["compare", str(run), *others, "-o", str(output)]) == 2
        assert sentence in capsys.readouterr().err
    assert not output.exists()


# --- figures, once


def test_figures_of_the_same_trajectories_are_computed_once() -> None:
    calls: list[int] = []

    def counting(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        calls.append(len(trajectories))
        return figures(trajectories)

    samples = questions(6)
    once = remembered(counting)
    base, other = (Run(str(k), answered(samples, [k > 0] * 6), figures_of=once) for k in range(2))
    compare(base.trajectories, other.trajectories, figures_of=once)
    found = [base.figures, other.figures, base.tables, other.tables]
    assert sorted(calls) == [3] * 4 + [6] * 2  # two runs, whole and by two categories; one resolution is the whole
    assert found[0]["accuracy"] == 0.0 and found[1]["accuracy"] == 1.0
    assert once([*base.trajectories]) is base.figures
    assert once(base.trajectories[::-1])["n"] == 6 and len(calls) == 7


def test_a_summary_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    run = answered(questions(2), [True] * 2)
    first, second, third = (written(tmp_path / name, run) for name in ("a", "b", "c"))
    (first / "summary.json").write_text(json.dumps({"command": "cof eval -o a", "seed": None}))
    (second / "summary.json").write_text("{")
    (third / "summary.json").write_text("[]")
    runs = read_runs([first, second / "trajectories.jsonl", third])
    assert [run.command for run in runs] == ["cof eval -o a", None, None]
    assert [run.summary is None for run in runs] == [False, True, True]
    assert [run.name for run in runs] == ["a", "trajectories.jsonl", "c"]
    assert runs[1].folder == second
