"""Rollouts by vLLM servers, each conversation at its own pace, against rounds in which each waits for all others.

A round is as TRL's client asks: all that is shown so far is rendered by the server, and sent back to it with the token ids.
Both sides play the same conversations on the same server, and must give the same tokens. First on a server that stands for
one on a GPU (`paced`), then on vLLM itself, with nano on the CPU. Last, steps of training with the next batch played
meanwhile (`ahead`), and without.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.vllm.policy import Ask, VLLMPolicy
from cof_agent.backends.vllm.requests import Reply, Request
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.geometry import Size
from cof_agent.nano import NANO
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Sample
from rl.engines.servers import Servers
from rl.engines.vllm import rounds_of
from rl.rollout import Rollout, roll_out

ROOT = Path(__file__).parents[2]
MILLISECONDS = 13  # a token
LONGEST = 8192
AT_ONCE = 64  # requests that TRL's client sends at the same time

WARM = 2  # steps that are not counted
TRAINED = {
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "max_zooms": 6,
    "max_tokens": 400,
    "max_completion_length": 4096,
    "threads": 1,
    "save_strategy": "no",
    "quiet": "true",
    "use_vllm": "true",
    "vllm_mode": "server",
}
Play = Callable[[Ask, Callable[[], None]], Coroutine[Any, Any, list[Rollout]]]


@dataclass
class Waits:
    """Seconds from the beginning to the end of each conversation."""

    ends: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Played:
    """seconds: of the whole rollout. share: of the time up to a conversation's end, that in which its replies are written."""

    seconds: float
    tokens: list[list[int]]
    counts: dict[str, float]
    share: float


class Bench:
    """The same conversations, by whichever way and server. temperature: 0 for greedy."""

    def __init__(self, samples: Sequence[Sample], temperature: float, config: AgentConfig) -> None:
        self._local: LocalPolicy = load(NANO, device="cpu", dtype="float32")
        self._samples = list(samples)
        self._config = replace(config, temperature=temperature)
        self._sources = ZoomEnvironment()

    def decode(self) -> None:
        """Decodes each image, which then takes no time of a rollout."""
        for sample in {one.image: one for one in self._samples}.values():
            self._sources.image(sample, self._sources.reset(sample))

    def own_pace(self, url: str) -> tuple[list[Rollout], Waits]:
        waits = Waits()

        async def play() -> list[Rollout]:
            servers = Servers([url], _version(url), self._local._image_token_id)
            return await self._rollouts(servers.ask, waits, lambda: None)

        return asyncio.run(play()), waits

    def rounds(self, url: str) -> tuple[list[Rollout], Waits]:
        waits, client = Waits(), VLLMClient(base_url=url)
        rounds = rounds_of(len(self._samples))
        played = rounds.play(
            lambda: self._rollouts(rounds.ask, waits, rounds.leave),
            lambda requests: self._round(client, requests) if requests else None,
        )
        return played, waits

    def _rollouts(self, ask: Ask, waits: Waits, on_end: Callable[[], None]) -> Coroutine[Any, Any, list[Rollout]]:
        def ended() -> None:
            waits.ends.append(time.perf_counter() - waits.began)
            on_end()

        model, processor = self._local._decoder._model, self._local._processor
        return roll_out(
            episodes(self._samples),
            VLLMPolicy(model, processor, name="nano", longest=LONGEST, ask=ask),
            self._config,
            self._sources,
            budget=LONGEST // 2,
            seeds=range(len(self._samples)),
            on_end=ended,
        )

    def _round(self, client: VLLMClient, requests: Sequence[Request]) -> list[Reply]:
        images = {request.keys: request.images for request in requests}
        features = dict(zip(images, client.image_features(list(images.values())), strict=True))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda one: self._one(client, one, features[one.keys]), requests))

    def _one(self, client: VLLMClient, request: Request, features: Any) -> Reply:
        places: Any = SimpleNamespace(processing_class=SimpleNamespace(image_token_id=self._local._image_token_id))
        placed = VLLMGeneration._place_features(places, features, request.ids)
        found = client.generate([request.ids], features=[placed], generation_kwargs=request.sampling)
        return Reply(found["completion_ids"][0], [entry[0] for entry in found["logprobs"][0]])


