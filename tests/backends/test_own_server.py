"""What servers of one's own do not take, and what they leave out of a reply."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.chat import connect
from cof_agent.policy import GREEDY, PolicyError, Sampling
from cof_agent.protocol import Message
from cof_agent.trajectory import Sample, Trajectory, read_jsonl
from tests import loopback
from tests.loopback import Reply, saying

QUESTION: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers a request's body so: its address, and the bodies that it gets."""
    with loopback.serving(lambda path, body: (404, {}) if body is None else answer(body)) as (url, asked):
        yield f"{url}/v1", asked


def knowing(*names: str) -> Callable[[dict[str, Any]], Reply]:
    """A server that takes no other parameters, and names all of the others at once, as `transformers serve` does."""

    def answer(body: dict[str, Any]) -> Reply:
        others = set(body) - {"model", "messages", "stream", "temperature", "max_completion_tokens", *names}
        return (422, {"detail": f"Unexpected fields in the request: {others}"}) if others else saying("hi")

    return answer


def one_by_one(body: dict[str, Any]) -> Reply:
    """As OpenAI says it."""
    for name in ("top_k", "min_p"):
        if name in body:
            return 400, {"error": {"message": f"Unrecognized request argument supplied: {name}", "param": None}}
    return saying("hi")


def _always(reply: Reply, body: dict[str, Any]) -> Reply:
    return reply


def ask(url: str, *samplings: Sampling) -> list[str]:
    policy = connect("m", base_url=url, boxes=False)

    async def all_of_them() -> list[str]:
        return [(await policy.generate(QUESTION, [], sampling)).text for sampling in samplings]

    return asyncio.run(all_of_them())


def test_a_parameter_that_a_server_refuses_is_left_out_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    known = ("top_p", "frequency_penalty", "stop")
    for answer, tries, refused in (
        (knowing(*known), 2, "min_p and repetition_penalty and top_k"),
        (one_by_one, 3, "min_p and top_k"),
    ):
        caplog.clear()
        with serving(answer) as (url, asked), caplog.at_level(logging.WARNING):
            assert ask(url, GREEDY, GREEDY) == ["hi", "hi"]
        assert len(asked) == tries + 1  # it is not tried again
        assert asked[0].keys() > asked[-1].keys()
        (told,) = [one.getMessage() for one in caplog.records if one.name.startswith("cof_agent")]
        assert told.startswith(f"{url} does not take {refused}: it is asked without")


def test_what_was_asked_for_is_not_left_out() -> None:
    with serving(knowing()) as (url, _):
        assert ask(url, GREEDY) == ["hi"]
        with pytest.raises(PolicyError, match="status 422: Unexpected fields"):
            ask(url, Sampling(temperature=1.0, top_p=0.5))
        with pytest.raises(PolicyError, match="status 422: Unexpected fields"):
            ask(url, Sampling(stop="</call>"))


def test_an_error_that_repeats_the_request_is_no_refusal_of_a_parameter(caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda body: (400, {"error": {"message": f"too long: {json.dumps(body)}"}})) as (url, asked):
        with pytest.raises(PolicyError, match="status 400: too long"):
            ask(url, GREEDY)
        assert len(asked) == 2 and not caplog.records


def test_a_stop_text_that_a_reply_lacks_is_put_back() -> None:
    stop = "</call>"
    for reply, whole in (
        (saying("I look. <call>{}</call>"), "I look. <call>{}</call>"),
        (saying("I look. <call>{}"), "I look. <call>{}</call>"),
        (saying("I look. <call>{}", finish_reason="length"), "I look. <call>{}"),
        (saying("odd: {}", stop_reason=stop), "odd: {}</call>"),
        (saying("<call>{}</call> It is red."), "<call>{}</call> It is red."),
        (saying("It is red."), "It is red."),
    ):
        with serving(partial(_always, reply)) as (url, asked):
            assert ask(url, Sampling(stop=stop)) == [whole]
        assert asked[0]["stop"] == [stop]


def test_the_record_names_what_a_server_refused(tmp_path: Path) -> None:
    """What was asked for stays the same: a run that failed before anybody knew of the refusal goes on."""
    picture, output = tmp_path / "grey.png", tmp_path / "trajectories.jsonl"
    Image.new("RGB", (280, 196)).save(picture)
    samples = [Sample(name, str(picture), "Which colour?") for name in "abc"]
    works: list[bool] = []

    def answer(body: dict[str, Any]) -> Reply:
        if not works:
            return 400, {"error": "No."}
        status, found = knowing("top_p", "frequency_penalty")(body)
        return (status, found) if status != 200 else saying("<think>I see.</think>\n<answer>grey</answer>")

    with serving(answer) as (url, _):
        for _ in range(3):
            found = Agent("qwen2.5-vl", base_url=url).ask_many(samples, output=output, progress=False)
            names = [one.settings.get("not_taken") for one in found]
            assert names == [["min_p", "repetition_penalty", "top_k"] if works else None] * 3
            works.append(True)
    assert [one.answer for one in read_jsonl(output, Trajectory)] == ["grey"] * 3


def test_the_record_names_what_a_server_refused_to_a_strategy_that_speaks_for_the_model(tmp_path: Path) -> None:
    picture = tmp_path / "grey.png"
    Image.new("RGB", (280, 196)).save(picture)

    def answer(body: dict[str, Any]) -> Reply:
        status, found = knowing("top_p", "frequency_penalty")(body)
        return (status, found) if status != 200 else saying("<think>I see.</think>\n<answer>grey</answer>")

    with serving(answer) as (url, _):
        found = Agent("qwen2.5-vl", base_url=url, strategy="grid").ask(str(picture), "Which colour?")
    assert found.settings["not_taken"] == ["min_p", "repetition_penalty", "top_k"]
