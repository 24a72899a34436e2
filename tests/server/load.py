"""Many clients at once, slow and vanishing ones among them: `python -m tests.server.load --seconds 600`.

Prints what each kind of client got, and how the server's memory and open files went; the exit code is 1 if a client was stuck
or got a wrong answer, or something was left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from cof_agent.agent import Agent
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Size
from cof_agent.protocol import question_text
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Sample
from tests.server.conftest import data_url

CLIENTS = 64
STUCK = 120.0  # seconds after which a client waits in vain
SAMPLED = 2.0  # seconds between two looks at the server's memory
MOST_GROWTH = 1.25  # of the memory, from the second quarter of the time to the last
"""The allocator's share varies: ten minutes were measured at 0.99, two at up to 1.07. In the minute between these quarters
a busy machine answers 150 requests with a picture of 6 MB each. Were all of them kept, the memory of 0.9 GB would double. One of
every fourth request is still found."""
LEFT_FILES = 8  # open files at the end beside those at the beginning: idle connections, the pool of threads
KINDS = ("whole", "stream", "slow reader", "slow sender", "vanishes", "hangs up", "zoom")


@dataclass
class Load:
    """What happened. faults: of clients, in words. memory: megabytes, over time."""

    address: str
    process: int
    questions: list[tuple[bytes, bytes, str]]
    image: str
    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    faults: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: tuple[int, int] = (0, 0)

    async def run(self) -> None:
        """Runs the clients, then asks once more and looks at what is left."""
        async with httpx.AsyncClient(
            base_url=self.address, timeout=STUCK, limits=httpx.Limits(max_connections=None)
        ) as http:
            await self._whole(http, random.Random(0))  # so that the model has run once
        before, end = self._open_files(), time.monotonic() + self.seconds
        watching = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._client(number, end) for number in range(CLIENTS)))
        watching.cancel()
        async with httpx.AsyncClient(base_url=self.address, timeout=STUCK) as http:
            await self._whole(http, random.Random(0))
        await asyncio.sleep(8)  # the server closes idle connections after five seconds
        self.files = before, self._open_files()

    @property
    def growth(self) -> float:
        """The memory of the last quarter of the time, against that of the second."""
        quarter = len(self.memory) // 4
        return median(self.memory[-quarter:]) / median(self.memory[quarter : 2 * quarter])

    def problems(self) -> list[str]:
        """What is wrong; empty if nothing is."""
        found = [f"{count} x {fault}" for fault, count in Counter(self.faults).most_common(10)]
        found += [] if self.growth <= MOST_GROWTH else [f"memory grew {self.growth:.2f} times"]
        found += (
            []
            if self.files[1] <= self.files[0] + LEFT_FILES
            else [f"open files: {self.files[0]}, then {self.files[1]}"]
        )
        return found + [f"no {kind} was done" for kind in KINDS if not self.done[kind]]

    async def _client(self, number: int, end: float) -> None:
        """One client: requests of one kind after the other. One that needs `STUCK` seconds is a fault."""
        rng, kind = random.Random(number), KINDS[number % len(KINDS)]
        ways: dict[str, Callable[[httpx.AsyncClient, random.Random], Awaitable[None]]] = {
            "whole": self._whole,
            "stream": self._stream,
            "slow reader": lambda http, rng: self._stream(http, rng, pause=0.3),
            "slow sender": self._slow_sender,
            "vanishes": self._vanishes,
            "hangs up": self._hangs_up,
            "zoom": self._zoom,
        }
        while time.monotonic() < end:
            async with httpx.AsyncClient(base_url=self.address, timeout=STUCK) as http:
                try:
                    async with asyncio.timeout(STUCK):
                        await ways[kind](http, rng)
                    self.done[kind] += 1
                except TimeoutError:
                    self.faults.append(f"{kind}: stuck")
                except (httpx.HTTPError, OSError, KeyError, ValueError) as error:
                    self.faults.append(f"{kind}: {type(error).__name__}: {error}"[:200])

    def _check(self, kind: str, got: Any, wanted: str) -> None:
        if got != wanted:
            self.faults.append(f"{kind}: {got!r} in place of {wanted!r}")

    async def _whole(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        whole, _, answer = rng.choice(self.questions)
        await self._answered("whole", await http.post("/v1/chat/completions", content=whole), answer)

    async def _answered(self, kind: str, reply: httpx.Response, answer: str) -> None:
        if reply.status_code == 503:
            self.busy += 1
            await asyncio.sleep(float(reply.headers["retry-after"]))
            return
        self._check(kind, reply.json()["choices"][0]["message"]["content"], answer)

    async def _stream(self, http: httpx.AsyncClient, rng: random.Random, pause: float = 0.0) -> None:
        _, streamed, answer = rng.choice(self.questions)
        got = ""
        async with http.stream("POST", "/v1/chat/completions", content=streamed) as reply:
            if reply.status_code == 503:
                self.busy += 1
                return
            async for line in reply.aiter_lines():
                await asyncio.sleep(pause)
                if line.startswith("data: {"):
                    choices = json.loads(line[6:])["choices"]
                    got += "".join(choice["delta"].get("content") or "" for choice in choices)
        self._check("stream", got, answer)

    async def _slow_sender(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        whole, _, answer = rng.choice(self.questions)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), 1 + len(whole) // 20):
                yield whole[start : start + 1 + len(whole) // 20]
                await asyncio.sleep(0.15)

        await self._answered("slow sender", await http.post("/v1/chat/completions", content=pieces()), answer)

    async def _vanishes(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        """Closes the connection at any moment."""
        asking = asyncio.create_task(self._whole(http, rng) if rng.random() < 0.5 else self._stream(http, rng))
        await asyncio.wait({asking}, timeout=2 * rng.random())
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    async def _hangs_up(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        """Sends a part of a request, waits, and goes."""
        whole, _, _ = rng.choice(self.questions)
        _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(whole)}\r\n\r\n".encode()
        writer.write((head + whole)[: rng.randrange(len(head) + len(whole))])
        await asyncio.sleep(rng.random())
        writer.transport.abort()
        await asyncio.sleep(0.2)

    async def _zoom(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        """A call of MCP's tool, as a request by itself."""
        x, y = rng.randrange(1_600), rng.randrange(900)
        arguments = {"image": self.image, "box": [x, y, x + 200, y + 100]}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "zoom", "arguments": arguments}}
        reply = await http.post("/mcp", json=call, headers={"accept": "application/json, text/event-stream"})
        self._check("zoom", f'"region":[{x},{y},{x + 200},{y + 100}]' in reply.text.replace(" ", ""), True)  # type: ignore[arg-type]
        await asyncio.sleep(0.3)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SAMPLED)
            pages = int(Path(f"/proc/{self.process}/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def _open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process}/fd"))


