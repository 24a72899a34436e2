"""Native tools on servers: each provider's real wire format, on loopback, with the rules that the provider itself checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.chat.native import strict, with_calls
from cof_agent.backends.chat.policy import ChatPolicy
from cof_agent.backends.chat.providers import Provider
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.trajectory import StopReason, Trajectory
from tests import loopback
from tests.dialects import saved
from tests.loopback import Body, Reply

ZOOM = {"bbox_2d": [100, 100, 400, 400]}
NAME = "image_zoom_in_tool"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "slope.png"
    Image.linear_gradient("L").resize((1600, 1200)).convert("RGB").save(path)
    return path


@contextmanager
def serving(answer: Callable[[str, Body], Reply]) -> Iterator[tuple[str, list[Body]]]:
    """A server that answers a path and a body so: its address, and the bodies that it gets."""
    with loopback.serving(lambda path, body: (404, {}) if body is None else answer(path, body)) as served:
        yield served


def play(model: str, url: str, image: Path, **given: Any) -> Trajectory:
    return Agent(model, base_url=url, dialect="native", coordinates="thousand", timeout=20, **given).ask(image, "What?")


def checked(found: Trajectory, turns: int = 2) -> None:
    assert (found.stop, found.answer, len(found.turns)) == (StopReason.ANSWERED, "STOP", turns), found.error
    assert found.zooms == turns - 1 and found.views[1].region.width < 1600


# OpenAI's interface, as vLLM, SGLang and OpenAI itself speak it


def openai(body: Body, *, calls: int = 1, thought: str | None = None, text: str | None = None) -> Reply:
    """Calls first, and answers once it has been shown something."""
    told = {"id": "call_x", "type": "function", "function": {"name": NAME, "arguments": json.dumps(ZOOM)}}
    seen = any(message["role"] == "tool" for message in body["messages"])
    message = {"role": "assistant", "content": "STOP"} if seen else {"content": text, "tool_calls": [told] * calls}
    message |= {"reasoning_content": thought} if thought else {}
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": "stop" if seen else "tool_calls",
    }
    return 200, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def wrong_for_openai(messages: Sequence[Body]) -> str | None:
    """What OpenAI itself refuses a conversation for."""
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            if not isinstance(message["content"], str):
                return "image_url is only allowed in messages with role 'user'"
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return "an assistant message with 'tool_calls' must be followed by tool messages"
        waiting |= {call["id"] for call in message.get("tool_calls", ())}
    return None


def test_an_own_server_is_shown_what_the_model_s_own_template_has(image: Path) -> None:
    with serving(lambda path, body: openai(body, thought="I look.")) as (url, asked):
        checked(found := play("qwen3-vl", f"{url}/v1", image))
    first, second = asked
    (tool,) = first["tools"]
    assert tool["function"]["name"] == NAME and "tool" not in first["messages"][0]
    assert found.turns[0].text == (
        f'<think>I look.</think>\n<tool_call>\n{{"name": "{NAME}", "arguments": {json.dumps(ZOOM)}}}\n</tool_call>'
    )
    system, user, said, seen = second["messages"]
    assert [system, user] == first["messages"]
    call = {"id": "call00000", "type": "function", "function": {"name": NAME, "arguments": json.dumps(ZOOM)}}
    assert said == {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [call]}
    assert (seen["role"], seen["tool_call_id"]) == ("tool", "call00000")
    assert [part["type"] for part in seen["content"]] == ["image_url", "text"]


def test_a_thought_that_came_in_the_text_goes_back_in_it(image: Path) -> None:
    with serving(lambda path, body: openai(body, text="<think>I look.</think>\n\n")) as (url, asked):
        checked(play("qwen3-vl", f"{url}/v1", image))
    said = asked[1]["messages"][2]
    assert said["content"] == "<think>I look.</think>" and "reasoning_content" not in said


def test_a_server_that_holds_to_the_letter_is_asked_to_the_letter(image: Path) -> None:
    def answer(path: str, body: Body) -> Reply:
        wrong = wrong_for_openai(body["messages"])
        return (400, {"error": {"message": wrong}}) if wrong else openai(body, calls=2)

    with serving(answer) as (url, asked):
        agent = Agent("qwen3-vl", base_url=f"{url}/v1", dialect="native", max_zooms=1)
        for _ in range(2):
            found = agent.ask(image, "What?")
            assert (found.answer, found.zooms) == ("STOP", 1)
    assert len(asked) == 5  # one was refused, and no other
    *_, first, second, shown = asked[-1]["messages"]
    assert (
        first["content"].startswith("Image 1")
        and second["content"] == "No zooms are left: answer with what you have seen."
    )
    assert shown["role"] == "user" and [part["type"] for part in shown["content"]] == ["image_url"]


def test_vllm_without_a_tool_parser(image: Path) -> None:
    def answer(path: str, body: Body) -> Reply:
        if body.get("tool_choice") != "none":
            words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            return 400, {"error": {"message": words, "type": "BadRequestError", "code": 400}}
        status, reply = openai(body)
        message = reply["choices"][0]["message"]
        if message.pop("tool_calls", None):
            call = json.dumps({"name": NAME, "arguments": ZOOM})
            message["content"] = f"I look.\n<tool_call>\n{call}\n</tool_call>"
        return status, reply

    with serving(answer) as (url, asked):
        checked(play("qwen3-vl", f"{url}/v1", image))
    assert [body.get("tool_choice") for body in asked] == [None, "none", "none"]
    assert asked[-1]["messages"][2]["content"] == "I look."


@pytest.mark.slow
def test_langchain_s_client_of_openai(image: Path) -> None:
    def answer(path: str, body: Body) -> Reply:
        wrong = wrong_for_openai(body["messages"])
        return (400, {"error": {"message": wrong}}) if wrong else openai(body, calls=2)

    with serving(answer) as (url, asked):
        options = {"base_url": url, "api_key": "k", "max_retries": 0, "use_responses_api": False}
        client = Provider("gpt-5", "openai", options)
        policy = ChatPolicy("gpt-5", client, coordinates=CoordinateSystem.THOUSAND, limits=PixelLimits())
        found = Agent(policy=policy, dialect="native").ask(image, "What?")
    assert (found.answer, found.zooms) == ("STOP", 2)
    assert asked[0]["tools"][0]["function"]["name"] == NAME and len(asked) == 2


@pytest.mark.parametrize("dialect", ["ours", "deepeyes"])
def test_calls_that_a_server_has_read_are_understood_in_other_dialects(
    image: Path, dialect: str, tmp_path: Path
) -> None:
    def answer(path: str, body: Body) -> Reply:
        status, reply = openai(body)
        if len(body["messages"]) > 2:
            reply["choices"][0]["message"] = {"content": "<think>Now.</think>\n<answer>STOP</answer>"}
        return status, reply

    with serving(answer) as (url, asked):
        checked(Agent("qwen3-vl", base_url=f"{url}/v1", dialect=saved(dialect, tmp_path)).ask(image, "What?"))
    assert "tools" not in asked[0] and {message["role"] for message in asked[1]["messages"]} <= {
        "system",
        "user",
        "assistant",
    }


# Anthropic and Google, through LangChain's clients of theirs


def anthropic(path: str, body: Body) -> Reply:
    """Anthropic's messages, with their rules."""
    messages = body["messages"]
    assert path == "/v1/messages" and isinstance(body["system"], str) and body["tools"][0]["input_schema"]
    for before, after in zip([None, *messages], [*messages, None], strict=True):
        assert not (before and after) or before["role"] != after["role"]
        used = [part["id"] for part in before["content"] if part["type"] == "tool_use"] if before else []
        told = [part["tool_use_id"] for part in after["content"] if part["type"] == "tool_result"] if after else []
        assert used == told
    seen = len(messages) > 1
    thought = {"type": "thinking", "thinking": "I look.", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "toolu_01", "name": NAME, "input": ZOOM}
    content = [{"type": "text", "text": "STOP"}] if seen else [thought, call]
    usage = {"input_tokens": 5, "output_tokens": 7}
    reason = "end_turn" if seen else "tool_use"
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}
    return 200, {**head, "content": content, "stop_reason": reason, "usage": usage}


