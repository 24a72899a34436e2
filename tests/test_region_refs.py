"""Regions in a question: words and boxes for any model, crops of them, and bad input in one sentence."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cof_agent import protocol
from cof_agent.cli import main
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View, read_box
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context
from cof_agent.policy import ScriptedPolicy
from cof_agent.region_refs import check_regions, located, mentions, read_region, rounds
from cof_agent.strategies import registry as strategies
from cof_agent.strategies.replay import messages_of
from cof_agent.trajectory import Sample, StopReason, Trajectory, from_json, to_json

ANSWER = protocol.write_answer("I see.", "red")
QUESTION = "What is <region1> holding that <region2> is not?"


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def sample(noise: Path) -> Sample:
    regions = (Box(90, 60, 180, 150), Box(450, 300, 700, 555))
    return Sample("one", str(noise), QUESTION, ("red",), regions=regions)


def played(strategy: str, sample: Sample, script: list[str], system: CoordinateSystem) -> Trajectory:
    policy = ScriptedPolicy(script, coordinates=system)
    way = strategies.by_name(strategy)(policy, ZoomSettings(policy.coordinates, policy.limits))
    return asyncio.run(focus.run(sample, Context(way.policy, ZoomEnvironment(way.settings))))


def test_the_question_names_each_box_in_the_models_own_coordinates(sample: Sample) -> None:
    overview = ZoomEnvironment().reset(sample)
    assert overview.shown_size == Size(896, 588)
    for system, words in {
        CoordinateSystem.ABSOLUTE: "region 1 at [89, 58, 180, 147] holding that region 2 at [448, 294, 697, 544]",
        CoordinateSystem.THOUSAND: "region 1 at [100, 100, 200, 250] holding that region 2 at [500, 500, 778, 925]",
        CoordinateSystem.UNIT: "region 1 at [0.100, 0.100, 0.200, 0.250] holding",
    }.items():
        text = protocol.asked(protocol.opening(sample, overview, system=system))
        assert text.startswith(f"What is {words}") and "<region" not in text


boxes = st.tuples(*[st.floats(-50, 5000)] * 4).map(
    lambda e: Box(min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]), max(e[1], e[3]))
)


@example(Box(0, 0, 1, 1), 1, 23, CoordinateSystem.PADDED)  # the view's own edge cannot be written in three digits
@given(boxes, st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(list(CoordinateSystem)))
def test_what_is_written_can_be_read_back_and_holds_the_region(
    box: Box, width: int, height: int, system: CoordinateSystem
) -> None:
    size = Size(width, height)
    inside = box.clipped(size)
    if inside.width < 0.01 or inside.height < 0.01:
        return
    view = View(size, Box(0, 0, width, height), Size(448, 252))
    (found,) = mentions(located("See <region1>.", [box], view, system))
    assert found.number == 1 and read_box(list(found.box)) == found.box
    assert view.to_source(found.box, system).coverage(inside) > 0.99


def test_a_text_without_regions_is_left_alone(noise: Path) -> None:
    view = ZoomEnvironment().reset(Sample("one", str(noise), "Which?"))
    text = "Is <region1> HTML? <b>region 2</b> at [1, 2]"
    assert located(text, (), view, CoordinateSystem.ABSOLUTE) == text
    for other in ("<region0>", "<region2>"):
        assert located(other, (Box(0, 0, 9, 9),), view, CoordinateSystem.ABSOLUTE) == other
    assert mentions(text) == []


def test_the_crops_come_first_and_count_as_images_to_zoom_into(sample: Sample) -> None:
    nested = protocol.write_zoom("Closer.", Box(100, 100, 150, 150), image=2)
    found = played("regions", sample, ["never said", nested, ANSWER], CoordinateSystem.ABSOLUTE)
    assert (found.answer, found.zooms) == ("red", 3)
    second, last = found.views[2].region, found.views[3].region
    assert second.coverage(last) == 1 and last.area < 0.1 * second.area


@pytest.mark.parametrize("system", list(CoordinateSystem))
def test_the_record_of_crops_is_whole(sample: Sample, system: CoordinateSystem) -> None:
    found = played("regions", sample, ["never said", ANSWER], system)
    assert (found.answer, found.zooms, found.policy) == ("red", 2, "scripted")
    for region, view in zip(sample.regions, found.views[1:], strict=True):
        assert view.region.coverage(region) > 0.999
        assert view.region.area == pytest.approx(1.5**2 * region.area, rel=0.05)
    assert from_json(to_json(found), Trajectory) == found
    assert "region 2 at [" in protocol.asked(messages_of(found))


def test_a_question_without_regions_is_played_as_ever(noise: Path) -> None:
    found = played("regions", Sample("one", str(noise), "Which?", ("red",)), [ANSWER], CoordinateSystem.ABSOLUTE)
    assert (found.answer, found.zooms) == ("red", 0)


def test_a_region_outside_ends_the_run_with_a_sentence(sample: Sample) -> None:
    off = replace(sample, regions=(sample.regions[0], Box(900, 0, 950, 20)))
    found = played("focus", off, [ANSWER], CoordinateSystem.ABSOLUTE)
    assert found.stop is StopReason.ERROR
    assert found.error == "region 2, 900,0,950,20, lies outside the image, which is 900 x 600 pixels."


ONE = ["--region", "90,60,180,150"]
WRONG: list[tuple[str, list[str], str]] = [
    (QUESTION, [], "names <region2>, but no region is given; give a box for each."),
    (QUESTION, ONE, "names <region2>, but only 1 region is given; give a box for each."),
    ("What is <region1>?", ONE + ONE, "has 2 regions, but names no <region2>; write it where it is meant, or"),
    ("What is this?", ONE, "has 1 region, but names no <region1>"),
    ("What is <region0>?", [], "regions are counted from 1."),
    ("What is <region1>?", ["--region", "900,0,950,20"], "lies outside the image, which is 900 x 600 pixels."),
    ("What is <region1>?", ["--region", "90,60,90,150"], "the region 90,60,90,150 has no area"),
    ("What is <region1>?", ["--region", "180,60,90,150"], "the region 180,60,90,150 has no area"),
    (
        "What is <region1>?",
        ["--region", "1,2,3"],
        "must be four numbers X0,Y0,X1,Y1 in pixels of the image, not '1,2,3'",
    ),
    ("What is <region1>?", ["--region", "1,2,nan,4"], "must be four numbers"),
    ("What is <region1>?", ["--region", "left"], "must be four numbers"),
    ("What is this?", ["--region-crops"], "give one with --region X0,Y0,X1,Y1."),
    ("What is <region1>?", [*ONE, "--region-crops", "--max-zooms", "0"], "raise --max-zooms from 0."),
]


@pytest.mark.parametrize(("question", "options", "sentence"), WRONG)
def test_bad_regions_are_one_sentence_before_any_model_is_loaded(
    noise: Path, question: str, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["ask", str(noise), question, *options, "--model", "no/such-model"])
    shown = capsys.readouterr()
    assert code == 2 and sentence in shown.err and shown.out == ""
    assert shown.err.startswith("cof ask: ") and shown.err.count("\n") == 1


def test_a_file_of_samples_is_checked_as_a_whole(noise: Path, tmp_path: Path) -> None:
    row: dict[str, Any] = {"id": "one", "image": "noise.png", "question": QUESTION, "regions": [[1, 2, 3, 4]]}
    row["regions"] = [{"x0": 1, "y0": 2, "x1": 3, "y1": 4}]
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="the question of one names <region2>, but only 1 region is given"):
        read_samples(path)
    path.write_text(json.dumps(row | {"metadata": {"rounds": [["Why?"]]}}) + "\n")
    with pytest.raises(InputError, match=r"the rounds of one are no list of \[question, answer\]"):
        read_samples(path)
    path.write_text(json.dumps(row | {"metadata": {"rounds": [["And <region2>?", "blue"]]}}) + "\n")
    with pytest.raises(InputError, match="only 1 region"):
        read_samples(path)


def test_further_rounds_may_name_what_the_first_does_not(sample: Sample) -> None:
    talk = replace(sample, question="What is <region1>?", metadata={"rounds": [["And <region2>?", "a bat"]]})
    assert rounds(talk) == [("What is <region1>?", "red"), ("And <region2>?", "a bat")]


def test_regions_are_named_in_choices_and_further_rounds_too(sample: Sample) -> None:
    chosen = replace(sample, question="Which is red?", choices=("<region1>", "<region2>"))
    check_regions(chosen)
    assert rounds(chosen) == [("Which is red?\n<region1>\n<region2>", "red")]
    one = replace(sample, question="What is <region1>?", regions=sample.regions[:1])
    check_regions(one)
    with pytest.raises(InputError, match="names <region2>, but only 1 region is given"):
        check_regions(replace(one, metadata={"rounds": [["And <region2>?", "a bat"]]}))
    for edge in (math.inf, math.nan):
        with pytest.raises(InputError, match="region 1 of one is not four finite numbers"):
            check_regions(replace(one, regions=(Box(0, 0, edge, 5),)))


@given(st.text(max_size=30))
def test_a_region_is_read_or_refused(text: str) -> None:
    try:
        box = read_region(text)
    except InputError:
        return
    assert box.area > 0 and all(map(math.isfinite, box))
