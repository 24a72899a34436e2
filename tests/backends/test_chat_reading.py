"""Replies of servers as they are read: what is an error of theirs is none of the model's, and no odd form costs a good answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cof_agent import protocol
from cof_agent.backends.chat.connections import post
from cof_agent.backends.chat.failures import of_error, of_status
from cof_agent.backends.chat.own_server import _refused
from cof_agent.backends.chat.providers import _completion as of_provider
from cof_agent.backends.chat.reading import completion
from cof_agent.errors import InputError
from cof_agent.policy import CONTEXT, GREEDY, PolicyError
from cof_agent.protocol.dialects import dialect
from cof_agent.trajectory import Malformed, Zoom
from tests.loopback import serving
from tests.ports import free_port


def replied(reason: str = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": "half"}, "finish_reason": reason, **choice}]}


@pytest.mark.parametrize(
    ("reply", "said", "transient"),
    [
        (
            replied("error", error={"code": 502, "message": "Provider overloaded"}),
            "Provider overloaded",
            True,
        ),  # OpenRouter
        (replied("error"), "it ended with 'error'", True),
        (replied("abort"), "it ended with 'abort'", True),  # SGLang, vLLM
        ({"object": "error", "message": "context too long", "code": 400}, "context too long", False),
    ],
)
def test_an_error_of_the_server(reply: dict[str, Any], said: str, transient: bool) -> None:
    with pytest.raises(PolicyError, match=said) as found:
        completion(reply, "m", "http://x")
    assert found.value.transient is transient


def test_arguments_that_are_no_text() -> None:
    """As older versions of TGI send them."""
    call = {"function": {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    text = completion({"choices": [{"message": message}]}, "m", "http://x").text
    assert json.dumps({"bbox_2d": [1, 2, 3, 4]}) in text


NAME, BOX = "image_zoom_in_tool", {"bbox_2d": [1, 2, 3, 4]}


@pytest.mark.parametrize("content", ["I will zoom in.", "", None])
@pytest.mark.parametrize(
    "called",
    [
        {"tool_calls": [{"id": "a", "name": NAME, "arguments": BOX}]},
        {"tool_calls": [{"function": {"name": NAME, "parameters": BOX}}]},
        {"function_call": {"name": NAME, "arguments": json.dumps(BOX)}},
        {"tool_calls": [], "function_call": {"name": NAME, "arguments": BOX}},
    ],
)
def test_calls_in_every_form_in_which_servers_send_them(called: dict[str, Any], content: str | None) -> None:
    choice = {"message": {"content": content, **called}, "finish_reason": "tool_calls"}
    text = completion({"choices": [choice]}, "m", "http://x").text
    assert protocol.parse(text, dialect=dialect("native")) == (Zoom((1, 2, 3, 4)),)


@pytest.mark.parametrize("given", [None, [BOX], 7, ""])
def test_arguments_that_are_no_object_stay_in_their_place(given: Any) -> None:
    calls = [{"function": {"name": NAME, "arguments": one}} for one in (json.dumps(BOX), given)]
    choice = {"message": {"content": "I will zoom in.", "tool_calls": calls}, "finish_reason": "tool_calls"}
    text = completion({"choices": [choice]}, "m", "http://x").text
    zoom, refused = protocol.parse(text, dialect=dialect("native"))
    assert zoom == Zoom((1, 2, 3, 4)) and isinstance(refused, Malformed)


def test_a_call_that_the_server_has_lost_is_no_answer() -> None:
    def said(content: str, reason: str) -> str:
        return completion(
            {"choices": [{"message": {"content": content}, "finish_reason": reason}]}, "m", "http://x"
        ).text

    for reason in ("tool_calls", "function_call"):
        with pytest.raises(PolicyError, match="it has no call") as found:
            said("I will zoom in.", reason)
        assert found.value.transient
    call = json.dumps({"name": NAME, "arguments": BOX})
    for content in (f"<tool_call>{call}</tool_call>", call, "<answer>red</answer>"):
        assert said(content, "tool_calls") == content
    assert said("red", "stop") == "red"


def test_calls_that_the_text_still_has_are_made_once() -> None:
    text = '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
    for box, made in (([1, 2, 3, 4], 1), ([5, 6, 7, 8], 2)):
        call = {"function": {"name": "image_zoom_in_tool", "arguments": json.dumps({"bbox_2d": box})}}
        message = {"role": "assistant", "content": text, "tool_calls": [call]}
        assert completion({"choices": [{"message": message}]}, "m", "http://x").text.count("<tool_call>") == made
    thought = f"<think>I could write {text} now.</think> Yes."
    message = {
        "role": "assistant",
        "content": thought,
        "tool_calls": [{"function": {"name": "image_zoom_in_tool", "arguments": "{}"}}],
    }
    said = completion({"choices": [{"message": message}]}, "m", "http://x").text
    assert said.startswith(thought) and said.count("<tool_call>") == 2


def test_an_address_without_v1() -> None:
    pages = (
        "<!doctype html><html>",
        {"detail": "Not Found"},
        "404 page not found",
        "",
        {"error": {"message": "File Not Found"}},
    )
    for body in pages:  # of servers for browsers, FastAPI, Ollama, TGI and llama.cpp
        error = of_status(404, body, {}, "model-of-mine", "http://x")
        assert isinstance(error, InputError) and "mostly ends in /v1" in str(error)
    assert "knows no model m" in str(of_status(404, {"error": {"message": "no such model"}}, {}, "m", "http://x"))


def test_what_gateways_say_of_a_question_that_no_endpoint_takes() -> None:
    body = {"error": {"code": 404, "message": "No endpoints found that support image input"}}
    refused = of_status(404, body, {}, "text-model", "http://x")
    assert isinstance(refused, InputError)
    assert str(refused).startswith("http://x has no endpoint for text-model that takes what it is asked: No endpoints")


def test_a_question_that_moderation_holds_back_is_no_fault_of_the_key() -> None:
    body = {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}}
    held = of_status(403, body, {}, "m", "http://x")
    assert isinstance(held, PolicyError) and str(held).startswith("content filter:") and not held.transient
    assert "refuses the API key" in str(of_status(403, {"error": {"message": "Forbidden"}}, {}, "m", "http://x"))


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        *((reason, False) for reason in ("stop", "STOP", "eos_token", "end_turn", "", None)),
        *(
            (reason, True)
            for reason in ("length", "LENGTH", "max_output_tokens", "model_context_window_exceeded", "repetition")
        ),
    ],
)
def test_a_reason_that_is_no_end_has_cut_the_message_off(reason: Any, cut: bool) -> None:
    assert completion(replied(reason), "m", "http://x").truncated is cut


@pytest.mark.parametrize("message", [{}, {"content": None}, {"content": []}, {"content": None, "tool_calls": []}])
def test_a_message_that_was_cut_off_before_its_first_word(message: dict[str, Any]) -> None:
    for reason in ("length", "MAX_TOKENS"):
        found = completion({"choices": [{"message": message, "finish_reason": reason}]}, "m", "http://x")
        assert found.truncated and found.text == ""
    with pytest.raises(PolicyError, match="holds no text"):
        completion({"choices": [{"message": message, "finish_reason": "stop"}]}, "m", "http://x")


@pytest.mark.parametrize("reason", ["length", "tool_calls"])
def test_a_call_that_ends_within_its_box_is_not_carried_out(reason: str) -> None:
    """The server has taken it out of the text, and vLLM calls it whole."""
    call = {"function": {"name": "image_zoom_in_tool", "arguments": '{"bbox_2d": [100, 100, 400, 30'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = completion({"choices": [{"message": message, "finish_reason": reason}]}, "m", "http://x")
    assert found.truncated and protocol.parse_cut(found.text) == (Malformed("This call was cut off."),)
    call["function"]["arguments"] += "0]}"
    found = completion({"choices": [{"message": message, "finish_reason": reason}]}, "m", "http://x")
    assert protocol.parse_cut(found.text) == (Zoom((100, 100, 400, 300)),)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        (400, {"message": "This model's maximum context length is 4096 tokens."}),
        (500, {"error": "prompt too long; exceeded max context length"}),
        (400, {"message": "The decoder prompt (length 42781) is longer than the maximum model length of 40960."}),
        (400, {"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}),
    ],
)
def test_a_conversation_without_room_is_not_tried_again(status: int, body: Any) -> None:
    error = of_status(status, body, {}, "m", "http://x")
    assert isinstance(error, PolicyError) and str(error).startswith(CONTEXT) and not error.transient


def test_one_name_of_the_limit_is_given_up() -> None:
    body = {"max_completion_tokens": 8, "max_tokens": 8, "top_p": 1.0}
    openai = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    assert _refused({"error": {"message": openai}}, body, GREEDY) == {"max_tokens"}
    assert _refused({"detail": "Unknown field: max_completion_tokens"}, body, GREEDY) == {"max_completion_tokens"}
    assert _refused({"detail": "max_tokens must be less than 4"}, body, GREEDY) == frozenset()


def test_a_proxy_is_blamed_for_its_own_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda path, body: (407, {})) as (proxy, _):
        secret = proxy.replace("http://", "http://me:secret@")
        for name, address in (("HTTP_PROXY", secret), ("HTTPS_PROXY", secret), ("NO_PROXY", "")):
            monkeypatch.setenv(name, address)
            monkeypatch.delenv(name.lower(), raising=False)
        assert isinstance(refused := _asked("http://example.invalid/v1"), InputError)
        assert "asks for a name and a password" in str(refused)
        assert "(HTTPS_PROXY, HTTP_PROXY) does not lead to https://example.invalid/v1" in str(
            _asked("https://example.invalid/v1")
        )
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{free_port()}")
    away = _asked("https://example.invalid/v1")
    assert isinstance(away, PolicyError) and away.outage
    assert "Connection refused" in str(away) and "secret" not in f"{refused}{away}"


def _asked(where: str) -> Exception:
    """What it means that a request comes to nothing."""
    try:
        reply = asyncio.run(post(where, b"{}", {}, timeout=5))
    except Exception as error:  # as of a model
        return of_error(error, "m", where)
    return of_status(reply.status, "", reply.headers, "m", where)


@pytest.mark.parametrize("told", [{"done_reason": "length"}, {"stopReason": "max_tokens"}, {"finish_reason": "length"}])
def test_each_client_of_a_provider_says_in_its_own_way_that_a_reply_is_cut(told: dict[str, str]) -> None:
    """Ollama's, Bedrock's, OpenAI's."""
    messages = pytest.importorskip("langchain_core.messages")
    assert of_provider(messages.AIMessage("half", response_metadata=told), "x", "").truncated
    whole = dict.fromkeys(told, "stop")
    assert not of_provider(messages.AIMessage("whole", response_metadata=whole), "x", "").truncated
