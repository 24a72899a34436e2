"""How much a served model is asked to think, in the wire format of each provider."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.chat.policy import ChatPolicy
from cof_agent.backends.chat.providers import Provider
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.trajectory import Trajectory
from tests import loopback
from tests.loopback import Body, Reply, saying

ANSWER = "<think>I see.</think>\n<answer>grey</answer>"
NAMES = ("reasoning_effort", "thinking_token_budget", "enable_thinking", "thinking_budget", "max_completion_tokens")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    Image.new("RGB", (280, 196)).save(path)
    return path


def own(owner: str) -> Callable[[str, Body | None], Reply]:
    def answer(path: str, body: Body | None) -> Reply:
        return (200, {"data": [{"id": "qwen3-vl", "owned_by": owner}]}) if body is None else saying(ANSWER)

    return answer


def test_own_servers(path: Path) -> None:
    for owner, given, asked_for in (
        ("vllm", None, {"max_completion_tokens": 512}),
        ("vllm", "none", {"reasoning_effort": "none", "max_completion_tokens": 512}),
        ("sglang", "low", {"reasoning_effort": "low", "max_completion_tokens": 512}),
        ("vllm", "300", {"thinking_token_budget": 300, "max_completion_tokens": 812}),
    ):
        with loopback.serving(own(owner)) as (url, asked):
            found = Agent("qwen3-vl", base_url=f"{url}/v1", reasoning=given).ask(path, "Which colour?")
        assert (found.answer, found.settings.get("reasoning")) == ("grey", given)
        assert {name: asked[-1][name] for name in NAMES if name in asked[-1]} == asked_for


def test_what_there_is_not() -> None:
    with loopback.serving(own("sglang")) as (url, _), pytest.raises(InputError, match="takes a number of tokens"):
        Agent("qwen3-vl", base_url=f"{url}/v1", reasoning="300")
    address = "https://dashscope.aliyuncs.com.invalid"
    for given, words in (
        ({"model": "openai:gpt-5", "reasoning": "300"}, "openai takes no number of tokens"),
        ({"model": "mistralai:pixtral", "reasoning": "low"}, "not known of mistralai"),
        ({"model": "nano", "reasoning": "low"}, "--reasoning is for served models; a local one thinks as"),
    ):
        with pytest.raises(InputError, match=words):
            Agent(**given)  # type: ignore[arg-type]
    for value in ("", "much", "0", "-5", "1.5"):
        with pytest.raises(InputError, match="reasoning must be none, low, medium, high or a number of tokens"):
            AgentConfig("qwen3-vl", base_url=address, reasoning=value)


def test_alibaba_s_own_service() -> None:
    from cof_agent.backends.chat.reasoning import of_server

    def options(value: str) -> dict[str, Any]:
        return of_server("there", value, vllm=False, dashscope=True).options

    assert options("none") == {"enable_thinking": False}
    assert options("300") == {"enable_thinking": True, "thinking_budget": 300}
    with pytest.raises(InputError, match="there takes a number of tokens as --reasoning, or none"):
        options("low")


def asked_through_langchain(
    provider: str, model: str, reasoning: str, answer: Callable[[str, Body | None], Reply], image: Path, **options: Any
) -> tuple[Trajectory, Body]:
    with loopback.serving(answer) as (url, asked):
        given = {"base_url": url, "api_key": "k", "max_retries": 0, **options}
        client = Provider(model, provider, given, reasoning=reasoning)
        policy = ChatPolicy(model, client, coordinates=CoordinateSystem.THOUSAND, limits=PixelLimits())
        found = Agent(policy=policy).ask(image, "Which colour?")
    assert found.answer == "grey", found.error
    return found, asked[0]


@pytest.mark.slow
def test_openai(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def answer(path: str, body: Body | None) -> Reply:
        return saying(ANSWER, message={"role": "assistant", "content": ANSWER}, index=0)

    for given in ("low", "none"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "cof_agent"):
            found, body = asked_through_langchain("openai", "gpt-5", given, answer, path, use_responses_api=False)
        assert body["reasoning_effort"] == given
        fixed = given != "none"
        assert ("temperature" not in body) is fixed
        assert found.settings.get("not_taken") == (["temperature"] if fixed else None)
        assert caplog.text.count("openai takes no temperature: this model chooses it") == fixed


@pytest.mark.slow
def test_anthropic(path: Path) -> None:
    pytest.importorskip("langchain_anthropic")
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}
    content = [{"type": "thinking", "thinking": "I see.", "signature": "c2ln"}, {"type": "text", "text": ANSWER[-21:]}]
    usage = {"input_tokens": 5, "output_tokens": 7}

    def answer(path: str, body: Body | None) -> Reply:
        return 200, {**head, "content": content, "stop_reason": "end_turn", "usage": usage}

    found, body = asked_through_langchain("anthropic", "claude-sonnet-4-5", "2000", answer, path)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert body["max_tokens"] == 2512 and "temperature" not in body
    assert found.settings["not_taken"] == ["temperature"]
    _, body = asked_through_langchain("anthropic", "claude-opus-4-7", "low", answer, path)
    assert body["output_config"] == {"effort": "low"} and body["max_tokens"] == 512
    _, body = asked_through_langchain("anthropic", "claude-sonnet-4-5", "none", answer, path)
    assert body["thinking"] == {"type": "disabled"} and body["temperature"] == 0


@pytest.mark.slow
def test_anthropic_takes_no_budget_with_native_tools(path: Path) -> None:
    pytest.importorskip("langchain_anthropic")
    options = {"base_url": "http://127.0.0.1:9", "api_key": "k"}
    client = Provider("claude-sonnet-4-5", "anthropic", options, reasoning="2000")
    policy = ChatPolicy("claude", client, coordinates=CoordinateSystem.THOUSAND, limits=PixelLimits())
    with pytest.raises(InputError, match="no number of tokens as --reasoning together with native tools"):
        Agent(policy=policy, dialect="native").ask(path, "Which colour?")


@pytest.mark.slow
def test_google(path: Path) -> None:
    pytest.importorskip("langchain_google_genai")
    candidate = {"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finishReason": "STOP", "index": 0}

    def answer(path: str, body: Body | None) -> Reply:
        return 200, {"candidates": [candidate], "modelVersion": "gemini"}

    for model, given, thinking, most in (
        ("gemini-2.5-flash", "300", {"thinking_budget": 300}, 812),
        ("gemini-2.5-flash", "none", {"thinking_budget": 0}, 512),
        ("gemini-3-pro", "low", {"thinking_level": "LOW"}, 512),
    ):
        _, body = asked_through_langchain("google_genai", model, given, answer, path)
        config = body["generationConfig"]
        assert config["thinkingConfig"] == thinking
        assert config["maxOutputTokens"] == most
