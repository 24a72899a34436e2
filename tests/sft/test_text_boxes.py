"""What boxes in texts mean, by evidence of a whole set, and how they follow their image."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cof_agent.backends.families import QWEN2_5_VL, QWEN3_VL
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.protocol.published import boxes_in
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


HALVED = (  # of a box from (560, 280) to (1120, 560)
    "<box>560, 280, 1120, 560</box>",
    "<bbox>[560, 280, 1120, 560]</bbox>",
    "<box>(560, 280), (1120, 560)</box>",
    '"bbox_2d": "560, 280, 1120, 560"',
    '"bbox_2d": [[560, 280], [1120, 560]]',
    '{"bbox_2d": (560, 280, 1120, 560)}',
    '"{\\"bbox_2d\\": [560, 280, 1120, 560]}"',
    "<answer>(560, 280), (1120, 560)</answer>",
    "(560, 280, 1120, 560)",
    '{"x1": 560, "y1": 280, "x2": 1120, "y2": 560}',
    '{"xmin": 560, "ymin": 280, "xmax": 1120, "ymax": 560}',
    "<parameter=bbox_2d>[560, 280, 1120, 560]</parameter><parameter=label>a</parameter>",
    "<arg_key>bbox_2d</arg_key>\n<arg_value>[560, 280, 1120, 560]</arg_value>",
    '{"bbox_2d": ["560", "280", "1120", "560"]}',
    "{'bbox_2d': ['560', '280', '1120', '560'], 'image': 0}",
    '"{\\"bbox_2d\\": [\\"560\\", \\"280\\", \\"1120\\", \\"560\\"]}"',
    '{"bbox_2d": ["560, 280, 1120, 560"]}',
    '{"bbox_2d": "560 280 1120 560"}',
    '{"bbox_2d": [560 280 1120 560]}',
    "<box>560 280 1120 560</box>",
)
KEPT = (  # and how many lists each is, of which it is not known what they mean
    ("<answer>560, 280, 1120, 560</answer>", 1),
    ("560, 280, 1120, 560", 1),
    ('"outline": [[560, 280], [1120, 560], [7, 8]]', 1),
    ('"bbox_2d": [[560, 280], [1120, 560], [7, 8]]', 1),
    ("The corners are (560, 280, 1120, 560).", 1),
    ("It has 560, 280, 1120, 560 and 7 rows.", 0),
    ('"bbox_2d": [560, 280, 1120, 560, 7]', 1),
    ('"bbox_2d": ["560", "280", "1120", "560", "7"]', 1),
    ('"bbox_2d": "560 280 1120"', 1),
    ('"bbox_2d": [+560, 280, 1120, 560]', 1),
    ('"bbox_2d": [5.6e2, 280, 1120, 560]', 1),
    ('"bbox_2d": [["560", "280", "1120", "560"], ["1", "2", "3", "4"]]', 1),
    ('"bbox_2d": {"type": "array"}, "region": "left", "box": "[x1, y1, x2, y2]"', 0),
)


def reply(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


@pytest.mark.parametrize("text", HALVED)
def test_boxes_are_moved_in_every_form_in_which_they_are_read(text: str) -> None:
    made = Evidence()
    made.add(reply(text), [Size(1120, 560)], QWEN25)  # shown at 392 x 196
    assert (made.boxes, made.loose) == (1, 0)
    form = form_of("pixels-xyxy", made, "set")
    moves = {"560": "196", "280": "98", "1120": "392"}
    expected = re.sub(r"\d{3,}", lambda found: "196" if found.start() > text.index("1120") else moves[found[0]], text)
    assert shown(moved(reply(text), [Size(1120, 560)], QWEN25, form)) == [expected]


@pytest.mark.parametrize(("text", "lists"), KEPT)
def test_what_may_be_anything_stays_and_is_counted(text: str, lists: int) -> None:
    made = Evidence()
    made.add(reply(text), [Size(1120, 560)], QWEN25)
    assert (made.boxes, made.loose) == (0, lists)
    form = form_of("pixels-xyxy", made, "set")
    assert shown(moved(reply(text), [Size(1120, 560)], QWEN25, form)) == [text]


def test_boxes_of_a_list_follow_each_other() -> None:
    boxes = [[560, 280, 1120, 560], [0, 0, 560, 280]]
    for text in (
        json.dumps({"bbox_2d": boxes}, indent=2),
        json.dumps({"objects": [{"box": box} for box in boxes]}),
        f"<answer>{boxes[0]}, {boxes[1]}</answer>",
        f"<answer>{boxes}</answer>",
        "<box>(560, 280), (1120, 560)</box><box>(0, 0), (560, 280)</box>",
    ):
        assert [list(box.numbers) for box in boxes_in(text)] == boxes, text
    for text in ('{"bbox": [560, 280, 1120, 560], 7, 8, 9, 10}', '"bbox": [560, 280, 1120, 560], [[1, 2], [3, 4]]'):
        assert len(boxes_in(text)) == 1
    assert boxes_in('"region": "1, 2, 3, 4 and 5"') == []


def test_a_box_lies_in_the_image_that_the_object_around_it_names() -> None:
    for text, images in (
        ('{"img_idx": 1, "region": {"x1": 10, "y1": 20, "x2": 300, "y2": 200}}', [1]),
        ('{"a": {"b": 1}, "bbox_2d": [1, 2, 3, 4], "img_idx": 1}', [1]),
        ('{"objects": [{"a": {"image": 3}}], "bbox_2d": [1, 2, 3, 4], "img_idx": 1}', [1]),
        ('[{"bbox_2d": [1, 2, 3, 4], "target_image": 2}, {"bbox_2d": [5, 6, 7, 8]}]', [1, 0]),
        ('{"objects": [{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}], "img_idx": 2}', [2, 2]),
        ('"{\\"bbox_2d\\": [1, 2, 3, 4], \\"img_idx\\": 2}"', [2]),
    ):
        assert [box.image for box in boxes_in(text)] == images, text


@pytest.mark.parametrize(
    ("said", "image"),
    [
        *((f'"{key}": "1"', 1) for key in ("image", "img_idx", "image_index")),
        ('"imageIndex": 1', 1),
        ('"Image": 1.0', 1),
        ('"target_image": "2"', 1),
        ('"label": "a { b", "image": 1', 1),
        ('"label": "\\"image\\": 3, image: 3"', 0),
        ('"label": "the "red" sign", "image": "1"', 1),  # cannot be read as JSON
        ('"source": "observation_1"', 1),
        ('"source": "original_image"', 0),
        ('"image_id": 1', None),
        ('"image": "the second"', None),
    ],
)
def test_the_image_of_a_box_is_read_as_that_of_a_call(said: str, image: int | None) -> None:
    for text in (
        f'{{"bbox_2d": [560, 280, 600, 300], {said}}}',
        f'<tool_call>{{"name": "zoom", "arguments": {{"bbox_2d": [560, 280, 600, 300], {said}}}}}</tool_call>',
        json.dumps({"name": "zoom", "arguments": f'{{{said}, "bbox_2d": [560, 280, 600, 300]}}'}),
    ):
        assert [box.image for box in boxes_in(text)] == [image], text


def test_a_box_of_an_image_that_cannot_be_told_is_left_out_but_of_a_single_image() -> None:
    text = '{"bbox_2d": [560, 280, 1120, 560], "image_id": 1}'
    form, big = form_of("pixels-xyxy", Evidence(), "set"), Size(1120, 560)
    assert shown(moved(reply(text), [big], QWEN25, form)) == ['{"bbox_2d": [196, 98, 392, 196], "image_id": 1}']
    with pytest.raises(Unusable, match="not clear in which"):
        moved(reply(text), [big, big], QWEN25, form)


@pytest.mark.parametrize("text", ["a, b" + " " * 100_000 + "x", "[ " * 50_000, "(1,2)," * 50_000, "{" * 50_000])
def test_texts_of_any_length_are_read_at_once(text: str) -> None:
    assert boxes_in(text) == []


def test_a_call_in_xml_names_its_image_too() -> None:
    head = "<function=zoom><parameter=bbox_2d>[200, 140, 400, 280]</parameter>"
    text = head + "<parameter=img_idx>1</parameter></function>"
    assert [box.image for box in boxes_in(f"{head}<parameter=imageIndex>1</parameter></function>")] == [1]
    form = form_of("pixels-xyxy", Evidence(), "set")
    found = shown(moved(reply(text), [Size(1120, 560), Size(400, 280)], QWEN25, form))
    shown_size = QWEN25.fitted(Size(400, 280))
    assert f"{shown_size.width}, {shown_size.height}]" in found[0]


def test_a_box_beyond_its_image_is_left_out() -> None:
    form = form_of("pixels-xyxy", Evidence(), "set")
    prompt, answer = talk([700, 500, 938, 952])[1:]
    with pytest.raises(
        Unusable, match=r"beyond its image: \[700.0, 500.0, 938.0, 952.0\] in pixels, in an image of 640 x 420"
    ):
        moved([answer], [Size(640, 420)], QWEN25, form)
    moved([prompt], [Size(640, 420)], QWEN25, form)  # where it may be an example of what to write


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
    assert made.note(None) == "1 lists of numbers stay as they are; 1 points (point_2d) stay as they are"


def test_numbers_that_may_be_either_are_refused_where_it_matters() -> None:
    large, whole = Size(2000, 1500), Size(280, 280)
    with pytest.raises(
        InputError, match="of set all lie within 1000 of images that are larger.*--boxes pixels-xyxy or"
    ):
        form_of(None, evidence(([100, 100, 900, 900], large)), "set")
    with pytest.raises(InputError, match="lie outside their images in 2 of 4 cases, and go beyond 1000"):
        form_of(None, evidence(([100, 100, 1200, 90], whole), ([100, 100, 1900, 900], large)), "set")
    assert form_of("thousand-xyxy", evidence(([100, 100, 900, 900], large)), "set") is None
    with pytest.raises(InputError, match="cannot be rewritten from padded-xyxy"):
        form_of("padded-xyxy", evidence(([100, 100, 900, 900], large)), "set")
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
