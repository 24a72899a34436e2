"""nano behind `vllm serve` answers as nano in this process does, in every strategy that a server can play."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cof_agent import Agent
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.requests import Reply, Request
from cof_agent.data.samples import read_samples
from cof_agent.nano import WEIGHTS
from cof_agent.trajectory import Sample, Trajectory
from rl.engines.servers import Servers
from rl.rollout import Rollout
from tests.ports import free_port
from tests.rl.engines.nano_vllm import assert_same_samples, conversations, in_rounds, unevenly
from tests.rl.engines.test_vllm import assert_same, transformers
from tests.vllm import server

STRATEGIES = ("focus", "always-zoom", "tree", "grid")
CACHES = ("vllm:prefix_cache_hits_total", "vllm:mm_cache_hits_total")


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[str]:
    port = free_port()
    options = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "8192", "--max-num-seqs", "8", *more]
    serve = [*server.VLLM, "serve", str(WEIGHTS), "--host", "127.0.0.1", "--port", str(port)]
    command = ["env", "VLLM_SERVER_DEV_MODE=1", *serve, *options]  # it says which weights it has
    with server.running(command, port, folder / "log.txt") as address:
        yield address


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(
        tmp_path_factory.mktemp("vllm"), "--enable-scale-out", "--logprobs-mode=processed_logprobs"
    ) as address:
        yield address


@pytest.fixture(scope="module")
def samples(scenes: Path) -> list[Sample]:
    return read_samples(scenes)


@pytest.fixture(scope="module")
def local() -> LocalPolicy:
    from cof_agent.backends.checkpoint import load

    return load(WEIGHTS, device="cpu", dtype="float32")


def words(trajectory: Trajectory) -> tuple[object, ...]:
    """All that the model read and wrote, and what came of it."""
    turns = [(turn.text, turn.tokens) for turn in trajectory.turns]
    return trajectory.answer, trajectory.stop, trajectory.error, turns


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_server_plays_as_this_process_does(
    url: str, local: LocalPolicy, samples: list[Sample], strategy: str
) -> None:
    wanted = samples if strategy == "focus" else samples[:3]
    there = Agent(f"openai:{WEIGHTS}", base_url=f"{url}/v1", strategy=strategy).ask_many(wanted, progress=False)
    here = Agent(policy=local, strategy=strategy).ask_many(wanted, progress=False)
    assert [words(one) for one in there] == [words(one) for one in here]
    assert any(one.zooms for one in there)


def test_rollouts_are_those_of_transformers(url: str, local: LocalPolicy, samples: list[Sample]) -> None:
    async def play() -> list[Rollout]:
        servers = Servers([url], "default", local._image_token_id)
        found = await conversations(local, 8192, samples)(servers.ask, lambda: None)
        assert await servers.unchanged()
        return found

    found = asyncio.run(play())
    assert_same(found, transformers(local, samples))
    assert len({len(one.trajectory.turns) for one in found}) > 1
    for one in found:
        assert [value == 0 for value in one.logprobs] == [kept == 0 for kept in one.mask]
        assert all(value is not None and value <= 0 for value in one.logprobs)


def test_seeded_rollouts_are_those_of_rounds(url: str, local: LocalPolicy, samples: list[Sample]) -> None:
    """At temperature 1, in whatever order the turns arrive."""

    def fresh() -> Servers:
        return Servers([url], "default", local._image_token_id)

    async def together(requests: Sequence[Request]) -> list[Reply]:
        servers = fresh()
        return list(await asyncio.gather(*map(servers.ask, requests)))

    twice = samples[:4] * 2
    pace = asyncio.run(unevenly(conversations(local, 8192, twice, 1.0))(fresh().ask, lambda: None))
    assert_same_samples(pace, in_rounds(lambda asked: asyncio.run(together(asked)), local, 8192, twice, 1.0))


def test_what_was_read_before_is_not_read_again(url: str, samples: list[Sample]) -> None:
    agent = Agent(f"openai:{WEIGHTS}", base_url=f"{url}/v1")
    agent.ask_many(samples[:2], progress=False)
    before = server.metrics(url, *CACHES)
    agent.ask_many(samples[:2], progress=False)
    after = server.metrics(url, *CACHES)
    assert {name: after[name] > before[name] for name in CACHES} == dict.fromkeys(CACHES, True)


def test_pixels_travel_once(url: str, samples: list[Sample]) -> None:
    """The last turn of a conversation has no pixels of earlier ones, and vLLM has their images all the same."""
    agent = Agent(f"openai:{WEIGHTS}", base_url=f"{url}/v1")
    agent.ask_many(samples, progress=False)
    ids = agent.policy.image_ids  # type: ignore[attr-defined]
    assert (ids.asked > 0, ids.failed, ids.useless) == (True, 0, False)


@pytest.mark.parametrize("room", ["0", "0.0008"])
def test_a_cache_that_is_too_small_changes_no_answer(
    room: str, local: LocalPolicy, samples: list[Sample], tmp_path: Path
) -> None:
    """room: gigabytes of vLLM's cache of images. The second holds a single image of nano's."""
    with serving(tmp_path, "--mm-processor-cache-gb", room) as url:
        agent = Agent(f"openai:{WEIGHTS}", base_url=f"{url}/v1")
        # The second time the first image is known to have been sent, and the others have pushed it out.
        there = [agent.ask_many(samples, concurrency=1, progress=False) for _ in range(2)]
    here = Agent(policy=local).ask_many(samples, progress=False)
    assert all([words(one) for one in found] == [words(one) for one in here] for found in there)
    ids = agent.policy.image_ids  # type: ignore[attr-defined]
    assert (ids.asked > 0, ids.failed > 0) == ((False, False) if room == "0" else (True, True))
