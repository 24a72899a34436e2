"""Rollouts that vLLM writes in the training's own process are those that transformers writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.data.samples import read_samples
from cof_agent.nano import WEIGHTS
from rl.engines.options import colocated_with
from rl.engines.vllm import Colocated, engine_of
from tests.ports import free_port
from tests.rl.engines.nano_vllm import assert_same_samples, conversations, in_rounds, play, unevenly
from tests.rl.engines.test_vllm import assert_same, transformers

OPTIONS = ["dtype=float32", "enforce-eager", "max-num-seqs=8"]


@pytest.fixture(scope="module")
def local() -> LocalPolicy:
    return load(WEIGHTS, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def engine(local: LocalPolicy) -> Iterator[Colocated]:
    """The engine that TRL makes, with the weights that TRL gives it."""
    from accelerate import Accelerator
    from trl.generation.vllm_generation import VLLMGeneration
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (launched | {"MASTER_PORT": str(free_port())}).items():
            patch.setenv(name, value)  # else TRL would, for good
        accelerator = Accelerator(cpu=True)
        with colocated_with(OPTIONS):
            generation = VLLMGeneration(
                local._decoder._model, accelerator, local._processor, mode="colocate", max_model_length=4096
            )
        made = engine_of(generation, accelerator, local._image_token_id, "float32")
        assert isinstance(made, Colocated)
        made.take_weights()
        yield made
        del generation.llm
        cleanup_dist_env_and_memory()


def test_rollouts_are_those_of_transformers(engine: Colocated, local: LocalPolicy, scenes: Path) -> None:
    samples = read_samples(scenes)
    with engine.awake():
        found = play(engine, local, samples)
    assert_same(found, transformers(local, samples))
    assert len({len(one.trajectory.turns) for one in found}) > 1
    for one in found:
        assert [value == 0 for value in one.logprobs] == [kept == 0 for kept in one.mask]
        assert all(value is not None and value <= 0 for value in one.logprobs)


def test_seeded_rollouts_are_those_of_rounds(engine: Colocated, local: LocalPolicy, scenes: Path) -> None:
    """At temperature 1, in whatever order the turns arrive."""
    twice = read_samples(scenes)[:4] * 2
    with engine.awake():
        pace = engine.play(len(twice), unevenly(conversations(local, engine.longest, twice, 1.0)))
        assert_same_samples(pace, in_rounds(engine._replies, local, engine.longest, twice, 1.0))
