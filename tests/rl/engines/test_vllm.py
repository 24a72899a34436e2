"""Rounds; and what of a colocated engine vLLM's build for CPUs cannot show, with nano in its place: sleep, several processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.decode import Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.requests import Reply, Request
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.errors import InputError
from cof_agent.nano import NANO
from cof_agent.policy import Sampling
from cof_agent.trajectory import Sample, StopReason
from rl.engines.rounds import Rounds
from rl.engines.vllm import Colocated, engine_of
from rl.rollout import Rollout, roll_out
from tests.ports import free_port
from tests.rl.engines.nano_vllm import Generation, NanoLLM, conversations
from tests.scenes.shared import Scenes


@pytest.fixture(scope="module")
def scenes(drawn: Scenes) -> Path:
    return drawn(4)


@pytest.fixture(scope="module")
def samples(scenes: Path) -> list[Sample]:
    return read_samples(scenes)[:4]


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return load(NANO)


def engine(policy: LocalPolicy, llm: NanoLLM, **options: Any) -> Colocated:
    """A colocated engine that is `llm`."""
    model, processor = policy._decoder._model, policy._processor
    generation = Generation(model, Accelerator(cpu=True), processor, mode="colocate", **options)
    generation.llm = llm
    return Colocated(generation, generation.accelerator, policy._image_token_id)


@pytest.fixture
def llm(policy: LocalPolicy) -> NanoLLM:
    return NanoLLM(policy)


def transformers(policy: LocalPolicy, samples: list[Sample], temperature: float = 0.0) -> list[Rollout]:
    config = AgentConfig(max_tokens=96, temperature=temperature)
    seeds = range(len(samples))
    return asyncio.run(roll_out(episodes(samples), policy, config, ZoomEnvironment(), budget=2048, seeds=seeds))


def assert_same(found: list[Rollout], wanted: list[Rollout]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.prompt, one.completion, one.mask) == (other.prompt, other.completion, other.mask)
        assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]
        assert [turn.text for turn in one.trajectory.turns] == [turn.text for turn in other.trajectory.turns]
        assert one.trajectory.stop is other.trajectory.stop


class Chatter:
    """Conversations of known lengths, which answer their own numbers; the rounds that they made."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths, self.rounds = lengths, Rounds[int, int](len(lengths), lambda number: number)
        self.asked: list[list[int]] = []

    async def _one(self, number: int) -> list[int]:
        try:
            return [await self._turn(number, turn) for turn in range(self.lengths[number])]
        finally:
            self.rounds.leave()

    async def _turn(self, number: int, turn: int) -> int:
        await asyncio.sleep(0.001 * ((number + turn) % 3))  # nobody comes first every time
        return await self.rounds.ask(number)

    async def everyone(self) -> list[list[int]]:
        return list(await asyncio.gather(*map(self._one, range(len(self.lengths)))))

    def answer(self, requests: Any) -> list[int] | None:
        self.asked.append(list(requests))
        return [10 * number for number in requests] if requests else None


def test_a_round_is_all_that_have_not_ended() -> None:
    chatter = Chatter([2, 0, 3, 1])
    assert chatter.rounds.play(chatter.everyone, chatter.answer) == [[0, 0], [], [20, 20, 20], [30]]
    assert chatter.asked == [[0, 2, 3], [0, 2], [2], []]


def test_rounds_go_on_while_others_have_requests() -> None:
    chatter = Chatter([1])
    left: Iterator[list[int] | None] = iter([[], [], None])
    answers = chatter.rounds.play(chatter.everyone, lambda requests: [7] if requests else next(left))
    assert answers == [[7]]
    assert next(left, "none left") == "none left"


def test_what_goes_wrong_ends_the_rounds() -> None:
    chatter = Chatter([2, 2])

    def broken(requests: Any) -> list[int]:
        raise InputError("the server has gone")

    with pytest.raises(InputError, match="the server has gone"):
        chatter.rounds.play(chatter.everyone, broken)

    chatter = Chatter([2, 2])

    async def failing() -> list[list[int]]:
        async def wrong() -> list[int]:
            await asyncio.sleep(0.01)
            raise KeyError("bug")

        return list(await asyncio.gather(chatter._one(0), wrong()))

    with pytest.raises(KeyError, match="bug"):
        chatter.rounds.play(failing, chatter.answer)


def test_an_engine_that_sleeps_is_given_weights_and_woken(llm: NanoLLM, policy: LocalPolicy) -> None:
    colocated = engine(policy, llm, enable_sleep_mode=True)
    for _ in range(2):
        with colocated.awake():
            assert llm.events == ["no features", "kv_cache"]
        assert llm.events == ["no features", "kv_cache", "sleep 2"]
        llm.events.clear()


def test_a_conversation_that_outgrows_vllm_is_recorded(policy: LocalPolicy, samples: list[Sample]) -> None:
    async def ask(request: Request) -> Reply:
        _, pictures = policy.read(policy._processor.image_token * len(request.images), request.images)
        generated = await policy.complete(Prompt(request.ids, pictures, Sampling(request.sampling["max_tokens"])))
        return Reply(generated.ids, [None] * len(generated.ids))

    def play(longest: int) -> Rollout:
        (found,) = asyncio.run(conversations(policy, longest, [zoomed.trajectory.sample])(ask, lambda: None))
        return found

    zoomed = next(one for one in transformers(policy, samples) if one.trajectory.zooms)
    first = zoomed.mask.index(0)
    found = play(len(zoomed.prompt) + first + 5)
    assert found.trajectory.stop is StopReason.TRUNCATED and found.exhausted and found.failure is None
    assert found.completion == zoomed.completion[:first]
    assert len(found.images) == 1
    assert "raise its max-model-len" in (play(len(zoomed.prompt)).failure or "")


def test_an_engine_of_another_precision_is_refused(llm: NanoLLM, policy: LocalPolicy) -> None:
    generation = engine(policy, llm)._generation
    with pytest.raises(InputError, match="computes in float32, and this run trains in bfloat16"):
        engine_of(generation, generation.accelerator, policy._image_token_id, "bfloat16")


@pytest.mark.slow
def test_two_processes_with_other_numbers_of_conversations_keep_in_step(
    policy: LocalPolicy, scenes: Path, samples: list[Sample], tmp_path: Path
) -> None:
    wanted = transformers(policy, samples, 1.0)
    script = Path(__file__).with_name("nano_vllm.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    done = subprocess.run(
        [*launch, str(script), str(scenes), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["completions"] + second["completions"] == [one.completion for one in wanted]
    turns = first["turns"] + second["turns"]
    assert len(set(turns)) > 1
    together = [sum(count > done for count in turns) for done in range(max(turns))]
    assert first["calls"] == second["calls"] == together
