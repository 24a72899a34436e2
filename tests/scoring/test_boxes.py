"""Boxes as answers, and the rules that benchmarks name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cof_agent import scoring
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.scoring.boxes import NO_IMAGE, iou, written_boxes
from cof_agent.scoring.rules import RULES
from cof_agent.trajectory import Observation, Sample, StopReason, Trajectory, Turn, Zoom

VIEW = View(Size(1000, 500), Box(0, 0, 1000, 500), Size(500, 250))
TARGET = Box(100, 100, 300, 200)
CROP = View(Size(1000, 500), Box(100, 100, 300, 300), Size(400, 400))


def played(answer: str | None, rule: str, system: str | None = "absolute", sample: Sample | None = None) -> Trajectory:
    sample = sample or Sample("s", "i", "Where is it?", ("[100, 100, 300, 200]",), boxes=(TARGET,))
    sample = replace(sample, metadata={**sample.metadata, "scoring": rule})
    turn = Turn("", (Zoom((0, 0, 1, 1)),), (Observation(CROP),))
    settings = {} if system is None else {"system": system}
    return Trajectory(sample, VIEW, (turn,), StopReason.ANSWERED, answer=answer, settings=settings)


WRITTEN = {
    "[50, 50, 150, 100]": 1.0,
    '{"bbox_2d": [50, 50, 150, 100], "label": "cat 2"}': 1.0,
    '[{"bbox_2d": [50, 50, 150, 100]}]': 1.0,
    '{"bbox_2d": [[50, 50], [150, 100]]}': 1.0,
    "```json\n[[50, 50, 150, 100]]\n```": 1.0,
    "The box is (50, 50, 150, 100).": 1.0,
    "<|box_start|>(50,50),(150,100)<|box_end|>": 1.0,
    "<|begin_of_box|>[[50, 50, 150, 100]]<|end_of_box|>": 1.0,
    "bbox_2d: 50 50 150 100": 1.0,
    "[150, 100, 50, 50]": 1.0,  # reversed edges
    "[50, 50, 150, 75]": 0.5,
    "[50, 50, 100, 75]": 0.25,
    '{"bbox_2d": [0, 0, 400, 200], "image": 1}': 1.0,  # in the crop
    "[50, 50, 150, 100] or [0, 0, 10, 10]": 0.0,  # two boxes
    "[400, 200, 450, 240]": 0.0,
    "[50, 50, 150]": 0.0,
    "[50, 50, 50, 100]": 0.0,
    "[9000, 50, 9500, 100]": 0.0,
    '{"bbox_2d": [0, 0, 400, 200], "image": 7}': 0.0,
    "on the left": 0.0,
    "": 0.0,
}


@pytest.mark.parametrize("answer", WRITTEN)
def test_a_box_is_scored_by_its_overlap(answer: str) -> None:
    found = played(answer, "iou")
    assert scoring.score(found) == pytest.approx(WRITTEN[answer])
    assert scoring.accuracy(found) is (WRITTEN[answer] >= 0.5)
    located = played(answer, "located")
    assert scoring.score(located) == scoring.accuracy(located) == (WRITTEN[answer] >= 0.5)


@pytest.mark.parametrize("system", list(CoordinateSystem))
def test_the_numbers_are_in_the_model_s_own_coordinates(system: CoordinateSystem) -> None:
    written = [round(number, 4) for number in VIEW.from_source(TARGET, system)]
    assert scoring.score(played(str(written), "iou", system.value)) == pytest.approx(1.0, abs=1e-3)


def test_what_cannot_be_scored_is_none() -> None:
    assert scoring.score(played("[50, 50, 150, 100]", "iou", None)) is None
    assert scoring.accuracy(played("[50, 50, 150, 100]", "iou", sample=Sample("s", "i", "q", ("x",)))) is None
    assert (scoring.score(played(None, "iou")), scoring.accuracy(played(None, "iou"))) == (0.0, False)


@pytest.mark.parametrize(
    "image", ['"image": 1', '"image": "1"', '"img_idx": 1', '"target_image": 2', '"imageIndex": 1']
)
def test_the_image_of_a_box_is_named_as_in_calls(image: str) -> None:
    assert written_boxes(f'{{"bbox_2d": [1, 2, 3, 4], {image}}}') == [(1, 2, 3, 4, 1)]
    assert written_boxes('{"bbox_2d": [1, 2, 3, 4], "image": "the sign"}') == [(1, 2, 3, 4, NO_IMAGE)]


def test_overlap() -> None:
    assert iou(TARGET, TARGET) == 1 and iou(TARGET, Box(0, 0, 50, 50)) == 0
    assert iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert written_boxes("1,2,3,4,5") == []


def text(answer: str | None, truth: str, rule: str, **metadata: str) -> Trajectory:
    return played(answer, rule, sample=Sample("s", "i", "What is the value in 2019?", (truth,), metadata=metadata))


RELAXED = {
    ("10.4", "10"): True,  # 5 % of whole numbers too, as the paper has it
    ("11", "10"): False,
    ("The value is 104.", "100"): True,
    ("57 %", "0.57"): True,
    ("59%", "57%"): True,
    ("57", "57%"): False,  # which is 0.57 there
    ("13", "12.4%"): False,
    ("blue", "blue"): True,
    ("blues", "blue"): False,
    ("104 or 90", "100"): False,
    ("not 100", "100"): False,
    (None, "100"): False,
}
CONTAINS = {
    ("The text says Coca  Cola here", "coca cola"): True,
    ("coca", "coca cola"): False,
    ("", "x"): False,
    (None, "x"): False,
}


ROUNDED = {
    ("0.214", "0.21"): True,
    ("1.23", "1.2"): True,
    ("1.26", "1.2"): False,
    ("It is 12.7.", "12"): True,  # cut, as the authors' code does
    ("13", "12"): False,
    ("1.2 m", "1.2"): True,
    ("9" * 40, "1.2"): False,
    ("red", "red"): True,
    (None, "1.2"): False,
}
POPE = {
    ("Yes, there is a brown dog on the sofa.", "yes"): True,
    ("No, the image shows a cat.", "no"): True,
    ("No. There is a cat instead.", "no"): True,
    ("The image does not contain one.", "no"): True,
    ("There is one. It is not brown.", "yes"): True,  # the first sentence counts
    ("I see one.", "no"): False,
    ("no", "yes"): False,
    (None, "no"): False,
}


def test_numbers_are_rounded_and_first_sentences_say_yes() -> None:
    assert {case: scoring.accuracy(text(*case, "rounded")) for case in ROUNDED} == ROUNDED
    assert {case: scoring.accuracy(text(*case, "yes_no")) for case in POPE} == POPE
    assert scoring.score(played("x", "rounded", sample=Sample("s", "i", "q"))) is None
    assert scoring.score(played("x", "yes_no", sample=Sample("s", "i", "q"))) is None


def test_relaxed_accuracy_and_containment() -> None:
    assert {case: scoring.accuracy(text(*case, "relaxed")) for case in RELAXED} == RELAXED
    assert {case: scoring.accuracy(text(*case, "contains")) for case in CONTAINS} == CONTAINS
    formula = "handwritten mathematical expression"
    assert scoring.score(text("it is x + 1", "x+1", "contains", category=formula)) == 1
    assert scoring.score(text("it is X + 1", "x+1", "contains", category=formula)) == 0
    assert scoring.score(text("it is x + 1", "x+1", "contains")) == 0
    assert scoring.score(played("x", "relaxed", sample=Sample("s", "i", "q"))) is None


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_credits_no_answer_with_nothing(rule: str) -> None:
    sample = Sample("s", "i", "q", ("red",), ("red", "blue"), (TARGET,), {"right": ["red"]})
    assert scoring.score(played(None, rule, sample=sample)) == 0
    assert scoring.accuracy(played(None, rule, sample=sample)) is False
