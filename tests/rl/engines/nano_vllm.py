"""nano in the place of a colocated engine, for what vLLM's build for CPUs cannot show: sleep, and tensor parallelism.

As a program, one process of two that share an engine: `torchrun ... nano_vllm.py SCENES OUTPUT`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from trl.generation.vllm_generation import VLLMGeneration

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.policy import Ask, VLLMPolicy
from cof_agent.backends.vllm.requests import Reply, Request
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.nano import NANO
from cof_agent.policy import Sampling
from cof_agent.trajectory import Sample
from rl.engines.vllm import Conversations, Engine, engine_of, rounds_of
from rl.rollout import Rollout, roll_out


class NanoLLM:
    """vLLM's `LLM`: it makes as many image tokens of each one as the image has merged patches. `calls`: requests in each."""

    def __init__(self, policy: LocalPolicy, *, longest: int = 32768) -> None:
        self.policy = policy
        self.model = policy._decoder._model
        self._one = threading.Lock()
        config = SimpleNamespace(max_model_len=longest, dtype=torch.float32)
        self.calls: list[int] = []
        self.events: list[str] = []
        self.llm_engine = SimpleNamespace(
            model_config=config, reset_encoder_cache=lambda: self.events.append("no features")
        )

    def generate(self, prompts: list[Any], *, sampling_params: list[SimpleNamespace], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.calls.append(len(prompts))
        return [self._one_of(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one_of(self, prompt: dict[str, Any], asked: SimpleNamespace) -> Any:
        pad, images = self.policy._image_token_id, prompt["multi_modal_data"]["image"]
        cells = iter((image.width // 28) * (image.height // 28) for image in images)
        ids = [one for token in prompt["prompt_token_ids"] for one in [token] * (next(cells) if token == pad else 1)]
        assert next(cells, None) is None
        written, logprobs = self._written(ids, images, asked)
        told = [{token: SimpleNamespace(rank=1, logprob=value)} for token, value in zip(written, logprobs, strict=True)]
        return SimpleNamespace(prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=written, logprobs=told)])

    def _written(
        self, ids: list[int], images: Sequence[Image.Image], asked: SimpleNamespace
    ) -> tuple[list[int], list[float]]:
        _, pictures = self.policy.read(self.policy._processor.image_token * len(images), images)
        sampling = Sampling(asked.max_tokens, asked.temperature, asked.top_p, asked.seed)
        reply: Generated = asyncio.run(self.policy.complete(Prompt(ids, pictures, sampling)))
        with self._one:
            return reply.ids, self._logprobs(ids, reply.ids, pictures, sampling.temperature or 1.0)

    @torch.inference_mode()
    def _logprobs(self, ids: list[int], written: list[int], pictures: list[Any], temperature: float) -> list[float]:
        whole = torch.tensor([ids + written])
        logits = self.model(
            input_ids=whole,
            pixel_values=torch.cat([picture.patches for picture in pictures]),
            image_grid_thw=torch.tensor([picture.grid for picture in pictures]),
            mm_token_type_ids=(whole == self.policy._image_token_id).int(),
        ).logits[0, len(ids) - 1 : -1]
        chances = (logits / temperature).log_softmax(-1)
        return [float(row[token]) for row, token in zip(chances, written, strict=True)]

    def wake_up(self, tags: list[str]) -> None:
        self.events += tags

    def sleep(self, level: int) -> None:
        self.events.append(f"sleep {level}")

    def reset_prefix_cache(self) -> None:
        self.events.append("reset")


class Generation(VLLMGeneration):
    """TRL's in colocate mode, for a machine without vLLM: weights are sent nowhere."""

    llm: NanoLLM

    def _init_vllm(self) -> None:
        self._llm_weights_sleeping = self.enable_sleep_mode
        self.synced = 0

    def sync_weights(self) -> None:
        self.synced += 1
        self._llm_weights_sleeping = False


def conversations(
    local: LocalPolicy, longest: int, samples: list[Sample], temperature: float = 0.0, seed: int = 0
) -> Conversations[list[Rollout]]:
    """Rollouts of `samples` by the model of `local`, whoever is asked; their seeds count from `seed`."""

    def play(ask: Ask, leave: Callable[[], None]) -> Coroutine[Any, Any, list[Rollout]]:
        return roll_out(
            episodes(samples),
            VLLMPolicy(local._decoder._model, local._processor, name="nano", longest=longest, ask=ask),
            AgentConfig(max_tokens=96, temperature=temperature),
            ZoomEnvironment(),
            budget=2048,
            seeds=[seed + index for index in range(len(samples))],
            on_end=leave,
        )

    return play


def play(
    engine: Engine, local: LocalPolicy, samples: list[Sample], temperature: float = 0.0, seed: int = 0
) -> list[Rollout]:
    """Those rollouts, written by the engine."""
    return engine.play(len(samples), conversations(local, engine.longest, samples, temperature, seed))


def in_rounds(
    answer: Callable[[Sequence[Request]], list[Reply]],
    local: LocalPolicy,
    longest: int,
    samples: list[Sample],
    temperature: float,
) -> list[Rollout]:
    """Those rollouts, where each turn waits for all conversations. answer: the replies to a round's requests."""
    rounds, talk = rounds_of(len(samples)), conversations(local, longest, samples, temperature)
    return rounds.play(lambda: talk(rounds.ask, rounds.leave), lambda asked: answer(asked) if asked else None)


def unevenly(conversations: Conversations[list[Rollout]]) -> Conversations[list[Rollout]]:
    """The same, where each turn is asked for later than it is ready, by up to 0.1 seconds."""
    random = Random(1)

    def play(ask: Ask, leave: Callable[[], None]) -> Coroutine[Any, Any, list[Rollout]]:
        async def late(request: Request) -> Reply:
            await asyncio.sleep(random.uniform(0, 0.1))
            return await ask(request)

        return conversations(late, leave)

    return play


def assert_same_samples(pace: list[Rollout], rounds: list[Rollout]) -> None:
    """Of conversations about the same questions, twice each and with other seeds."""
    assert [one.completion for one in pace] == [one.completion for one in rounds]
    for one, other in zip(pace, rounds, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
    half = len(pace) // 2
    assert any(one.completion != other.completion for one, other in zip(pace, pace[half:], strict=False))
    assert len({len(one.trajectory.turns) for one in pace}) > 1


def main() -> None:
    """One process of two, with other numbers of conversations: the first has one, the second three."""
    from accelerate import Accelerator

    scenes, output = sys.argv[1:]
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    local = load(NANO)
    generation = Generation(
        local._decoder._model, accelerator, local._processor, mode="colocate", tensor_parallel_size=2
    )
    generation.llm = NanoLLM(local)
    generation.tp_group = torch.distributed.new_group([0, 1])
    sys.modules["vllm"] = SimpleNamespace(SamplingParams=SimpleNamespace)  # type: ignore[assignment]
    samples = read_samples(scenes)
    mine, seed = (samples[:1], 0) if rank == 0 else (samples[1:4], 1)
    found = play(engine_of(generation, accelerator, local._image_token_id, "float32"), local, mine, 1.0, seed)
    told = {
        "completions": [one.completion for one in found],
        "turns": [len(one.trajectory.turns) for one in found],
        "calls": generation.llm.calls,
    }
    (Path(output) / f"{rank}.json").write_text(json.dumps(told))
    accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
