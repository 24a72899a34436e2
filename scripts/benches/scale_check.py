"""The model of `scale` beside real rollouts: on the paced server, and on vLLM itself with nano on this CPU.

The rates come from single requests that are none of the rollouts: calls with images that the server has and has not, prompts, and
replies of one length, few and many at once. The turns are those that were really played; the model says when they end. The server
has the last core for itself, and its caches are emptied before each run.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from PIL import Image
from trl.generation.vllm_client import VLLMClient

from benches.rl_scale import conversation_of
from benches.rl_vllm import MILLISECONDS, Bench, Waits, _counts, _server, _version, forget
from benches.scale import MEGAPIXEL, Layout, Rates, play
from cof_agent.backends.chat.images import png
from cof_agent.backends.local.decode import Prompt
from cof_agent.backends.vllm.requests import Reply, Request, request_of, sampling_params
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Size
from cof_agent.output.files import write_atomic
from cof_agent.policy import Sampling
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import to_json
from rl.engines.servers import Servers
from rl.rollout import Rollout

GROUP = 8
PROBES = 32  # requests of a probe
REPEATS = 3
LONG = 64  # tokens of a reply that is timed
BLOCK = 128  # tokens of a block of vLLM's prefix cache on a CPU; the paced server has none
PROMPT = 512  # tokens of a prompt that is timed, about as many as a turn has
TEMPERATURE = 1.0  # as in training: conversations of a group differ
AT_ONCE = (1, 32)
SHOWN = ((448, 252), (168, 112))  # pixels of an overview and a crop, nano's


def run(what: Sequence[str], conversations: Sequence[int], keep: Path | None = None) -> None:
    """what: paced, vllm. conversations: at once, of one run each. keep: a file for what was played last."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "scenes"
        write_scenes(data, count=max(conversations) // GROUP, seed=11, size=Size(3840, 2160), split="hard")
        samples = read_samples(data)
        write_scenes(Path(folder) / "other", count=1, seed=12, size=Size(3840, 2160), split="hard")
        scene = Image.open(read_samples(Path(folder) / "other")[0].image).convert("RGB")
        heads = ("real s", "model s", "model / real", "real MiB", "model MiB", "model / real")
        print(f"{'':34}" + "".join(f"{head:>14}" for head in heads))
        paced: tuple[list[str], list[str], AgentConfig] = (
            [str(Path(__file__).with_name("paced.py"))],
            [str(MILLISECONDS)],
            AgentConfig(max_zooms=6, max_tokens=400),
        )
        real: tuple[list[str], list[str], AgentConfig] = (
            ["-m", "benches.real_vllm"],
            [],
            AgentConfig(max_tokens=96),
        )
        servers = {"paced": paced, "vllm": real}
        for name, (program, options, config) in ((one, servers[one]) for one in what):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[-1:])  # of the server, which inherits it
            with _server(program, Path(folder), *options) as url:
                os.sched_setaffinity(0, cores[:-1])  # of the client
                first = Bench(samples[:1] * GROUP, TEMPERATURE, config)
                for way in (first.own_pace, first.rounds):
                    way(url)  # images are decoded, the engine is warm
                rates = replace(rates_of(first, url, scene, replies=name == "vllm"), png=png_bytes(first, url))
                print(f"{name}: {rates}")
                for count in conversations:
                    played = [one for one in samples[: count // GROUP] for _ in range(GROUP)]
                    found = compare(f"{name}, {count}", Bench(played, TEMPERATURE, config), url, rates)
                    if keep is not None:
                        write_atomic(keep, "".join(to_json(one.trajectory) + "\n" for one in found))
            os.sched_setaffinity(0, cores)


def compare(name: str, bench: Bench, url: str, rates: Rates) -> list[Rollout]:
    """Prints both ways, played and reckoned."""
    rollouts: list[Rollout] = []
    bench.decode()
    for way, pace in (("rounds", False), ("own pace", True)):
        play_it: Callable[[str], tuple[list[Rollout], object]] = bench.own_pace if pace else bench.rounds
        forget(url)
        _counts(url)
        began = time.perf_counter()
        rollouts, _ = play_it(url)
        real, counts = time.perf_counter() - began, _counts(url)
        turns = [conversation_of(one.trajectory) for one in rollouts]
        found = play([one for one in turns if one], Layout(1, 1, pace=pace, group=GROUP), rates)
        figures = [real, found.seconds, found.seconds / real]
        if counts:
            sizes = ((counts["received"] + counts["sent"]) / 2**20, found.bytes / 2**20)
            figures += [*sizes, sizes[1] / sizes[0]]
        print(f"{f'{name}, {way}':34}" + "".join(f"{one:14.2f}" for one in figures), flush=True)
    return rollouts


def png_bytes(bench: Bench, url: str) -> float:
    """Bytes of a shown pixel as PNG in base64, in the conversations of the first group."""
    images = {image.tobytes(): image for one in bench.own_pace(url)[0] for image in one.images}.values()
    return sum(4 * len(png(image)) / 3 for image in images) / sum(image.width * image.height for image in images)


def rates_of(bench: Bench, url: str, scene: Image.Image, *, replies: bool) -> Rates:
    """Measured by requests of one token, about parts of a scene that no rollout is about: what a client spends on a PNG
    depends on what it shows. replies: measure decoding and reading too; else they are those of the paced server."""
    rates = Rates(MILLISECONDS / 1000, 0.0, 0.0)
    if replies:
        rates = engine_rates(bench, url)
    area = sum(width * height for width, height in SHOWN) / MEGAPIXEL
    one = rates.token
    probes = [asyncio.run(own_probe(bench, url, [parts_of(scene) for _ in range(PROBES)])) for _ in range(REPEATS)]
    new, known = (min(each) for each in zip(*probes, strict=True))
    ids = len(shown(bench, parts_of(scene)).ids)
    read = rates.read * (ids - (ids - 1) // BLOCK * BLOCK)
    call = max(0.0, (known - one) / PROBES - read)
    image = max(0.0, (new - 2 * one - PROBES * (2 * call + read)) / PROBES / area)
    distinct, again, alike = rounds_probe(bench, url, scene)
    patches = max(0.0, ((alike - one) / PROBES - call - read) / area)
    send = max(0.0, (again - alike) / PROBES / area)
    render = max(0.0, (distinct - again) / PROBES / area)
    return replace(
        rates, turn=turn_seconds(bench, url), call=call, image=image, render=render, send=send, patches=patches
    )


def turn_seconds(bench: Bench, url: str) -> float:
    """What the agent spends on a turn beside asking: the conversations once more, with replies that are there already."""
    replies: dict[str, Reply] = {}

    def name(request: Request) -> str:
        return repr((request.ids, request.sampling["seed"]))

    async def play(fresh: bool) -> tuple[float, int]:
        servers = Servers([url], _version(url), bench._local._image_token_id)

        async def ask(request: Request) -> Reply:
            if fresh:
                replies[name(request)] = await servers.ask(request)
            return replies[name(request)]

        began = time.perf_counter()
        played = await bench._rollouts(ask, Waits(), lambda: None)
        return time.perf_counter() - began, sum(len(one.trajectory.turns) for one in played)

    asyncio.run(play(True))
    seconds, turns = min(asyncio.run(play(False)) for _ in range(REPEATS))
    return seconds / turns


def engine_rates(bench: Bench, url: str) -> Rates:
    """Of decoding: replies of so many tokens to prompts as long as real ones, one and many at once. Of reading: such prompts, one
    after the other."""

    async def timed(servers: Servers, requests: Sequence[Request]) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(servers.ask(one) for one in requests))
        return time.perf_counter() - began

    async def measured() -> Rates:
        servers = Servers([url], _version(url), bench._local._image_token_id)
        steps = []
        for count in AT_ONCE:
            asked = [bare(bench, PROMPT, LONG) for _ in range(count)]
            short = [bare(bench, PROMPT, 1) for _ in range(count)]
            seconds = min([await timed(servers, asked) for _ in range(REPEATS)])
            first = min([await timed(servers, short) for _ in range(REPEATS)])
            steps.append((seconds - first) / (LONG - 1))
        few, many = AT_ONCE
        long = min([await timed(servers, [bare(bench, PROMPT, 1)]) for _ in range(REPEATS)])
        short_one = min([await timed(servers, [bare(bench, 8, 1)]) for _ in range(REPEATS)])
        read = max(0.0, (long - short_one) / (PROMPT - 8))
        return Rates(steps[0], (steps[1] - steps[0]) / (many - few), read, BLOCK)

    return asyncio.run(measured())


def bare(bench: Bench, length: int, written: int) -> Request:
    """A prompt of random words without images, and a reply of exactly so many tokens."""
    ids = [Random().randrange(210, 380) for _ in range(length)]
    sampling = Sampling(max_tokens=written, temperature=TEMPERATURE, seed=1)
    return Request(ids, [], (), sampling_params(sampling, (), bench._local.unspeakable) | {"ignore_eos": True})


def parts_of(scene: Image.Image) -> list[Image.Image]:
    """Random parts, in the sizes of an overview and a crop."""
    found = []
    for share, (width, height) in zip((0.8, 0.25), SHOWN, strict=True):
        wide, high = int(scene.width * share), int(scene.height * share)
        left, top = Random().randrange(scene.width - wide), Random().randrange(scene.height - high)
        found.append(scene.resize((width, height), box=(left, top, left + wide, top + high)))
    return found


def shown(bench: Bench, images: Sequence[Image.Image]) -> Request:
    """A prompt that is these images, and a reply of one token."""
    local = bench._local
    markers = local.family.markers
    each = f"{markers.before_image}{markers.image}{markers.after_image}"
    ids, pictures = local.read(each * len(images), list(images))
    prompt = Prompt(ids, pictures, Sampling(max_tokens=1, temperature=TEMPERATURE, seed=1))
    return request_of(prompt, local.stop_ids, local.unspeakable)


async def own_probe(bench: Bench, url: str, images: Sequence[Sequence[Image.Image]]) -> tuple[float, float]:
    """Seconds for requests whose images are new, and for the same once more."""
    servers = Servers([url], _version(url), bench._local._image_token_id)
    requests = [shown(bench, image) for image in images]
    found = []
    for _ in range(2):
        began = time.perf_counter()
        await asyncio.gather(*(servers.ask(one) for one in requests))
        found.append(time.perf_counter() - began)
    return found[0], found[1]


def rounds_probe(bench: Bench, url: str, scene: Image.Image) -> tuple[float, float, float]:
    """Seconds for a round of requests with images of their own, for the same once more, and for one in which all have the same
    images, which are known by then; the best of several."""
    client, one = VLLMClient(base_url=url), parts_of(scene)
    bench._round(client, [shown(bench, one)])
    found: list[list[float]] = []
    for _ in range(REPEATS):
        own, seconds = [parts_of(scene) for _ in range(PROBES)], []
        for images in (own, own, [one] * PROBES):
            requests = [shown(bench, image) for image in images]
            began = time.perf_counter()
            bench._round(client, requests)
            seconds.append(time.perf_counter() - began)
        found.append(seconds)
    distinct, again, alike = (min(each) for each in zip(*found, strict=True))
    return distinct, again, alike
