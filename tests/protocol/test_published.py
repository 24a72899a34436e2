"""Boxes, calls and results in texts that others wrote: found by their keys and tags, everything else left as it is."""

from __future__ import annotations

import pytest

from cof_agent.protocol.published import boxes_in, called, holds_results, loose_lists, with_boxes, with_sizes

CALL = '<tool_call>\n{"name": "crop", "arguments": {"bbox_2d": [10, 20, 30.5, 40], "target_image": 2}}\n</tool_call>'


def found(text: str) -> list[tuple[tuple[float, ...], int | None]]:
    return [(box.numbers, box.image) for box in boxes_in(text)]


def test_boxes_are_known_by_the_key_or_tag_before_them() -> None:
    cases = {
        CALL: [((10, 20, 30.5, 40), 1)],
        CALL.replace('"target_image": 2', '"img_idx": 2'): [((10, 20, 30.5, 40), 2)],
        CALL.replace(', "target_image": 2', ""): [((10, 20, 30.5, 40), 0)],
        CALL.replace('"target_image": 2', '"source": "observation_2"'): [((10, 20, 30.5, 40), 2)],
        CALL.replace('"target_image": 2', '"source": "original_image"'): [((10, 20, 30.5, 40), 0)],
        "The flag <box>[1,2,3,4]</box> and <box>(5,6),(7,8)</box>": [((1, 2, 3, 4), 0), ((5, 6, 7, 8), 0)],
        "<answer>[1, 2, 3, 4]</answer>": [((1, 2, 3, 4), 0)],
        " [0.1, 0.2, 0.3, 0.4]\n": [((0.1, 0.2, 0.3, 0.4), 0)],
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {\'box\': [5, 6, 7, 8]}]': [((1, 2, 3, 4), 0), ((5, 6, 7, 8), 0)],
        '{"bboxes": [[1, 2, 3, 4], [5, 6, 7, 8]]}': [((1, 2, 3, 4), 0), ((5, 6, 7, 8), 0)],
        "<function=zoom><parameter=bbox_2d>\n[1, 2, 3, 4]\n</parameter>": [((1, 2, 3, 4), 0)],
        "image_1.crop((1, 2, 3, 4))": [],
        'The numbers are [1, 2, 3, 4]; "values": [1, 2, 3, 4]': [],
        '"bbox_2d": [1, 2, 3]': [],
    }
    for text, expected in cases.items():
        assert found(text) == expected, text
    assert loose_lists("Add [1, 2, 3, 4] to " + CALL) == 1


def test_only_numbers_change_and_keep_their_decimals() -> None:
    moved = with_boxes(CALL, lambda box: [number / 3 for number in box.numbers])
    assert moved == CALL.replace("[10, 20, 30.5, 40]", "[3, 7, 10.2, 13]")
    assert with_boxes("no box [1, 2, 3, 4]", lambda box: (0, 0, 0, 0)) == "no box [1, 2, 3, 4]"
    assert with_sizes("Image Size: 400x280, not 4000 x 280 or 1.400x280", {(400, 280): (392, 280)}) == (
        "Image Size: 392x280, not 4000 x 280 or 1.400x280"
    )


def test_a_trace_in_one_turn_is_known_by_what_no_assistant_writes() -> None:
    assert holds_results("<code>x</code>\n<sandbox_output><image></sandbox_output>")
    assert holds_results("<think><code>x</code> so</think><answer>red</answer>")
    assert not holds_results("<think>crop</think>\n<code>x</code>")
    assert not holds_results("<think>see</think><answer>red</answer>")


def test_calls_kept_apart_are_written_as_the_models_write_them() -> None:
    calls = [{"type": "function", "function": {"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4], "label": None}}}]
    written = '<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
    assert called("Look.", "", calls) == f"Look.\n{written}"
    assert called("", "Small.", [{"name": "zoom", "arguments": '{"bbox_2d": [1, 2, 3, 4]}'}]) == (
        f"<think>Small.</think>\n{written}"
    )
    assert called(" As it is ", "", []) == " As it is "
    with pytest.raises(ValueError, match="without the name"):
        called("", "", [{"arguments": {}}])
