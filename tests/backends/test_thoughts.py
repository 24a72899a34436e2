"""Served models whose templates delete earlier thoughts read the same conversation as in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.utils.chat_template_utils import render_jinja_template

from cof_agent.agent import Agent
from cof_agent.backends.chat.identity import identify
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.template import templated
from cof_agent.geometry import Box
from cof_agent.nano import WEIGHTS
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import Message, write_answer, write_zoom
from tests import loopback
from tests.checkpoints import published_template
from tests.loopback import Body, Reply

ZOOMS = [write_zoom(f"Thought {n}.", Box(100, 100, 600, 400 + n)) for n in range(2)]
TURNS = [
    ZOOMS[0],
    "<think>\nThought.\n</think>\n\n<tool_call>no call</tool_call>",
    ZOOMS[1],
    write_answer("Red.", "red"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((320, 224), 60).convert("RGB").save(path)
    return path


def asked_of_a_server(path: Path, model: str, *, apart: bool, begun: bool = False) -> list[Body]:
    """apart: whether the server takes thoughts out of the text. begun: whether the template has written their first tag."""

    def answer(_: str, body: Body | None) -> Reply:
        if body is None:
            return 404, {}
        text = TURNS[sum(one["role"] == "assistant" for one in body["messages"])]
        thought, _, rest = text.removeprefix("<think>").partition("</think>")
        said = text.removeprefix("<think>") if begun else text
        message = {"reasoning": thought, "content": rest} if apart else {"content": said}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}

    with loopback.serving(answer) as (url, asked):
        found = Agent(model, base_url=f"{url}/v1").ask(path, "Which colour?")
    assert found.answer == "red"
    assert all(turn.text.startswith("<think>") and "</think>" in turn.text for turn in found.turns)
    return asked


def told_by(template: str, messages: Sequence[dict[str, Any]]) -> str:
    """What vLLM makes of messages."""
    known = []
    for message in messages:
        parts = message["content"] if isinstance(message["content"], list) else None
        thought = {"reasoning_content": message["reasoning"]} if "reasoning" in message else {}
        content = message["content"] if parts is None else [_part(part) for part in parts]
        known.append({"role": message["role"], "content": content, **thought})
    (text,), _ = render_jinja_template(conversations=[known], chat_template=template, add_generation_prompt=True)
    return str(text)


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image_url" else part


def told_here(path: Path, template: str, policy: Any) -> list[str]:
    seen: list[list[Message]] = []

    def line(messages: Sequence[Message]) -> str:
        seen.append([*messages])
        return TURNS[len(seen) - 1]

    scripted = ScriptedPolicy(line, coordinates=policy.coordinates, limits=policy.limits)
    Agent(policy=scripted).ask(path, "Which colour?")
    processor = load_processor(str(WEIGHTS))
    processor.chat_template = template
    return [templated(processor, messages, answering=True) for messages in seen]


def test_no_thought_is_lost(path: Path) -> None:
    for name, model, apart, begun in (
        ("qwen3_5_think", "qwen3.5", False, False),
        ("qwen3_5_think", "qwen3.5", False, True),
        ("qwen3_5_think", "qwen3.5", True, False),
        ("qwen3_5_think", "Qwen3-VL-8B-Thinking", False, True),  # with a template in the same manner
        ("qwen3_6", "qwen3.6", False, False),
        ("qwen3_8", "qwen3.8", True, False),
    ):
        template = published_template(name)
        asked = asked_of_a_server(path, model, apart=apart, begun=begun)
        policy = Agent(model, base_url="http://127.0.0.1:9/v1").policy
        texts = [told_by(template, body["messages"]) for body in asked]
        assert texts == told_here(path, template, policy), (name, model, apart, begun)
        assert all(f"Thought{end}" in texts[-1] for end in (" 0.", ".", " 1."))


def test_other_models_get_what_they_are_shown_as_it_is(path: Path) -> None:
    asked = asked_of_a_server(path, "qwen3-vl", apart=False)
    assert "tool_response" not in str(asked)
    assert [one["content"] for one in asked[-1]["messages"] if one["role"] == "assistant"] == TURNS[:-1]


def test_the_template_beside_a_checkpoint_says_whether_it_deletes_thoughts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_5"}')
    for name, forgets in (("qwen3_5_think", True), ("qwen3_6", True), ("qwen3_8", False)):
        (tmp_path / "chat_template.jinja").write_text(published_template(name))
        known = identify("served", [{"id": "served", "root": str(tmp_path)}])
        assert (known.thinks, known.forgets) == (True, forgets)


def test_a_checkpoint_thinks_where_its_template_does(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    for name, thinks in (("qwen3_5_think", True), ("qwen3_vl", False)):
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": published_template(name)}))
        known = identify("served", [{"id": "served", "root": str(tmp_path)}])
        assert (known.thinks, known.forgets) == (thinks, thinks)


def test_a_thought_that_the_template_began_stays_in_a_row_of_training(path: Path) -> None:
    turns = [text.removeprefix("<think>") for text in (ZOOMS[0], TURNS[-1])]
    seen: list[list[Message]] = []

    def line(messages: Sequence[Message]) -> str:
        seen.append([*messages])
        return turns[len(seen) - 1]

    Agent(policy=ScriptedPolicy(line)).ask(path, "Which colour?")
    processor = load_processor(str(WEIGHTS))
    processor.chat_template = published_template("qwen3_5_think")
    assert "Thought 0." in templated(processor, seen[-1], answering=True)
