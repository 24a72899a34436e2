"""The client against the ideal: a server on loopback that takes half a second for each reply, and photographs of 4K.

Prints calls per second, their share of the ideal (all replies' time, divided by the concurrency), megabytes a call and
milliseconds of the CPU a call. "pixels alone" is no client: it opens, resizes and cuts with Pillow, one photograph a core at a
time, and waits as long as the server would; no client of these photographs can be faster. The plain way does in 32 threads what
a script of a few lines does: Pillow opens, resizes and cuts, and each call encodes all of its images as PNG. vLLM is a server
that keeps images by their ids, as vLLM does.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Semaphore
from typing import Any

from PIL import Image, ImageFilter

from cof_agent.agent import Agent
from cof_agent.geometry import Box
from cof_agent.protocol import write_answer, write_zoom
from cof_agent.trajectory import Sample

LATENCY, CONCURRENCY, OVERVIEW = 0.5, 32, 1_000_000
BOXES = (Box(200, 150, 520, 330), Box(700, 300, 980, 480))  # of the overview, in shown pixels
TURNS = [*(write_zoom("Closer.", box) for box in BOXES), write_answer("I see it.", "red")]


def run(count: int) -> None:
    here, there = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = [Sample(path.name, str(path), "Which colour?") for path in _photographs(folder, count)]
        shared = folder / "shared"
        shared.mkdir()
        ways: dict[str, Callable[[], Any]] = {
            "pixels alone": lambda: _plain(None, samples),
            "plain": lambda: _plain(f"{url}/v1", samples),
            "ours, vLLM": lambda: _ours(f"{url}/vllm/v1", samples),
            "ours, any server": lambda: _ours(f"{url}/v1", samples),
            "ours, --image-folder": lambda: _ours(f"{url}/vllm/v1", samples, image_folder=str(shared)),
            "ours, --jpeg 95": lambda: _ours(f"{url}/vllm/v1", samples, jpeg=95),
        }
        _ours(f"{url}/v1", samples[:2])  # the imports are no part of what is measured
        for way, play in ways.items():
            here.send("reset")
            here.recv()
            cpu, started = time.process_time(), time.perf_counter()
            play()
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            here.send("told")
            calls, size = here.recv()
            calls = calls or len(TURNS) * count
            print(
                f"{way:21} {calls / wall:6.1f} calls/s, {calls * LATENCY / CONCURRENCY / wall:.2f} of the ideal, "
                f"{size / calls / 1e6:5.2f} MB and {1000 * cpu / calls:4.0f} ms of the CPU a call"
            )
    server.terminate()


def _ours(url: str, samples: list[Sample], **given: Any) -> None:
    agent = Agent("qwen2.5-vl-bench", base_url=url, overview_pixels=OVERVIEW, **given)
    found = agent.ask_many(samples, concurrency=CONCURRENCY, progress=False)
    assert all(one.answer == "red" and one.zooms == len(BOXES) for one in found)


def _plain(url: str | None, samples: list[Sample]) -> None:
    """url: None for pixels alone."""
    one = partial(_pixels, Semaphore(os.cpu_count() or 1)) if url is None else partial(_one, url)
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        list(threads.map(lambda sample: one(sample.image), samples))


def _pixels(cores: Semaphore, path: str) -> None:
    with cores:
        picture, scale, _ = _opened(path)
    for box in (*BOXES, None):
        time.sleep(LATENCY)
        if box is not None:
            with cores:
                _cut(picture, box, scale)


def _opened(path: str) -> tuple[Image.Image, float, Image.Image]:
    """A photograph, its overview, and how much smaller that is."""
    picture = Image.open(path).convert("RGB")
    scale = (OVERVIEW / (picture.width * picture.height)) ** 0.5
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture, scale, picture.resize(size, Image.Resampling.BICUBIC)


def _cut(picture: Image.Image, box: Box, scale: float) -> Image.Image:
    part = picture.crop([round(edge / scale) for edge in box])  # type: ignore[arg-type]
    return part.resize((560, 448), Image.Resampling.BICUBIC)


def _one(url: str, path: str) -> None:
    picture, scale, overview = _opened(path)
    shown = [overview]
    messages: list[dict[str, Any]] = []
    for box in (*BOXES, None):
        messages.append({"role": "user", "content": [{"type": "image_url", "view": len(shown) - 1}]})
        told = [
            {**one, "content": [_encoded(shown[part["view"]]) for part in one["content"]]}
            if one["role"] == "user"
            else one
            for one in messages
        ]
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps({"messages": told}).encode())
        with urllib.request.urlopen(request) as reply:
            messages.append(json.load(reply)["choices"][0]["message"])
        if box is not None:
            shown.append(_cut(picture, box, scale))


def _encoded(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _photographs(folder: Path, count: int) -> list[Path]:
    """Pictures with the detail and the size of a file that photographs have."""
    noise = Image.merge("RGB", [Image.effect_noise((960, 540), 90) for _ in range(3)])
    base = noise.filter(ImageFilter.GaussianBlur(2)).resize((3840, 2160), Image.Resampling.BICUBIC)
    grain = Image.merge("RGB", [Image.effect_noise((3840, 2160), 12)] * 3)
    base = Image.blend(base, grain, 0.3)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        base.transform(base.size, Image.Transform.AFFINE, (1, 0, 7 * number, 0, 1, 3 * number)).save(path, quality=90)
    return paths


def _serve(pipe: Connection) -> None:
    """Answers after `LATENCY` with the line of the script that is next."""
    told = [0, 0]
    kept: set[bytes] = set()

    def reply(head: bytes, body: bytes) -> tuple[float, bytes, Any]:
        """Seconds until the answer, its status, and what it says."""
        vllm = b" /vllm/" in head
        if head.startswith(b"GET"):
            listed = {"data": [{"id": "qwen2.5-vl-bench", "owned_by": "vllm"}]}
            return 0, b"200 OK" if vllm else b"404 X", listed
        if vllm and not kept.issuperset(re.findall(rb'"image_url": ?null, ?"uuid": ?"([^"]+)"', body)):
            return 0, b"400 X", {"error": {"message": "Cache miss for image, but data is not provided."}}
        kept.update(re.findall(rb'"uuid": ?"([^"]+)"', body))
        told[0] += 1
        told[1] += len(body)
        message = {"role": "assistant", "content": TURNS[len(re.findall(rb'"role": ?"assistant"', body))]}
        return LATENCY, b"200 OK", {"choices": [{"message": message, "finish_reason": "stop"}]}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                wait, status, said = reply(head, body)
                await asyncio.sleep(wait)
                sent = json.dumps(said).encode()
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, len(sent)) + sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**24)
        pipe.send(server.sockets[0].getsockname()[1])
        threading.Thread(target=tell, daemon=True).start()
        await server.serve_forever()

    def tell() -> None:
        while True:
            if pipe.recv() == "reset":
                told[:] = [0, 0]
                kept.clear()
            pipe.send(tuple(told))

    asyncio.run(serve())
