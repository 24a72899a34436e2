"""Servers that keep images by their ids: pixels travel once, and no image is ever missing."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.geometry import Box
from cof_agent.protocol import write_answer, write_zoom
from cof_agent.trajectory import Sample
from tests import loopback
from tests.loopback import Body, Reply, saying

UNKNOWN = "nobody-has-sent-this"
MISS = "Cache miss for image at index 0 but data is not provided."
TURNS = [
    write_zoom("Closer.", Box(28, 28, 140, 140)),
    write_zoom("Closer.", Box(140, 28, 252, 140)),
    write_answer("I see.", "grey"),
]


@dataclass
class Vllm:
    """What vLLM (0.30) does with images. room: of its cache, in images. sent: for each answer, whether each image had pixels."""

    room: int = 1000
    status: int = 400
    sent: list[list[bool]] = field(default_factory=list)
    refused: int = 0
    kept: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def answer(self, path: str, body: Body | None) -> Reply:
        if body is None:
            return 200, {"data": [{"id": "qwen2.5-vl", "owned_by": "vllm"}]}
        parts = [part for one in body["messages"] if isinstance(one["content"], list) for part in one["content"]]
        images = [part for part in parts if part["type"] == "image_url"]
        if any(not self.takes(part) for part in images):
            self.refused += 1
            return self.status, {"error": {"message": MISS}}
        for part in images:
            self.kept.pop(part["uuid"], None)
            self.kept[part["uuid"]] = None
        while len(self.kept) > self.room:
            self.kept.popitem(last=False)
        self.sent.append([part["image_url"] is not None for part in images])
        told = self.tokens(images)
        text = TURNS[sum(one["role"] == "assistant" for one in body["messages"])]
        return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": told}

    def takes(self, part: dict[str, Any]) -> bool:
        return part["image_url"] is not None or part["uuid"] in self.kept

    def tokens(self, images: list[dict[str, Any]]) -> dict[str, int]:
        return {}


@contextmanager
def serving(server: Vllm) -> Iterator[str]:
    with loopback.serving(server.answer) as (url, _):
        yield f"{url}/v1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.effect_noise((280, 196), 60).convert("RGB").save(path)
    return path


ONCE = [[True], [False, True], [False, False, True]]


def test_pixels_travel_once(path: Path, tmp_path: Path) -> None:
    for given in ({}, {"image_folder": str(tmp_path)}, {"jpeg": 90}):
        server = Vllm()
        with serving(server) as url:
            agent = Agent("qwen2.5-vl", base_url=url, **given)
            assert agent.ask(path, "Which colour?").answer == "grey"
            assert server.sent == ONCE
            assert agent.ask(path, "Which form?").answer == "grey"  # of the same image
        assert server.sent[3] == [False]
        assert server.refused == 1  # what it was asked before, to see whether it keeps images


def test_what_differs_in_pixels_differs_in_its_id(path: Path) -> None:
    server = Vllm()
    with serving(server) as url:
        for quality in (None, 90, 50):
            Agent("qwen2.5-vl", base_url=url, jpeg=quality).ask(path, "Which colour?")
    assert server.sent == 3 * ONCE
    assert len(server.kept) == 9


def test_an_image_that_is_kept_no_longer_is_sent_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for status in (400, 500):  # 500: where the two halves of its cache disagree
        server = Vllm(room=1, status=status)
        with serving(server) as url, caplog.at_level(logging.WARNING):
            server.status = 400
            agent = Agent("qwen2.5-vl", base_url=url, retry_seconds=0)
            server.status = status
            assert agent.ask(path, "Which colour?").answer == "grey"
            assert server.sent == [[True], [False, True], [True, True, True]]
            assert not caplog.records
            samples = [Sample(str(n), str(path), "Which colour?") for n in range(8)]
            assert {one.answer for one in agent.ask_many(samples, concurrency=1, progress=False)} == {"grey"}
            (told,) = [one.getMessage() for one in caplog.records]
            assert "gets each image with each turn again: it seldom has an image" in told
            assert server.sent[-3:] == [[True], [True, True], [True, True, True]]
        caplog.clear()


def test_a_restart_of_the_server_costs_no_answer(path: Path) -> None:
    server = Vllm()
    with serving(server) as url:
        agent = Agent("qwen2.5-vl", base_url=url)
        agent.ask(path, "Which colour?")
        server.kept.clear()
        assert agent.ask(path, "Which colour?").answer == "grey"
    assert server.sent[3:] == [[True], [True, True], [True, True, True]]


def test_a_missing_image_is_no_refusal_of_images_in_messages_of_tools(path: Path) -> None:
    server = Vllm(room=1)
    with loopback.serving(server.answer) as (url, asked):
        found = Agent("qwen3-vl", base_url=f"{url}/v1", dialect="native").ask(path, "Which colour?")
    assert found.answer == "grey" and found.zooms == 2
    assert server.sent == [[True], [False, True], [True, True, True]]
    assert [one["role"] for one in asked[-1]["messages"]].count("user") == 1


class Forgetful(Vllm):
    """Passes over images that it does not have, and counts the tokens of those that it has."""

    def takes(self, part: dict[str, Any]) -> bool:
        return bool(part["uuid"] != UNKNOWN)

    def tokens(self, images: list[dict[str, Any]]) -> dict[str, int]:
        return {"prompt_tokens": 50 + 70 * sum(part["image_url"] is not None for part in images)}


def test_an_answer_without_an_image_does_not_count(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Forgetful()
    with serving(server) as url, caplog.at_level(logging.WARNING):
        found = Agent("qwen2.5-vl", base_url=url, system_prompt="Look.").ask(path, "Which colour?")
    assert found.answer == "grey"
    assert server.sent == [[True], [False, True], [True, True], [True, True, True]]
    assert "it has answered without an image" in caplog.text


def test_other_servers_get_plain_images(path: Path) -> None:
    for owner in ("me", "vllm"):  # the second one passes over images without pixels, as vLLM did before it had ids
        asked: list[Body] = []

        def answer(path: str, body: Body | None, owner: str = owner, asked: list[Body] = asked) -> Reply:
            if body is None:
                return 200, {"data": [{"id": "qwen2.5-vl", "owned_by": owner}]}
            asked.append(body)
            return saying(TURNS[2])

        with loopback.serving(answer) as (url, _):
            assert Agent("qwen2.5-vl", base_url=f"{url}/v1").ask(path, "Which colour?").answer == "grey"
        assert ["uuid" in str(body) for body in asked] == [True, False][owner == "me" :]
