"""What `Agent` refuses in a sentence, before anything is played."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import cof_agent
from cof_agent import Agent, Box, Sample
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import write_answer


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", "0", "temperature must be a number, not '0'"),
        ("max_tokens", 2.5, "max_tokens must be a whole number, not 2.5"),
        ("max_zooms", True, "max_zooms must be a whole number, not True"),
        ("timeout", None, "timeout must be a number, not None"),
        ("top_p", [1], r"top_p must be a number, not \[1\]"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Agent(policy=ScriptedPolicy([]), **{name: value})


@pytest.mark.parametrize(
    ("image", "question", "choices", "sentence"),
    [
        (None, " ", (), "the question is empty"),
        (None, 3, (), "the question is no text, but int"),
        (None, "caf\udce9?", (), "the question is no UTF-8 text"),
        (None, "Which?", ["caf\udce9"], "a choice is no UTF-8 text"),
        (None, "Which?", "red", "choices is a list of texts or numbers, not 'red'"),
        (None, "Which?", [1, None], r"choices is a list of texts or numbers, not \[1, None\]"),
        (123, "Which?", (), "an image is a path or a picture of Pillow's, not int"),
    ],
)
def test_what_is_no_question_is_refused(picture: Path, image: Any, question: Any, choices: Any, sentence: str) -> None:
    agent = Agent(policy=ScriptedPolicy([]))
    with pytest.raises(InputError, match=sentence):
        agent.ask(image or picture, question, choices=choices)


def test_a_setting_or_a_sample_that_is_none_is_named(picture: Path) -> None:
    with pytest.raises(InputError, match="there is no setting max_zoom; did you mean max_zooms"):
        Agent(policy=ScriptedPolicy([]), max_zoom=3)
    with pytest.raises(InputError, match="a question of many is a Sample.* not str"):
        Agent(policy=ScriptedPolicy([])).ask_many([str(picture)])  # type: ignore[list-item]


def test_choices_may_be_numbers(picture: Path) -> None:
    found = Agent(policy=ScriptedPolicy([write_answer("Two.", "2")])).ask(picture, "How many?", choices=[1, 2, 3.5])
    assert found.sample.choices == ("1", "2", "3.5")


def test_a_sample_takes_boxes_as_numbers_and_one_answer_as_text() -> None:
    sample = Sample("a", "a.png", "Which?", answers="red", boxes=[(1, 2, 3, 4)], regions=[[1, 2, 3, 4]])  # type: ignore[arg-type,list-item]
    assert sample.answers == ("red",)
    assert sample.boxes == sample.regions == (Box(1, 2, 3, 4),)
    with pytest.raises(InputError, match="four numbers"):
        Sample("a", "a.png", "Which?", boxes=((1, 2, 3),))  # type: ignore[arg-type]


def test_the_package_shows_its_names() -> None:
    assert {"Agent", "Sample", "read_samples", "__version__"} <= set(dir(cof_agent))
    assert all(hasattr(cof_agent, name) for name in dir(cof_agent))


def test_whole_floats_are_whole_numbers() -> None:
    config = AgentConfig(overview_pixels=1e5, seed=1.0)  # type: ignore[arg-type]
    assert (repr(config.overview_pixels), repr(config.seed)) == ("100000", "1")


def test_an_interrupt_in_a_notebook_ends_the_run(tmp_path: Path) -> None:
    """There an event loop runs already, and the questions are played in a thread of their own."""
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    asked: list[float] = []

    def slow(messages: Any) -> str:
        asked.append(time.monotonic())
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return "<think>x</think><answer>y</answer>"

    agent = Agent(policy=ScriptedPolicy(slow))
    samples = [Sample(str(number), str(tmp_path / "a.png"), "What?") for number in range(30)]

    async def cell() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a notebook; asyncio.run has one of its own
        agent.ask_many(samples, concurrency=1)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cell())
    assert len(asked) < 10
