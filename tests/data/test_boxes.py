"""What the numbers of a set's boxes are: recognised, or refused with the option that says it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cof_agent.data.boxes import (
    FORMS,
    Form,
    Numbers,
    Written,
    corners,
    form_named,
    in_pixels,
    may_be_thousandths,
    recognised,
    written,
)
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size

SIZE = Size(640, 420)
SMALL = [
    (300.0, 200.0, 330.0, 220.0),
    (500.0, 50.0, 540.0, 70.0),
    (90.0, 380.0, 140.0, 410.0),
    (20.0, 30.0, 60.0, 90.0),
]


AT_THE_EDGE = (2.0, 30.0, 60.0, 90.0)  # as a middle with a size it would lie outside


def boxes(found: list[Numbers], size: Size | None = SIZE) -> list[Written]:
    return [Written(numbers, size=size) for numbers in found]


def with_size(found: list[Numbers]) -> list[Numbers]:
    """Corners as x, y, width and height."""
    return [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in found]


def scaled(found: list[Numbers], across: float, down: float) -> list[Numbers]:
    return [(x0 * across, y0 * down, x1 * across, y1 * down) for x0, y0, x1, y1 in found]


@pytest.mark.parametrize(
    ("found", "form"),
    [
        (SMALL, "pixels-xyxy"),
        (with_size(SMALL), "pixels-xywh"),
        (scaled(SMALL, 1 / 640, 1 / 420), "unit-xyxy"),
        (with_size(scaled([*SMALL, AT_THE_EDGE], 1 / 640, 1 / 420)), "unit-xywh"),
        (scaled(SMALL, 1000 / 640, 1000 / 420), "thousand-xyxy"),
        (SMALL[:1], "pixels-xyxy"),
        ([(640.0, 420.0, 10.0, 20.0)], "pixels-xyxy"),  # reversed: as width and height it lies outside, as a centre too
        ([*SMALL * 20, (330.0, 220.0, 300.0, 200.0)], "pixels-xyxy"),  # one of many is reversed
    ],
)
def test_the_form_is_seen_from_all_boxes(found: list[Numbers], form: str) -> None:
    assert str(recognised(boxes(found), "rows.json")) == form


def test_small_boxes_may_be_yolos() -> None:
    with pytest.raises(
        InputError, match="may begin with a corner or, as YOLO writes them, with their middle; say what"
    ):
        recognised(boxes(with_size(scaled(SMALL, 1 / 640, 1 / 420))), "rows.json")


def test_few_boxes_within_1000_of_large_images_may_be_thousandths() -> None:
    few = boxes([(100.0, 100.0, 200.0, 140.0), (700.0, 20.0, 900.0, 90.0)], Size(3840, 2160))
    assert may_be_thousandths(few, recognised(few, "rows.json"))
    far = [*few, *boxes([(1200.0, 20.0, 1300.0, 90.0)], Size(3840, 2160))]
    assert not may_be_thousandths(far, recognised(far, "rows.json"))
    small = boxes([(100.0, 100.0, 200.0, 140.0)])
    assert not may_be_thousandths(small, recognised(small, "rows.json"))


def test_a_box_in_cocos_form_stands_beside_cocos_columns() -> None:
    few = boxes([(100.0, 100.0, 200.0, 140.0)] * 3)
    assert str(recognised(few, "rows.json", coco=True)) == "pixels-xywh"
    assert str(recognised(few, "rows.json")) == "pixels-xyxy"
    assert (
        str(recognised(boxes(SMALL), "rows.json", coco=True)) == "pixels-xyxy"
    )  # as width and height they lie outside


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([(0.1, 0.1, 0.2, 0.2), (200.0, 150.0, 300.0, 200.0)], "are mixed: 1 of 2 are within 0..1"),
        ([(300.0, 240.0, 100.0, 100.0)], "are no corners"),  # reversed, or width and height
        ([(100.0, 100.0, 5000.0, 300.0)], "lie outside their images"),
        (with_size(SMALL)[:2], "are no corners"),  # too few to tell
    ],
)
def test_what_cannot_be_told_is_refused(found: list[Numbers], sentence: str) -> None:
    with pytest.raises(InputError, match=rf"the boxes of rows\.json {sentence}.*say what they are with --boxes"):
        recognised(boxes(found), "rows.json")


def test_many_boxes_in_one_corner_of_large_images_may_be_in_thousandths() -> None:
    found = [(x, y, x + 40.0, y + 40.0) for x in range(0, 960, 160) for y in range(0, 960, 160)]
    with pytest.raises(InputError, match="they may be in pixels or in 0..1000"):
        recognised(boxes([(*box[:3], 950.0) for box in found], Size(4000, 3000)), "rows.json")
    few = boxes([(x, 20.0, x + 40.0, 950.0) for x in range(0, 960, 40)], Size(1920, 1080))
    with pytest.raises(InputError, match="they may be in pixels or in 0..1000"):
        recognised(few, "rows.json")
    assert str(recognised(few[:14], "rows.json")) == "pixels-xyxy"


def test_keys_say_what_a_box_is() -> None:
    (one,) = written({"x": 1, "y": 2, "width": 3, "height": 4}, SIZE)
    assert in_pixels(one, Form()) == Box(1, 2, 4, 6)
    (one,) = written({"x0": 5, "y0": 6, "x1": 3, "y1": 4})
    assert in_pixels(one, Form()) == Box(3, 4, 5, 6)
    assert in_pixels(written("[[1, 2, 3, 4]]")[0], Form()) == Box(1, 2, 3, 4)


@pytest.mark.parametrize(
    "found", [[1, 2, 3], "text", [1, 2, 3, float("nan")], ["a", 2, 3, 4], {"left": 1}, [[1, 2], [3, 4, 5]], 7]
)
def test_what_is_no_box(found: Any) -> None:
    with pytest.raises(Unusable, match="box is not four numbers"):
        written(found)


def test_a_box_outside_its_image_is_none() -> None:
    assert in_pixels(Written((700.0, 10.0, 800.0, 20.0), size=SIZE), Form()) is None
    assert in_pixels(Written((600.0, 10.0, 800.0, 20.0), size=SIZE), Form()) == Box(600, 10, 640, 20)
    with pytest.raises(Unusable):
        in_pixels(Written((0.1, 0.1, 0.2, 0.2)), Form("unit"))


def test_forms_by_name() -> None:
    assert [str(form_named(name)) for name in FORMS] == list(FORMS)
    with pytest.raises(InputError, match="--boxes must be one of pixels-xyxy"):
        form_named("xywh")


EDGES = st.integers(0, 600)
BOXES = st.tuples(EDGES, EDGES, st.integers(2, 60), st.integers(2, 60)).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(BOXES, st.sampled_from(FORMS))
def test_a_box_comes_back_from_every_form(box: Box, name: str) -> None:
    form, size = form_named(name), Size(660, 660)
    scale = {"pixels": 1.0, "unit": 1 / 660, "padded": 1 / 660, "thousand": 1000 / 660}[form.unit]
    x0, y0, x1, y1 = (edge * scale for edge in box)
    numbers = {
        "xyxy": (x0, y0, x1, y1),
        "xywh": (x0, y0, x1 - x0, y1 - y0),
        "cxcywh": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
    }[form.order]
    found = in_pixels(Written(numbers, size=size), form)
    assert found is not None and list(found) == pytest.approx(list(box), abs=0.01)


@given(st.tuples(*[st.floats(-10, 10)] * 4))
def test_corners_are_in_order(numbers: Numbers) -> None:
    x0, y0, x1, y1 = corners(numbers, "xyxy")
    assert x0 <= x1 and y0 <= y1 and sorted((x0, x1)) == sorted((numbers[0], numbers[2]))


@given(st.lists(BOXES, min_size=6, max_size=30, unique=True))
def test_small_boxes_are_recognised_or_refused_but_never_misread(found: list[Box]) -> None:
    size = Size(660, 660)
    for order, numbers in (("xyxy", [tuple(box) for box in found]), ("xywh", with_size([tuple(box) for box in found]))):
        try:
            form = recognised([Written(one, size=size) for one in numbers], "rows.json")  # type: ignore[arg-type]
        except InputError:
            continue
        if order == "xyxy" or any(one[2] <= one[0] or one[3] <= one[1] for one in numbers):
            assert form == Form("pixels", order)  # type: ignore[arg-type]