def run(conversations: int, repeats: int, steps: int, what: Sequence[str]) -> None:
    """conversations: at once, eight about each question. repeats: of each way by turns, the fastest of which counts. steps: of
    training that are counted. what: paced, vllm, ahead."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "scenes"
        write_scenes(data, count=max(2, conversations // 8), seed=11, size=Size(3840, 2160), split="hard")
        samples = [sample for sample in read_samples(data)[: conversations // 8] for _ in range(8)]
        if "paced" in what:
            print(f"\n{MILLISECONDS} ms a token, any number at once; {conversations} conversations of 1 to 6 turns")
            bench = Bench(samples, 1.0, AgentConfig(max_zooms=6, max_tokens=400))
            with _server([str(Path(__file__).with_name("paced.py"))], Path(folder), str(MILLISECONDS)) as url:
                _compare(bench, url, repeats)
        if "vllm" in what:
            print(f"\nvLLM on this CPU, nano, greedily; {conversations} conversations")
            bench = Bench(samples, 0.0, AgentConfig(max_tokens=96))
            with _server(["-m", "benches.real_vllm"], Path(folder)) as url:
                _compare(bench, url, repeats)
        if "ahead" in what:
            print(f"\nTraining of nano, rollouts at {MILLISECONDS} ms a token")
            write_scenes(Path(folder) / "many", count=64, seed=11, size=Size(1920, 1080), split="hard")
            _ahead(Path(folder) / "many", Path(folder), steps)


def _ahead(data: Path, folder: Path, steps: int) -> None:
    """Steps an hour of training nano, on rollouts of a paced server. steps: counted ones, after two."""
    rates = {}
    for ahead in (0, 1):
        with _server([str(Path(__file__).with_name("paced.py"))], folder, str(MILLISECONDS)) as url:
            told = _trained(data, folder / f"ahead-{ahead}", url, ahead, WARM + steps)
        counted = told[WARM:]
        rates[ahead] = 3600 * len(counted) / (counted[-1]["at"] - told[WARM - 1]["at"])
        parts = {name: fmean(step[f"seconds/{name}"] for step in counted) for name in ("rollout", "scoring", "update")}
        seconds = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
        print(f"ahead {ahead}: {rates[ahead]:.0f} steps an hour; {seconds}")
    print(f"ahead 1 against ahead 0: {rates[1] / rates[0]:.2f} x")


def _trained(data: Path, output: Path, url: str, ahead: int, steps: int) -> list[dict[str, float]]:
    given = TRAINED | {
        "data": data,
        "output_dir": output,
        "vllm_server_base_url": url,
        "ahead": ahead,
        "max_steps": steps,
    }
    command = [sys.executable, "-m", "benches.paced_train", "--config", str(ROOT / "rl" / "configs" / "nano.yaml")]
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    done = subprocess.run([*command, *words], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line.removeprefix("STEP ")) for line in done.stdout.splitlines() if line.startswith("STEP ")]


@contextmanager
def _server(program: list[str], folder: Path, *options: str) -> Iterator[str]:
    from tests.ports import free_port
    from tests.vllm.server import running

    port = free_port()
    with running([sys.executable, *program, str(port), *options], port, folder / "server.txt") as url:
        yield url


def _version(url: str) -> str:
    with urllib.request.urlopen(f"{url}/weight_info") as answer:
        return str(json.loads(answer.read())["weight_version"])


def _counts(url: str) -> dict[str, float]:
    """What a paced server counted since it was last asked; nothing of another one."""
    try:
        with urllib.request.urlopen(f"{url}/counts") as answer:
            found: dict[str, float] = json.loads(answer.read())
            return found
    except OSError:
        return {}


def _compare(bench: Bench, url: str, repeats: int) -> None:
    ways = {"rounds": bench.rounds, "own pace": bench.own_pace}
    for way in ways.values():
        way(url)  # once without counting
    played: dict[str, list[Played]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            played[name].append(_timed(way, url))
    if len({str(one.tokens) for found in played.values() for one in found}) > 1:
        raise SystemExit("the two ways gave different tokens")
    _print(*(min(found, key=lambda one: one.seconds) for found in played.values()))


def forget(url: str) -> None:
    """Empties the server's caches, as the weights of an update would."""
    for cache in ("prefix", "mm", "encoder"):
        with suppress(urllib.error.HTTPError):  # the paced server has not all of them
            urllib.request.urlopen(urllib.request.Request(f"{url}/reset_{cache}_cache", method="POST")).close()


def _timed(way: Callable[[str], tuple[list[Rollout], Waits]], url: str) -> Played:
    forget(url)
    _counts(url)
    began = time.perf_counter()
    rollouts, waits = way(url)
    seconds, counts = time.perf_counter() - began, _counts(url)
    share = counts.get("replying", 0.0) / sum(waits.ends)
    return Played(seconds, [one.completion for one in rollouts], counts, share)


def _print(rounds: Played, pace: Played) -> None:
    def line(name: str, *values: float, ratio: float | None = None) -> None:
        print(f"{name:44}" + "".join(f"{value:12.3f}" for value in values) + (f"{ratio:10.2f} x" if ratio else ""))

    print(f"{'':44}{'rounds':>12}{'own pace':>12}")
    rates = [len(one.tokens) / one.seconds for one in (rounds, pace)]
    line("seconds", rounds.seconds, pace.seconds)
    line("rollouts a second", *rates, ratio=rates[1] / rates[0])
    if not pace.counts:
        return
    line("share of the time in which a reply is written", rounds.share, pace.share)
    for name in ("received", "sent"):
        values = [one.counts[name] / 2**20 for one in (rounds, pace)]
        line(f"MiB {name} by the server", *values, ratio=values[1] / values[0])
    line("images sent as pixels", rounds.counts["shown"], pace.counts["shown"])
    line("replies", rounds.counts["replies"], pace.counts["replies"])
