"""Every layout in which sets are published gives the truth that was written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cof_agent import scoring
from cof_agent.data.samples import read
from cof_agent.geometry import Box
from tests.data import layouts

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_each_layout_gives_its_truth(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    found = read(layouts.LAYOUTS[name](tmp_path / "set"), keep_images=tmp_path / "kept")
    samples = found.samples
    assert found.tally.rows == 3 and not found.tally.left_out
    assert [sample.question for sample in samples] == list(layouts.QUESTIONS)
    assert [sample.answers[0] for sample in samples] == list(layouts.ANSWERS)
    assert [Path(sample.image).read_bytes() for sample in samples] == [layouts.picture(n) for n in range(3)]
    assert all(scoring.matches(sample.answers[0], sample) for sample in samples)
    assert len({sample.id for sample in samples}) == 3
    for sample, choices in zip(samples, layouts.CHOICES, strict=True):
        assert set(sample.choices) == (set(choices) if name in layouts.WITH_CHOICES else set())
        if name in layouts.WITH_BOXES:
            (box,) = sample.boxes
            assert list(box) == pytest.approx(layouts.BOX)
        else:
            assert sample.boxes == ()


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
