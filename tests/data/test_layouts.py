"""Every layout in which sets are published gives the truth that was written into it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cof_agent import Agent, scoring
from cof_agent.data.samples import Reading, read
from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import summarise
from cof_agent.geometry import Box, Size
from cof_agent.policy.scripted import ScriptedPolicy
from cof_agent.protocol import Message, write_answer
from tests.data import layouts, variants
from tests.data.layouts import LAYOUTS

pytest.importorskip("pyarrow")


@dataclass
class Published:
    """What was read of a layout, and whether choices and boxes were written into it."""

    name: str
    found: Reading
    choices: bool = False
    boxes: bool = False


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[Published]:
    """Every layout, read."""
    parts = [
        *((name, write, name in layouts.WITH_CHOICES, name in layouts.WITH_BOXES) for name, write in LAYOUTS.items()),
        *((name, write, False, False) for name, write in variants.VARIANTS.items()),
        *((name, write, True, False) for name, write in variants.CHOSEN.items()),
        *((name, write, False, True) for name, write in variants.BOXED.items()),
    ]
    keep = tmp_path_factory.mktemp("kept")
    return [
        Published(name, read(write(tmp_path_factory.mktemp(name)), keep_images=keep), choices, boxes)
        for name, write, choices, boxes in parts
    ]


def test_each_layout_gives_its_truth(published: list[Published]) -> None:
    """Question, answer, image; and no more choices and boxes than were written."""
    for one in published:
        name, samples = one.name, one.found.samples
        assert one.found.tally.rows == 3 and not one.found.tally.left_out, name
        assert [sample.question for sample in samples] == list(layouts.QUESTIONS), name
        assert [sample.answers[0] for sample in samples] == list(layouts.ANSWERS), name
        assert [Path(sample.image).read_bytes() for sample in samples] == [layouts.picture(n) for n in range(3)], name
        assert len({sample.id for sample in samples}) == 3, name
        for sample, written in zip(samples, layouts.CHOICES, strict=True):
            assert set(sample.choices) == (set(written) if one.choices else set()), name
            assert [pytest.approx(list(box)) for box in sample.boxes] == ([list(layouts.BOX)] if one.boxes else []), (
                name
            )


def _truth(messages: Sequence[Message]) -> str:
    """The reply of an agent that knows the answers."""
    said = str(messages)
    (answer,) = (a for q, a in zip(layouts.QUESTIONS, layouts.ANSWERS, strict=True) if q in said)
    return write_answer("I know.", answer)


def _letter(messages: Sequence[Message]) -> str:
    """The same, by the letter of the choice."""
    (answer,) = (a for q, a in zip(layouts.QUESTIONS, layouts.ANSWERS, strict=True) if q in str(messages))
    shown = re.search(rf"([A-Z])\. {answer}\b", str(messages))
    assert shown is not None
    return write_answer("I know.", shown[1])


@pytest.mark.parametrize("script", [pytest.param(_truth, marks=pytest.mark.slow), _letter])
def test_who_answers_rightly_is_right_in_each_layout(
    script: Callable[[Sequence[Message]], str], published: list[Published], tmp_path: Path
) -> None:
    asked = [
        replace(sample, id=f"{one.name}-{sample.id}")
        for one in published
        if one.choices or script is _truth
        for sample in one.found.samples
    ]
    played = Agent("none", policy=ScriptedPolicy(script)).ask_many(asked, output=tmp_path / "out.jsonl", progress=False)
    assert [one.sample.id for one in played if scoring.score(one) != 1.0] == []
    assert summarise(played)["accuracy"] == 1.0


def test_a_box_that_is_the_answer_is_right_by_overlap(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    told = "<image>Please provide the bounding box coordinate of the region this sentence describes: a white kite."
    talks = [
        [{"from": "human", "value": told}, {"from": "gpt", "value": str([round(edge) for edge in layouts.BOX])}]
        for _ in range(3)
    ]
    spec = layouts.as_lines(
        tmp_path / "r.jsonl", layouts.rows(lambda n: {"image": names[n], "conversations": talks[n]})
    )
    samples = read(spec).samples
    agent = Agent("none", policy=ScriptedPolicy([write_answer("I know.", "[118, 92, 176, 144]")]))
    played = agent.ask_many(samples, progress=False)
    shown = played[0].overview
    assert shown is not None and shown.shown_size == Size(392, 308)  # whose pixels the answer is in
    assert [one.sample.metadata["scoring"] for one in played] == ["iou"] * 3
    assert [scoring.score(one) for one in played] == [pytest.approx(1, abs=0.03)] * 3


def test_what_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    for name, (write, said) in variants.REFUSED.items():
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(InputError, match=said):
            read(write(folder), keep_images=tmp_path / "kept")


def test_images_of_paths_on_another_machine_lie_where_the_user_says(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    for author in ("/home/author/sets/", "C:\\sets\\"):
        rows = layouts.rows(lambda n: {"image": author + names[n], "question": layouts.QUESTIONS[n], "answer": "x"})  # noqa: B023
        found = read(layouts.as_json(tmp_path / "rows.json", rows), images=tmp_path).samples
        assert [sample.image for sample in found] == [str(tmp_path / name) for name in names]


def test_one_file_has_no_splits(tmp_path: Path) -> None:
    spec = layouts.easyr1(tmp_path)
    with pytest.raises(InputError, match="--split test .* is one file"):
        read(spec, split="test", keep_images=tmp_path / "kept")
    moved = spec.rename(tmp_path / "validation.parquet")
    assert len(read(moved, split="val", keep_images=tmp_path / "kept").samples) == 3


def test_a_few_boxes_that_fit_two_forms_are_told(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    rows = layouts.rows(
        lambda n: {"image": names[n], "question": layouts.QUESTIONS[n], "answer": "x", "bbox": [10, 20, 90, 60]}
    )
    assert any("pixels-xywh would fit" in note for note in read(layouts.as_json(tmp_path / "r.json", rows)).tally.notes)


def test_answers_of_four_numbers_are_boxes_where_all_are(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    for answers, rule in ((["[120, 90, 180, 140]"] * 3, "iou"), (["[1, 2, 3, 4]", "7", "[2, 3]"], None)):
        made = layouts.rows(lambda n: {"image": names[n], "question": "Which?", "answer": answers[n]})  # noqa: B023
        samples = read(layouts.as_json(tmp_path / "r.json", made)).samples
        assert [sample.metadata.get("scoring") for sample in samples] == [rule] * 3
    two = layouts.rows(
        lambda n: {"image": names[n], "question": "Give the bounding box.", "answer": [[1, 2, 9, 8], [3, 4, 9, 9]]}
    )
    with pytest.raises(InputError, match="3 answer cannot be read.*several boxes"):
        read(layouts.as_json(tmp_path / "r.json", two))


def test_letters_without_choices_are_noted(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    made = layouts.rows(lambda n: {"image": names[n], "question": layouts.QUESTIONS[n], "answer": "BAC"[n]})
    assert any("no choices are known" in note for note in read(layouts.as_json(tmp_path / "r.json", made)).tally.notes)


def test_a_set_without_answers_says_so(tmp_path: Path) -> None:
    names = layouts.pictures(tmp_path)
    rows = layouts.rows(lambda n: {"image": names[n], "question": layouts.QUESTIONS[n], "said": layouts.ANSWERS[n]})
    spec = layouts.as_json(tmp_path / "r.json", rows)
    assert any("no answer is known" in note for note in read(spec).tally.notes)
    found = read(spec, columns={"answer": "said"})
    assert not found.tally.notes and found.samples[0].answers == (layouts.ANSWERS[0],)


def test_what_a_set_says_about_answering_is_kept_apart(tmp_path: Path) -> None:
    for sample in read(layouts.verl(tmp_path), keep_images=tmp_path / "kept").samples:
        assert sample.metadata["instruction"].startswith("Think before you reply.")
        assert sample.metadata["dataset"] == "kites"


def test_nothing_is_written_for_a_table(tmp_path: Path) -> None:
    spec = layouts.verl(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert [sample.image for sample in read(spec, write=False).samples] == ["", "", ""]
    assert sorted(tmp_path.rglob("*")) == before


def test_boxes_beside_a_question_can_be_passed_over(tmp_path: Path) -> None:
    spec = layouts.fractions(tmp_path)
    assert [sample.boxes for sample in read(spec, boxes="none").samples] == [(), (), ()]
    (first, *_) = read(spec, boxes="unit-xywh").samples
    assert first.boxes == (Box(120, 90, 300, 230),)
