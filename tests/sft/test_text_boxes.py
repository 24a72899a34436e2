"""What boxes in texts mean, by evidence of a whole set, and how they follow their image."""

from __future__ import annotations

from typing import Any

import pytest

from cof_agent.backends.families import QWEN2_5_VL, QWEN3_VL
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from sft.conversations.boxes import Evidence, form_of, moved
from sft.frame import Frame

QWEN25 = Frame(QWEN2_5_VL, 28, 3136, 100 * 28 * 28)
QWEN3 = Frame(QWEN3_VL, 32, 4096, 144 * 64 * 64)


def talk(*boxes: list[float], **more: int) -> list[dict[str, Any]]:
    """A system message, a question and a reply that have these boxes."""
    rest = "".join(f', "{name}": {value}' for name, value in more.items())
    text = " ".join(f'{{"bbox_2d": {list(box)}{rest}}}' for box in boxes)
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role in ("system", "user", "assistant")]


def shown(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"][0]["text"] for message in messages]


def evidence(*talks: tuple[list[float], Size], frame: Frame = QWEN25) -> Evidence:
    made = Evidence()
    for box, size in talks:
        made.add(talk(box), [size], frame)
    return made


def test_pixels_of_a_file_become_the_models_own_coordinates() -> None:
    size, big = Size(560, 280), Size(1120, 560)  # the second is shown at 392 x 196
    form = form_of(None, evidence(([100, 100, 1100, 280], big)), "set")
    assert form is not None
    system, user, reply = shown(moved(talk([560, 280, 1120, 560]), [big], QWEN25, form))
    assert system == shown(talk([560, 280, 1120, 560]))[0]
    assert user == reply == '{"bbox_2d": [196, 98, 392, 196]}'
    assert shown(moved(talk([10, 20, 30, 40]), [Size(280, 280)], QWEN25, form))[2] == '{"bbox_2d": [10, 20, 30, 40]}'
    second = shown(moved(talk([560, 280, 1120, 560], img_idx=1), [size, big], QWEN25, form))[2]
    assert second == '{"bbox_2d": [196, 98, 392, 196], "img_idx": 1}'
    thousandths = shown(moved(talk([560, 280, 1120, 560], [0.1, 0.2, 0.3, 0.4]), [big], QWEN3, form))[2]
    assert thousandths == '{"bbox_2d": [500, 500, 1000, 1000]} {"bbox_2d": [0.1, 0.2, 0.3, 0.4]}'
    tiny = shown(moved(talk([600, 300, 601, 301], [1000, 500, 1125, 566]), [big], QWEN25, form))[2]
    assert tiny == '{"bbox_2d": [210, 105, 211, 106]} {"bbox_2d": [350, 175, 392, 196]}'
    with pytest.raises(Unusable, match="a box in image 3"):
        moved(talk([560, 280, 1120, 560], img_idx=3), [big], QWEN25, form)


def test_relative_numbers_stay_as_they_are() -> None:
    small = Size(600, 420)
    unit = evidence(([0.1, 0.2, 0.5, 0.6], small))
    assert form_of(None, unit, "set") is None and unit.note(None) == ""
    thousand = evidence(([100, 100, 950, 900], small), ([10, 20, 300, 40], small))
    assert form_of(None, thousand, "set") is None
    assert "stay as they are" in thousand.note(None)
    messages = talk([100, 100, 950, 900])
    assert moved(messages, [small], QWEN25, None) == messages


def test_what_is_not_moved_is_counted() -> None:
    made = Evidence()
    text = 'The sign is at [1200, 340, 1500, 620], its middle at {"point_2d": [1350, 480]}.'
    made.add([{"role": "assistant", "content": [{"type": "text", "text": text}]}], [Size(4000, 3000)], QWEN25)
    assert made.note(None) == "1 lists of four numbers stay as they are; 1 points (point_2d) stay as they are"


def test_numbers_that_may_be_either_are_refused_where_it_matters() -> None:
    large, whole = Size(2000, 1500), Size(280, 280)
    with pytest.raises(
        InputError, match="of set all lie within 1000 of images that are larger.*--boxes pixels-xyxy or"
    ):
        form_of(None, evidence(([100, 100, 900, 900], large)), "set")
    with pytest.raises(InputError, match="lie outside their images in 2 of 4 cases, and go beyond 1000"):
        form_of(None, evidence(([100, 100, 1200, 90], whole), ([100, 100, 1900, 900], large)), "set")
    assert form_of("thousand-xyxy", evidence(([100, 100, 900, 900], large)), "set") is None
    assert form_of("none", evidence(([100, 100, 900, 900], large)), "set") is None
    assert str(form_of("pixels-xywh", evidence(([100, 100, 900, 900], large)), "set")) == "pixels-xywh"
    assert form_of(None, evidence(([100, 100, 200, 200], whole)), "set") is None  # no number would change
    assert form_of(None, evidence(([100, 100, 200, 200], whole), frame=QWEN3), "set") is not None
    with pytest.raises(InputError, match="--boxes must be one of"):
        form_of("furlongs", Evidence(), "set")


def test_width_and_height_and_sizes_in_words_follow_too() -> None:
    big = Size(1120, 560)
    form = form_of("pixels-xywh", Evidence(), "set")
    assert shown(moved(talk([560, 280, 560, 280]), [big], QWEN25, form))[2] == '{"bbox_2d": [196, 98, 196, 98]}'
    said = [{"role": "user", "content": [{"type": "text", "text": "Its size is 1120 x 560, not 1120 x 561."}]}]
    assert shown(moved(said, [big], QWEN25, form)) == ["Its size is 392 x 196, not 1120 x 561."]