@pytest.mark.slow
def test_anthropic(image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("langchain_anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with serving(anthropic) as (url, asked):
        checked(found := play("anthropic:claude-sonnet-4-5", url, image, seed=3))
    assert found.turns[0].text.startswith("<think>I look.</think>\n<tool_call>")
    assert (found.turns[0].tokens.prompt, found.turns[0].tokens.completion) == (5, 7)
    result, picture = asked[1]["messages"][-1]["content"]
    assert result["content"].startswith("Image 1") and picture["source"]["media_type"] == "image/png"
    assert "anthropic takes no seed" in caplog.text and caplog.text.count("seed") == 1


def google(path: str, body: Body) -> Reply:
    """Google's `generateContent`."""
    contents = body["contents"]
    assert path.endswith(":generateContent") and body["systemInstruction"]["parts"]
    assert body["tools"][0]["functionDeclarations"][0]["name"] == NAME
    used = [part for one in contents for part in one["parts"] if "functionCall" in part]
    told = [part for one in contents for part in one["parts"] if "functionResponse" in part]
    assert len(used) == len(told)
    call = [
        {"text": "I look.", "thought": True},
        {"functionCall": {"name": NAME, "args": ZOOM}, "thoughtSignature": "c2ln"},
    ]
    parts = [{"text": "STOP"}] if told else call
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    return 200, {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini"}


@pytest.mark.slow
def test_google(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_google_genai")
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    with serving(google) as (url, asked):
        checked(found := play("google_genai:gemini-2.5-flash", url, image, seed=3))
    assert found.turns[0].text.startswith("<think>I look.</think>\n<tool_call>")
    response, picture = (part for one in asked[1]["contents"][-2:] for part in one["parts"])
    assert response["functionResponse"]["response"]["output"].startswith("Image 1")
    assert picture["inlineData"]["mime_type"] == "image/png" and asked[1]["generationConfig"]["seed"]


# The conversions themselves


def test_results_of_what_nobody_could_read_are_told_by_the_user() -> None:
    broken = "<tool_call>{</tool_call>"
    call = f'<tool_call>\n{{"name": "{NAME}", "arguments": {{}}}}\n</tool_call>'
    messages: list[Body] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": f"{broken}\n{call}"},
        {"role": "tool", "content": "That was no JSON."},
        {"role": "tool", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "Write something."},
        {"role": "assistant", "content": f"{call}{call}"},
        {"role": "tool", "content": "No."},
    ]
    asked = with_calls(messages, "")
    assert [one["tool_call_id"] for one in asked if one["role"] == "tool"] == [
        "call00000",
        "call00001",
        "call00002",
        "call00003",
    ]
    assert asked[1]["content"] == broken and [one["id"] for one in asked[1]["tool_calls"]] == ["call00001"]
    told = strict(asked)
    assert wrong_for_openai(told) is None
    assert [one["role"] for one in told] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "tool",
    ]
    assert told[2]["content"] == "The image follows."
    assert [part["type"] for part in told[3]["content"]] == ["text", "image_url"]
    assert told[5]["content"] == [{"type": "text", "text": "Write something."}]
    assert told[-1]["content"] == "This call was not carried out."


def test_where_results_are_the_user_s_messages_calls_are_text() -> None:
    call = f'<think>a</think>\n<tool_call>\n{{"name": "{NAME}", "arguments": {{}}}}\n</tool_call>'
    messages = [
        {"role": role, "content": text} for role, text in (("user", "?"), ("assistant", call), ("user", "Seen."))
    ]
    assert with_calls(messages, "reasoning_content") == strict(messages) == messages
