"""The teacher against the ideal: a server on loopback that takes half a second for each reply.

Prints samples per second of `cof collect` at concurrency 1, 8 and 64, the last also as two shards of 32, and their share of
the ideal: all replies' time, divided by the concurrency.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from cof_agent.backends.chat import connect
from cof_agent.data.shards import Shard
from cof_agent.environment import ZoomSettings
from cof_agent.episodes import Episode, drawn
from cof_agent.teacher import collect
from cof_agent.teacher.graph import Search
from cof_agent.teacher.prompted import AskedLocator, AskedPlanner, AskedSummariser, AskedVerifier, PolicyDescriber
from cof_agent.teacher.roles import Cast
from cof_agent.trajectory import Sample

LATENCY = 0.5  # seconds of each reply
TEACHER = Path(__file__).parents[2] / "tests" / "scripted_teacher.py"


def run() -> None:
    command = [sys.executable, str(TEACHER), "--latency", str(LATENCY)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, get_context("spawn")) as processes:
        list(processes.map(_warm, (url, url)))
        for concurrency, parts in ((1, 1), (8, 1), (64, 1), (64, 2)):
            folder = Path(name) / f"{concurrency}-{parts}"
            folder.mkdir()
            # Many rounds, since the last samples leave workers idle, which the ideal does not know.
            wanted = drawn(_patches(folder, max(8, 10 * concurrency)), (224, 336, 448), 0)
            started = time.perf_counter()
            shards = [Shard(number, parts) for number in range(1, parts + 1)]
            work = [processes.submit(_collect, url, wanted, folder, concurrency // parts, shard) for shard in shards]
            summaries = [part.result() for part in work]
            wall = time.perf_counter() - started
            summary = max(summaries, key=lambda one: one["n"] - one["left"])
            calls = summary["cost"]["calls"]
            print(
                f"concurrency {concurrency:2} in {parts} process{'es' if parts > 1 else '  '}: "
                f"{len(wanted) / wall:6.2f} samples/s, {calls / len(wanted):.1f} calls a sample, "
                f"{calls * LATENCY / concurrency / wall:.2f} of the ideal, {summary['kept']} of {summary['n']} kept"
            )
    server.terminate()


def _warm(url: str) -> None:
    """The imports, those of the client included, are no part of what is measured; held up so that both processes do them."""
    _served(url)
    time.sleep(2)


def _collect(url: str, wanted: list[Episode], folder: Path, concurrency: int, shard: Shard) -> dict[str, Any]:
    output = folder / "out"
    return asyncio.run(
        collect.collect(wanted, _served(url), output, concurrency=concurrency, shard=shard, progress=False)
    )


def _served(url: str) -> Search:
    policy = connect("qwen2.5-vl-scripted", base_url=url)
    cast = Cast(
        AskedPlanner(policy),
        AskedLocator(policy),
        PolicyDescriber(policy),
        AskedVerifier(policy),
        AskedSummariser(policy),
    )
    return Search(cast, ZoomSettings(policy.coordinates, policy.limits))


def _patches(folder: Path, count: int) -> list[Sample]:
    """Pictures with one red patch each, which the scripted teacher can find and name."""
    random, samples = Random(count), []
    for number in range(count):
        side = random.randint(20, 120)
        x, y = random.randint(0, 1280 - side), random.randint(0, 720 - side)
        path = folder / f"{count}-{number}.png"
        picture = Image.new("RGB", (1280, 720), (30, 90, 60))
        picture.paste((230, 20, 20), (x, y, x + side, y + side))
        picture.save(path)
        samples.append(Sample(f"{count}-{number}", str(path), f"What colour is patch {number}?", ("red",)))
    return samples
