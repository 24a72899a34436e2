"""Replies of servers as they are read: what is an error of theirs is none of the model's, and no odd form costs a good answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cof_agent.backends.chat.failures import of_status
from cof_agent.backends.chat.own_server import _refused
from cof_agent.backends.chat.reading import completion
from cof_agent.errors import InputError
from cof_agent.policy import GREEDY, PolicyError


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


def test_an_address_without_v1() -> None:
    for body in ("<!doctype html><html>", {"detail": "Not Found"}):
        error = of_status(404, body, {}, "m", "http://x")
        assert isinstance(error, InputError) and "mostly ends in /v1" in str(error)
    assert "knows no model m" in str(of_status(404, {"error": {"message": "no such model"}}, {}, "m", "http://x"))


def test_one_name_of_the_limit_is_given_up() -> None:
    body = {"max_completion_tokens": 8, "max_tokens": 8, "top_p": 1.0}
    openai = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    assert _refused({"error": {"message": openai}}, body, GREEDY) == {"max_tokens"}
    assert _refused({"detail": "Unknown field: max_completion_tokens"}, body, GREEDY) == {"max_completion_tokens"}
    assert _refused({"detail": "max_tokens must be less than 4"}, body, GREEDY) == frozenset()
