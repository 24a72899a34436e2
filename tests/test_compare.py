"""Runs held against each other: paired differences, their intervals and tests, and what `cof compare` writes."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.cli import main
from cof_agent.compare import compare, paired
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.samples import at_each_resolution
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
    assert set(compare(run, run)["by_resolution"]) == {"1000"}


def test_the_command_writes_tables_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = at_each_resolution(questions(20), (224, 448))
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
    assert (output / "comparison.md").read_text().count("\n|") == 2 + len(rows)
    for name in ("resolution.png", "category.png", "tokens.png"):
        with Image.open(output / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_category_without_a_right_answer_has_its_bar() -> None:
    from cof_agent.plots import by_category

    figure = by_category(
        {"some": answered(questions(4), [True, False] * 2), "none": answered(questions(4), [False] * 4)}
    )
    assert figure is not None
    assert sorted(bar.get_height() for bar in figure.axes[0].patches) == [0, 0, 0, 1]


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