def questions_of(samples: list[Sample]) -> list[tuple[bytes, bytes, str]]:
    """For each question a request, the same as a stream, and the answer that the agent gives alone."""
    agent, found = Agent("nano"), []
    for sample in samples:
        text = question_text(sample)
        content = [{"type": "image_url", "image_url": {"url": data_url(sample.image)}}, {"type": "text", "text": text}]
        body = {"model": "nano", "messages": [{"role": "user", "content": content}]}
        answer = agent.ask(sample.image, text).answer or ""
        found.append((json.dumps(body).encode(), json.dumps(body | {"stream": True}).encode(), answer))
    return found


def put_under_load(seconds: float, folder: Path) -> Load:
    """Starts a server and the clients."""
    write_scenes(folder, count=6, seed=3, size=Size(1920, 1080), split="test")
    samples = read_samples(folder)
    command = [sys.executable, "-m", "cof_agent.cli", "serve", "--port", "0", "--allow-images-from", str(folder)]
    log = folder / "log"
    with (
        open(log, "w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        try:
            assert server.stdout
            address = server.stdout.readline().split()[0]
            load = Load(address, server.pid, questions_of(samples), samples[0].image, seconds)
            asyncio.run(load.run())
        finally:
            server.terminate()
    said = log.read_text()
    load.faults += [f"the server said: {said[-1_500:]}"] if "Traceback" in said else []
    return load


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        load = put_under_load(options.seconds, Path(folder))
    print(f"{CLIENTS} clients for {options.seconds:g} s: " + ", ".join(f"{kind} {load.done[kind]}" for kind in KINDS))
    print(f"told to come back later: {load.busy}; open files before and after: {load.files[0]}, {load.files[1]}")
    print(
        f"memory: {load.memory[0]:.0f} MB first, {max(load.memory):.0f} MB at most, {load.growth:.3f} times at the end"
    )
    for problem in load.problems():
        print(f"FAULT: {problem}")
    return bool(load.problems())


if __name__ == "__main__":
    sys.exit(main())
