"""A row as a conversation to train on: by role and structure, in its own words, each image at its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cof_agent.data.dialogues import Dialogue, Dialogues
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError

ASK, SAY = {"role": "user", "content": "<image>What colour?"}, {"role": "assistant", "content": "red"}
IMAGE = {"type": "image"}


def read(row: dict[str, Any], **columns: str) -> Dialogue:
    return Dialogues(columns).of(row)


def said(row: dict[str, Any], **columns: str) -> list[tuple[str, str]]:
    """Role and text of each message, an image as `#`."""
    return [
        (message["role"], "".join("#" if part["type"] == "image" else part["text"] for part in message["content"]))
        for message in read(row, **columns).messages
    ]


def images(row: dict[str, Any]) -> list[Any]:
    return [one.value for one in read(row).images]


ANSWERED = [("user", "#What colour?"), ("assistant", "red")]


def test_one_conversation_in_many_layouts() -> None:
    sharegpt = [{"from": "human", "value": "<image>What colour?"}, {"from": "gpt", "value": "red"}]
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "What colour?"}]
    inside = [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What colour?"}]
    url = [{"type": "image_url", "image_url": {"url": "a.jpg"}}, {"type": "text", "text": "What colour?"}]
    rows: list[dict[str, Any]] = [
        {"messages": [ASK, SAY], "images": ["a.jpg"]},
        {"messages": [{"role": "user", "content": parts}, SAY], "images": [{"bytes": None, "path": "a.jpg"}]},
        {"messages": [{"role": "user", "content": inside}, SAY]},
        {"messages": [{"role": "user", "content": url}, SAY]},
        {"message_list": [{"role": "user", "content": inside}, SAY], "qid": "q"},
        {"conversations": sharegpt, "image": "a.jpg", "id": 7},
        {"conversations": json.dumps(sharegpt), "images": ["a.jpg"]},
        {"conversations": {"from": ["human", "gpt"], "value": ["<image>What colour?", "red"]}, "image": "a.jpg"},
        {"texts": [{"user": "<image>What colour?", "assistant": "red"}], "images": ["a.jpg"]},
        {"messages": [{"role": "user", "content": "What colour?"}, SAY], "images": ["a.jpg"]},
        {"prompt": [ASK], "completion": [SAY], "images": ["a.jpg"]},
        {"query": "<image>What colour?", "response": "red", "images": ["a.jpg"]},
        {"instruction": "<image>What colour?", "input": "", "output": "red", "images": ["a.jpg"]},
        {"messages": [{"role": "user", "content": "<img>a.jpg</img>What colour?"}, SAY]},
        {"messages": [ASK | {"images": ["a.jpg"]}, SAY]},
        {"conversations": [{"from": "human", "value": "What colour?", "image": "a.jpg"}, sharegpt[1]]},
        {"messages": [{"role": "user", "content": json.dumps(inside)}, SAY]},
    ]
    for row in rows:
        assert said(row) == ANSWERED, row
        assert images(row) == ["a.jpg"], row
    assert read(rows[5]).id == "7"
    named = {"talk": [ASK, SAY], "pictures": ["a.jpg"], "other": [ASK, {"role": "assistant", "content": "blue"}]}
    assert said(named, messages="talk", images="pictures") == ANSWERED


def test_thoughts_and_calls_beside_a_reply_belong_to_it() -> None:
    arguments = json.dumps({"bbox_2d": [1, 2, 3, 4]})
    call = f'<tool_call>\n{{"name": "zoom", "arguments": {arguments}}}\n</tool_call>'
    old = {"role": "assistant", "content": None, "function_call": {"name": "zoom", "arguments": arguments}}
    seen = {"role": "function", "name": "zoom", "content": "<image>"}
    talk = said({"messages": [ASK, old, seen, SAY], "images": ["a.jpg", "b.jpg"]})
    assert talk[1:3] == [("assistant", call), ("user", "<tool_response>\n#\n</tool_response>")]
    for key in ("reasoning_content", "reasoning", "thinking"):
        row = {"messages": [ASK, SAY | {key: "It is small."}], "images": ["a.jpg"]}
        assert said(row)[-1] == ("assistant", "<think>It is small.</think>\nred")


@pytest.mark.parametrize("key", ["loss", "loss_scale", "loss_weight", "weight", "train", "train_on_turn"])
def test_a_reply_that_is_not_to_be_trained_on_is_none_to_train_on(key: str) -> None:
    with pytest.raises(Unusable, match="not to be trained on"):
        read({"messages": [ASK, SAY | {key: 0}], "images": ["a.jpg"]})
    assert said({"messages": [ASK, SAY | {key: 1}], "images": ["a.jpg"]}) == ANSWERED


@pytest.mark.parametrize("empty", ["", "  \n", None])
def test_a_turn_without_a_word_teaches_to_say_nothing(empty: str | None) -> None:
    turns = [ASK, {"role": "assistant", "content": empty}, {"role": "user", "content": "Well?"}, SAY]
    with pytest.raises(Unusable, match="turn of an assistant without a word"):
        read({"messages": turns, "images": ["a.jpg"]})


def test_roles_tell_who_speaks_not_places() -> None:
    turns = [
        {"from": "system", "value": "Help."},
        {"from": "gpt", "value": "Hi"},
        {"from": "human", "value": "<image>Sign?"},
        {"from": "function_call", "value": '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}'},
        {"from": "observation", "value": "<image>"},
        {"from": "gpt", "value": "EXIT"},
    ]
    call = '<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
    assert said({"conversations": turns, "images": ["a.jpg", "b.jpg"]}) == [
        ("system", "Help."),
        ("assistant", "Hi"),
        ("user", "#Sign?"),
        ("assistant", call),
        ("user", "<tool_response>\n#\n</tool_response>"),
        ("assistant", "EXIT"),
    ]
    asked = {"conversations": turns[2:3] + turns[5:], "system": "Help.", "images": ["a.jpg"]}
    assert said(asked)[0] == ("system", "Help.")
    assert said(asked, system="nowhere")[0] == ("user", "#Sign?")


def test_texts_stay_as_they_are_written() -> None:
    talk = [
        {"role": "user", "content": "  <image>\n Two  spaces\u2028here "},
        {"role": "assistant", "content": "\n<think>a</think><image>b "},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}]},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "done"},
    ]
    with pytest.raises(Unusable, match="part|images"):
        read({"messages": talk[:1] + talk[2:], "images": []})
    assert said({"messages": talk, "images": ["a.jpg"]}) == [
        ("user", "  #\n Two  spaces\u2028here "),
        ("assistant", "\n<think>a</think><image>b "),  # what stands there is text: all images have their places
        ("user", "one two"),
        ("user", "again"),
        ("assistant", "done"),
    ]
    parts = [IMAGE, {"type": "text", "text": "What is <image>?"}]
    assert (
        said({"messages": [{"role": "user", "content": parts}, SAY], "images": ["a.jpg"]})[0][1] == "#What is <image>?"
    )


def test_each_image_goes_to_its_place() -> None:
    numbered = "Is <image 2> like <image 1>?"
    row = {"messages": [{"role": "user", "content": numbered}, SAY], "images": ["a.jpg", "b.jpg"]}
    assert images(row) == ["b.jpg", "a.jpg"]
    assert said(row)[0][1] == "Is # like #?"
    parts = [{"type": "image", "index": 1}, {"type": "image", "index": 0}]
    assert images({"messages": [{"role": "user", "content": parts}, SAY], "images": ["a.jpg", "b.jpg"]}) == [
        "b.jpg",
        "a.jpg",
    ]
    looked = [ASK, SAY, {"role": "tool", "content": [IMAGE]}, SAY]  # a mark here, a part there
    assert images({"messages": looked, "images": ["a.jpg", "b.jpg"]}) == ["a.jpg", "b.jpg"]
    assert said({"messages": looked, "images": ["a.jpg", "b.jpg"]})[0] == ("user", "#What colour?")
    crop = {
        "image": ["a.jpg", "a.jpg###[1, 2, 3, 4]"],
        "conversations": [ASK, SAY, {"role": "user", "content": "<image>"}, SAY],
    }
    assert [one.box for one in read(crop).images] == [None, "[1, 2, 3, 4]"]
    assert images({"messages": [{"role": "user", "content": "Hello"}, SAY]}) == []


def test_what_cannot_be_trained_on_is_named() -> None:
    ask = {"role": "user", "content": "Sign?"}
    code = "<think><code>x</code><sandbox_output><image></sandbox_output></think><answer>red</answer>"
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no conversation", {"question": "What?", "answer": "red", "image": "a.jpg"}),
        ("no conversation", {"image": "a.jpg"}),
        ("no turn of an assistant", {"prompt": [ASK], "images": ["a.jpg"], "reward_model": {"ground_truth": "red"}}),
        ("no turn of an assistant", {"messages": [ASK, {"role": "assistant", "content": " "}], "images": ["a.jpg"]}),
        ("do not match: 1 places for 2", {"messages": [ASK, SAY], "images": ["a.jpg", "b.jpg"]}),
        ("do not match: 1 places for 0", {"messages": [ASK, SAY]}),
        (
            "do not match: 1 places for 1",
            {"messages": [{"role": "user", "content": "<image_3>"}, SAY], "images": ["a.jpg"]},
        ),
        ("cannot be read: role judge", {"messages": [ask, {"role": "judge", "content": "x"}, SAY]}),
        ("audio: part of type audio", {"messages": [{"role": "user", "content": [{"type": "audio"}]}, SAY]}),
        ("video", {"messages": [ask, SAY], "videos": ["a.mp4"]}),
        (
            "image inside a turn of an assistant",
            {"messages": [ask, {"role": "assistant", "content": [IMAGE]}], "images": ["a"]},
        ),
        ("results of tools inside", {"question": "<image>Sign?", "response": code, "image": ["a.jpg", "b.jpg"]}),
        ("reply that is not to be trained on", {"messages": [ask, SAY | {"loss": False}]}),
        ("reply that is not to be trained on", {"messages": [ask, SAY | {"train": False}]}),  # Axolotl
        ("reply that is not to be trained on", {"messages": [ask, SAY | {"train_detail": [{"begin_offset": 0}]}]}),
        ("tools in a column", {"messages": [ask, SAY], "tools": '[{"name": "zoom"}]'}),
        (
            "placeholder",
            {"messages": [{"role": "user", "content": "At <bbox>?"}, SAY], "objects": {"bbox": [[1, 2, 3, 4]]}},
        ),
        ("half a surrogate", {"messages": [ask, {"role": "assistant", "content": "\ud800"}]}),
        ("not an object", ["x"]),  # type: ignore[list-item]
    ]
    for reason, row in cases:
        with pytest.raises(Unusable, match=reason):
            read(row)
    assert said({"question": "<image>What colour?", "answer": "red", "image": "a.jpg"}, answer="answer") == ANSWERED
    with pytest.raises(InputError, match="there is no column 'choices' to map"):
        Dialogues({"choices": "x"})
