"""A server that resizes images is named, by the tokens that it counts; where boxes are in pixels, it is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.errors import InputError
from cof_agent.trajectory import StopReason
from tests import loopback
from tests.loopback import Body, Reply, saying

CELLS = 36 * 27  # of a picture of 1000 x 750 pixels, at 28 pixels a cell
TEXT = 450  # tokens of the text of a first question, about


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "grey.png"
    Image.new("RGB", (1000, 750), "grey").save(path)
    return path


@contextmanager
def counting(tokens: Callable[[int], Any]) -> Iterator[str]:
    """A server that counts so many tokens for its n-th prompt."""

    def answer(path: str, body: Body | None) -> Reply:
        if body is None:
            return 404, {}
        status, said = saying("<think>I see.</think>\n<answer>grey</answer>")
        return status, {**said, "usage": {"prompt_tokens": tokens(len(asked)), "completion_tokens": 9}}

    with loopback.serving(answer) as (url, asked):
        yield f"{url}/v1"


def test_the_right_count_and_what_is_no_count_are_taken(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    for tokens in (CELLS + TEXT, CELLS + 2 * TEXT, 0, 5, None, "many"):
        with counting(lambda n, tokens=tokens: tokens) as url:  # type: ignore[misc]
            assert Agent("qwen2.5-vl", base_url=url).ask(image, "Which colour?").answer == "grey"
    assert not caplog.records


def test_boxes_in_pixels_are_refused(image: Path) -> None:
    for tokens, words in (
        (CELLS // 2 + TEXT, rf"counts {CELLS // 2 + TEXT:,} tokens .* are {CELLS} cells .* makes images smaller"),
        (6 * CELLS + TEXT, "makes images larger"),
    ):
        with counting(lambda n, tokens=tokens: tokens if n == 1 else CELLS + TEXT) as url:  # type: ignore[misc]
            agent = Agent("qwen2.5-vl", base_url=url)
            for _ in range(2):  # and from then on, whatever it counts
                with pytest.raises(InputError, match=words) as refused:
                    agent.ask(image, "Which colour?")
                assert "Boxes in pixels would be misread" in str(refused.value)


def test_other_boxes_are_right_all_the_same(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    with counting(lambda n: 200 + TEXT) as url, caplog.at_level(logging.WARNING):
        agent = Agent("qwen3-vl", base_url=url)
        assert [agent.ask(image, "Which colour?").stop for _ in range(2)] == [StopReason.ANSWERED] * 2
    (told,) = [one.getMessage() for one in caplog.records if one.name.startswith("cof_agent")]
    assert "makes images smaller, or the model has another grid. If it resizes, let it take larger images" in told


def test_where_the_grid_is_not_known_nothing_is_compared(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    with counting(lambda n: 300) as url:
        assert Agent("mystery", base_url=url, coordinates="absolute").ask(image, "?").answer == "grey"
    assert not caplog.records


def test_a_server_that_drops_earlier_turns_is_told_once(image: Path, caplog: pytest.LogCaptureFixture) -> None:
    with counting(lambda n: CELLS + TEXT if n == 1 else CELLS // 2) as url, caplog.at_level(logging.WARNING):
        agent = Agent("qwen2.5-vl", base_url=url)
        for _ in range(3):
            assert agent.ask(image, "Which colour?").answer == "grey"
    (told,) = [one.getMessage() for one in caplog.records if one.name.startswith("cof_agent")]
    assert "it drops earlier turns, which the model no longer sees" in told
