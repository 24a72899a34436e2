"""A checkpoint in vLLM's own engine, `vllm:FOLDER`, plays as transformers plays it in this process."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from cof_agent import Agent
from cof_agent.backends.checkpoint import load as load_local
from cof_agent.backends.load import load
from cof_agent.backends.vllm.options import as_keywords
from cof_agent.backends.vllm.policy import VLLMPolicy
from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.nano import WEIGHTS
from cof_agent.policy import PolicyError, Sampling
from cof_agent.trajectory import Trajectory, read_jsonl

OPTIONS = ("enforce-eager", "max-num-seqs=4", "max-model-len=4096")


@pytest.fixture(scope="module")
def policy() -> VLLMPolicy:
    found = load(f"vllm:{WEIGHTS}", vllm_options=OPTIONS)
    assert isinstance(found, VLLMPolicy)
    return found


def words(trajectory: Trajectory) -> tuple[object, ...]:
    turns = [(turn.text, turn.tokens) for turn in trajectory.turns]
    return trajectory.answer, trajectory.stop, trajectory.error, turns


def test_eval_gives_the_same_texts(scenes: Path, tmp_path: Path) -> None:
    model = ["--model", f"vllm:{WEIGHTS}", "--vllm-options", *OPTIONS]
    command = ["eval", "--data", str(scenes), "-o", str(tmp_path / "vllm"), "--quiet", *model]
    done = subprocess.run([sys.executable, "-m", "cof_agent.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr  # the engine ends as quietly as it worked
    there = list(read_jsonl(tmp_path / "vllm" / "trajectories.jsonl", Trajectory))
    here = Agent(policy=load_local(WEIGHTS, device="cpu")).ask_many(read_samples(scenes), progress=False)
    assert [words(one) for one in there] == [words(one) for one in here]
    assert any(one.zooms for one in there)


def test_a_conversation_is_dropped_and_others_go_on(policy: VLLMPolicy, scenes: Path) -> None:
    """More at once than the engine works on; one caller leaves."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]

    async def asked() -> list[str]:
        many = [asyncio.create_task(policy.generate(messages, [], Sampling(max_tokens=12))) for _ in range(9)]
        await asyncio.sleep(0)
        many.pop(3).cancel()
        return [one.text for one in await asyncio.gather(*many)]

    texts = asyncio.run(asked())
    assert len(set(texts)) == 1 and texts[0]


def test_probabilities_are_told_when_they_are_asked_for(policy: VLLMPolicy, scenes: Path) -> None:
    samples = read_samples(scenes)[:2]
    there = Agent(policy=policy, strategy="tree").ask_many(samples, progress=False)
    here = Agent(policy=load_local(WEIGHTS, device="cpu"), strategy="tree").ask_many(samples, progress=False)
    assert [words(one) for one in there] == [words(one) for one in here]


def test_what_has_no_room_is_a_sentence(policy: VLLMPolicy) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "sign " * 5000}]}]
    with pytest.raises(PolicyError, match="vLLM takes 4096 with the reply; raise its max-model-len"):
        asyncio.run(policy.generate(messages, [], Sampling(max_tokens=12)))


def test_an_option_at_vllms_default_is_given_too() -> None:
    """`dtype=auto` replaces our precision, though it is what vLLM would take by itself."""
    assert as_keywords(["dtype=auto", "max-num-seqs=4"]) == {"dtype": "auto", "max_num_seqs": 4}
    assert as_keywords([]) == {}


def test_a_checkpoint_that_vllm_cannot_run_is_a_sentence() -> None:
    with pytest.raises(InputError, match="vLLM cannot run"):
        load(f"vllm:{WEIGHTS}", vllm_options=("enforce-eager", "max-model-len=9999999"))


def test_an_engine_that_died_ends_the_run(policy: VLLMPolicy, scenes: Path) -> None:
    """The last test here: nobody can ask this engine any more."""

    def kill(*_: object) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(InputError, match="vLLM's engine has died"):
        Agent(policy=policy).ask_many(read_samples(scenes), concurrency=1, progress=False, on_done=kill)
