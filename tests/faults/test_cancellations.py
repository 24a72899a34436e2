"""Callers of the local engine that go away: at any moment, under load, they harm nobody."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.policy import Sampling
from cof_agent.trajectory import Sample

SHORT = Sampling(max_tokens=5)
AT_ONCE = 24


@pytest.fixture(scope="module")
def policy(checkpoint: Callable[[str], Path]) -> LocalPolicy:
    return load(checkpoint("qwen2_5_vl"), capacity=6)


@pytest.fixture(scope="module")
def questions(policy: LocalPolicy, picture: Path) -> list[tuple[list[protocol.Message], list[Image.Image]]]:
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    samples = [Sample(str(number), str(picture), f"What is number {number}?") for number in range(8)]
    overview = environment.reset(samples[0])
    image = environment.image(samples[0], overview)
    return [(protocol.opening(one, overview, system=policy.coordinates), [image]) for one in samples]


async def _asked(
    policy: LocalPolicy, question: tuple[list[protocol.Message], list[Image.Image]], after: float | None
) -> str | None:
    """The answer; None where the caller went away `after` so many seconds."""
    task = asyncio.create_task(policy.generate(*question, SHORT))
    if after is not None:
        await asyncio.sleep(after)
        task.cancel()
    try:
        return (await task).text
    except asyncio.CancelledError:
        return None


def _played(policy: LocalPolicy, questions: list[tuple[list[protocol.Message], list[Image.Image]]], count: int) -> int:
    """Asks until `count` callers have gone away, a few at once; every other answer is the one that is given alone."""
    rng = random.Random(3)

    async def scene() -> int:
        alone = [(await policy.generate(*question, SHORT)).text for question in questions]
        gone = 0
        while gone < count:
            chosen = [rng.randrange(len(questions)) for _ in range(AT_ONCE)]
            leaving = [rng.random() * 0.1 if rng.random() < 0.75 else None for _ in chosen]
            asking = (_asked(policy, questions[k], after) for k, after in zip(chosen, leaving, strict=True))
            answers = await asyncio.gather(*asking)
            assert all(answer in (None, alone[k]) for k, answer in zip(chosen, answers, strict=True))
            assert all(answer for answer, after in zip(answers, leaving, strict=True) if after is None)
            gone += sum(answer is None for answer in answers)
        return gone

    return asyncio.run(scene())


def test_fifty_callers_go_away(
    policy: LocalPolicy, questions: list[tuple[list[protocol.Message], list[Image.Image]]]
) -> None:
    assert _played(policy, questions, 50) >= 50


@pytest.mark.slow
def test_a_thousand_callers_go_away(
    policy: LocalPolicy, questions: list[tuple[list[protocol.Message], list[Image.Image]]]
) -> None:
    assert _played(policy, questions, 1000) >= 1000
