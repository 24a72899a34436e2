"""Every published layout of every benchmark gives exactly what was written into it, and is scored as its authors score it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cof_agent import scoring
from cof_agent.data.benchmarks import BENCHMARKS, load
from cof_agent.data.benchmarks.layout import open_answers
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Sample, StopReason, Trajectory
from tests.data.benchmark_layouts import CASES, LETTERS, OPTIONS, Case
from tests.data.layouts import ANSWERS, BOX, OTHERS, SIZE, picture

VIEW = View(Size(*SIZE), Box(0, 0, *SIZE), Size(*SIZE))


def replied(sample: Sample, reply: str) -> float | None:
    played = Trajectory(sample, VIEW, (), StopReason.ANSWERED, answer=reply, settings={"system": "absolute"})
    return scoring.score(played)


@pytest.mark.parametrize("name", CASES)
def test_each_layout_gives_its_truth(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "copy").mkdir()
    case.write(tmp_path / "copy")
    samples = load(case.benchmark, tmp_path / "copy", limit=100, keep_images=tmp_path / "kept")
    assert [sample.question for sample in samples] == list(case.asked)
    assert [sample.answers for sample in samples] == list(case.answers)
    assert len({sample.id for sample in samples}) == len(samples)
    for number, sample in enumerate(samples):
        check(case, number * 3 // len(samples), sample)
    for right, wrong, sample in zip(*replies(case), samples, strict=False):
        assert (replied(sample, right) or 0) > 0.5 > (replied(sample, wrong) or 0)


def check(case: Case, question: int, sample: Sample) -> None:
    """question: which of the three it is."""
    written = [0 if case.same_image and question == 1 else question]
    written += [question - 1] if case.two_images and question else []
    assert [Path(image).read_bytes() for image in sample.images] == [picture(number) for number in written]
    in_order = (ANSWERS[question], *OTHERS[question]) if case.right == ("A",) * 3 else OPTIONS[question]
    assert sample.choices == (() if question in case.open else in_order)
    assert [tuple(box) for box in sample.boxes] == ([BOX] if case.boxes else [])
    assert sample.metadata["benchmark"] == case.benchmark


def replies(case: Case) -> tuple[list[str], list[str]]:
    """A right and a wrong reply to each question: the letter of the right option, and of the one behind it."""
    right = case.right or [ANSWERS[n] if n in case.open else LETTERS[n] for n in range(3)]
    wrong = case.wrong or ["no idea" if n in case.open else "BCA"["ABC".index(LETTERS[n])] for n in range(3)]
    return list(right), list(wrong)


def test_every_benchmark_has_its_case() -> None:
    assert {case.benchmark for case in CASES.values()} == set(BENCHMARKS) - {"scenes"}


def test_published_scores_of_parts(tmp_path: Path) -> None:
    """Partial credit, and scores that are no share of questions."""
    case = CASES["docvqa"]
    case.write(tmp_path)
    first = load("docvqa", tmp_path, limit=1, keep_images=tmp_path / "kept")[0]
    assert replied(first, "greem") == pytest.approx(0.8)
    (tmp_path / "textvqa").mkdir()
    CASES["textvqa"].write(tmp_path / "textvqa")
    first = load("textvqa", tmp_path / "textvqa", limit=1, keep_images=tmp_path / "kept")[0]
    assert replied(first, "unsure") == pytest.approx((3 * 2 / 3 + 7) / 10)


def test_open_answers_are_letter_for_letter() -> None:
    formula = "\\text{a}_1 = [x]"
    for raw, texts in (
        (formula, (formula,)),
        (["[1]", "", "[1]"], ("[1]",)),
        ("['a', 'b']", ("a", "b")),
        ("[1, 2]", ("[1, 2]",)),
        (4.0, ("4",)),
        (["a"] * 10, ("a",) * 10),
    ):
        assert open_answers(raw) == texts


def test_what_cannot_be_segmented_is_not_asked(tmp_path: Path) -> None:
    CASES["finers-4k"].write(tmp_path)
    samples = load("finers-4k", tmp_path, limit=10)
    assert [sample.metadata["category"] for sample in samples] == ["option", "option", "reasoning"]
