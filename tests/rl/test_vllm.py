"""Rollouts that vLLM writes are those that transformers writes: rounds, and both of TRL's modes with nano as vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.nano import NANO
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl
from rl.rollout import Rollout, roll_out
from rl.rounds import Rounds
from rl.vllm import Engine, engine_of
from tests.rl.nano_vllm import Generation, NanoLLM, NanoServer, play


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=6, seed=3, size=Size(1920, 1080), split="test", processes=2)
    return folder


@pytest.fixture(scope="module")
def samples(scenes: Path) -> list[Sample]:
    return read_samples(scenes)[:4]


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return load(NANO)


@pytest.fixture
def server(policy: LocalPolicy) -> NanoServer:
    return NanoServer(policy)


def generation_of(policy: LocalPolicy, mode: str, **options: Any) -> Generation:
    return Generation(policy._decoder._model, Accelerator(cpu=True), policy._processor, mode=mode, **options)


def engine(generation: Generation, policy: LocalPolicy) -> Engine:
    return engine_of(generation, generation.accelerator, policy._image_token_id, "float32")


@pytest.fixture
def served(server: NanoServer, policy: LocalPolicy) -> Iterator[Engine]:
    with server.up() as url:
        yield engine(generation_of(policy, "server", server_base_url=url), policy)


@pytest.fixture
def llm(policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch) -> NanoLLM:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=SimpleNamespace))
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


@pytest.mark.parametrize("temperature", [0.0, pytest.param(1.5, marks=pytest.mark.slow)])
def test_a_server_writes_what_transformers_writes(
    server: NanoServer, served: Engine, policy: LocalPolicy, samples: list[Sample], temperature: float
) -> None:
    wanted = transformers(policy, samples, temperature)
    found = play(served, policy, samples, temperature)
    assert_same(found, wanted)
    assert len({len(one.trajectory.turns) for one in found}) > 1
    assert len({body["sampling_params"]["seed"] for body in server.asked}) == len(server.asked)
    for one in found:
        assert [value == 0 for value in one.logprobs] == [kept == 0 for kept in one.mask]
        assert all(value is not None and value <= 0 for value in one.logprobs)
    assert all(value is None for one in wanted for value, kept in zip(one.logprobs, one.mask, strict=True) if kept)


def test_an_image_that_rollouts_share_is_rendered_once(
    server: NanoServer, served: Engine, policy: LocalPolicy, samples: list[Sample]
) -> None:
    direct = [one.trajectory.sample for one in transformers(policy, samples) if not one.trajectory.zooms][:1]
    play(served, policy, direct * 3)
    assert server.rendered == 1
    assert len(server.asked) == 3


def test_a_colocated_engine_writes_what_transformers_writes(
    llm: NanoLLM, policy: LocalPolicy, samples: list[Sample]
) -> None:
    generation = generation_of(policy, "colocate", enable_sleep_mode=True)
    generation.llm = llm
    colocated = engine(generation, policy)
    with colocated.awake():
        assert generation.synced == 1
        found = play(colocated, policy, samples)
    assert llm.events == ["no features", "kv_cache", "sleep 2"]
    assert generation._llm_weights_sleeping
    wanted = transformers(policy, samples)
    assert_same(found, wanted)
    turns = [len(one.trajectory.turns) for one in wanted]
    assert llm.calls == [sum(count > done for count in turns) for done in range(max(turns))]


def test_a_conversation_that_outgrows_vllm_is_recorded(
    llm: NanoLLM, policy: LocalPolicy, samples: list[Sample]
) -> None:
    zoomed = next(one for one in transformers(policy, samples) if one.trajectory.zooms)
    generation = generation_of(policy, "colocate")
    generation.llm = llm
    first = zoomed.mask.index(0)
    for room in (first + 5, 0):
        llm.llm_engine.model_config.max_model_len = len(zoomed.prompt) + room
        colocated = engine(generation, policy)
        if not room:
            with pytest.raises(InputError, match=r"cannot be played: .* raise its max-model-len"):
                play(colocated, policy, [zoomed.trajectory.sample])
            return
        (found,) = play(colocated, policy, [zoomed.trajectory.sample])
        assert found.trajectory.stop is StopReason.ERROR
        assert found.completion == zoomed.completion[:first]
        assert len(found.images) == 1


def test_what_is_wrong_with_a_server_is_one_sentence(
    server: NanoServer, served: Engine, policy: LocalPolicy, samples: list[Sample]
) -> None:
    server.resizes = True
    with pytest.raises(InputError, match="vLLM makes .* tokens of images .* keep min_pixels"):
        play(served, policy, samples[:1])
    server.refuses = True
    with pytest.raises(InputError, match="the vLLM server failed: .*no room on the device"):
        play(served, policy, samples[:1])


def test_an_engine_of_another_precision_is_refused(server: NanoServer, policy: LocalPolicy) -> None:
    server.precision = "torch.bfloat16"
    with server.up() as url, pytest.raises(InputError, match="computes in bfloat16, and this run trains in float32"):
        engine(generation_of(policy, "server", server_base_url=url), policy)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_two_processes_with_other_numbers_of_conversations_keep_in_step(
    mode: str, server: NanoServer, policy: LocalPolicy, scenes: Path, samples: list[Sample], tmp_path: Path
) -> None:
    wanted = transformers(policy, samples, 1.0)
    script = Path(__file__).with_name("nano_vllm.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29731"]
    with server.up() as url:
        done = subprocess.run(
            [*launch, str(script), mode, url, str(scenes), str(tmp_path)],
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
    assert first["calls"] == second["calls"] == (together if mode == "colocate" else [])


@pytest.mark.slow
def test_training_by_vllm_is_training_by_transformers(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rl.train import main

    behind = load(NANO)

    class Training(Generation):
        def sync_weights(self) -> None:
            behind._decoder._model.load_state_dict(self.model.state_dict())
            behind.forget()
            synced.append(len(server.asked))

    synced: list[int] = []
    server = NanoServer(behind)
    monkeypatch.setattr("rl.train.is_vllm_available", lambda: True)
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", Training)
    fixed: dict[str, Any] = {
        "model_name_or_path": NANO,
        "data": scenes,
        "samples": 2,
        "use_cpu": "true",
        "bf16": "false",
        "gradient_checkpointing": "false",
        "report_to": "none",
        "threads": 1,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 300,
        "max_tokens": 96,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "temperature": 1.0,
        "logging_steps": 1,
        "max_steps": 2,
        "save_steps": 2,
    }
    logs: dict[str, list[dict[str, float]]] = {}
    played: dict[str, list[list[str]]] = {}
    with server.up() as url:
        for name, way in (
            ("own", {}),
            ("vllm", {"use_vllm": "true", "vllm_mode": "server", "vllm_server_base_url": url}),
        ):
            output = tmp_path / name
            given = fixed | way | {"output_dir": output}
            main([text for key, value in given.items() for text in (f"--{key}", str(value))])
            state = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())
            logs[name] = [entry for entry in state["log_history"] if "loss" in entry]
            trajectories = read_jsonl(output / "trajectories.jsonl", Trajectory)
            played[name] = [[turn.text for turn in one.turns] for one in trajectories]
    assert played["vllm"] == played["own"]
    assert len(synced) == 2
    assert synced[0] == 0 < synced[1]
    seeds = [body["sampling_params"]["seed"] for body in server.asked]
    assert not set(seeds[: synced[1]]) & set(seeds[synced[1] :])  # each step has random numbers of its own
    for own, vllm in zip(logs["own"], logs["vllm"], strict=True):
        assert vllm["loss"] == pytest.approx(own["loss"], abs=1e-3)
        assert vllm["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-2, abs=1e-3)
        # TRL compares the log-probabilities with its own, where the mask says that the model wrote.
        assert vllm["sampling/sampling_logp_difference/max"] < 1e-3
        assert vllm["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-2)
