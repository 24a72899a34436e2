"""A server that stands for one on a GPU: vLLM's endpoints, so many milliseconds a token, for any number of replies at once.

    python scripts/benches/paced.py PORT MILLISECONDS

What it writes follows from the seed of a request: conversations of 1 to 6 turns, with replies of uneven lengths, in nano's
tokens. It counts bytes and the seconds in which replies are under way: GET /counts, which begins to count anew.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

from cof_agent import protocol
from cof_agent.backends.families import QWEN2_5_VL
from cof_agent.geometry import Box
from cof_agent.nano import WEIGHTS

CELL = 28  # shown pixels of a side of one image token
TURNS = 6
LEAST, MEDIAN, SPREAD, MOST = 20, 40, 1.0, 280  # words of a thought: some, and log-normally more
PATCH_BYTES = 12  # of what an image processor makes of a pixel, in bfloat16
END = QWEN2_5_VL.markers.end_of_turn  # nano is one


@dataclass
class Counts:
    """received, sent: bytes of bodies. replying: seconds, summed over replies. shown: images that came as pixels."""

    received: int = 0
    sent: int = 0
    replying: float = 0.0
    replies: int = 0
    shown: int = 0


class Paced:
    def __init__(self, seconds: float) -> None:
        self._seconds, self.counts = seconds, Counts()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
        self._version = "default"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        config = {"max_model_len": 32768, "dtype": "torch.float32", "logprobs_mode": "processed_logprobs"}
        information = {"model_config": config, "weight_transfer_config": {}}
        said: dict[str, Any] = {
            "/health": {},
            "/v1/models": {"data": [{"id": "paced"}]},
            "/server_info": {"vllm_config": information},
            "/get_world_size": {"world_size": 1},
        }
        for path, answer in said.items():
            app.router.add_get(path, _always(answer))
        app.router.add_get("/counts", self._count_anew)
        app.router.add_get("/weight_info", self._weights)
        app.router.add_post("/update_weight_version", self._name)
        app.router.add_post("/v1/chat/completions/render", self._render)
        app.router.add_post("/inference/v1/generate", self._generate)
        for path in ("pause", "start_weight_update", "update_weights", "finish_weight_update", "resume"):
            app.router.add_post(f"/{path}", _always({}))
        for path in ("reset_prefix_cache", "reset_encoder_cache"):
            app.router.add_post(f"/{path}", _always({"success": True}))
        return app

    async def _count_anew(self, _: web.Request) -> web.Response:
        counts, self.counts = self.counts, Counts()
        return web.json_response(asdict(counts))

    async def _weights(self, _: web.Request) -> web.Response:
        return web.json_response({"weight_version": self._version})

    async def _name(self, request: web.Request) -> web.Response:
        self._version = (await request.json())["new_version"]
        return web.json_response({})

    async def _body(self, request: web.Request) -> dict[str, Any]:
        raw = await request.read()
        self.counts.received += len(raw)
        found: dict[str, Any] = json.loads(raw)
        return found

    def _sent(self, answer: Any, status: int = 200) -> web.Response:
        body = json.dumps(answer).encode()
        self.counts.sent += len(body)
        return web.Response(body=body, status=status, content_type="application/json")

    async def _render(self, request: web.Request) -> web.Response:
        """What the image processor makes of images, as long as it is, though nothing stands in it."""
        (message,) = (await self._body(request))["messages"]
        names = [self._see(part["image_url"]["url"]) for part in message["content"]]
        sizes = [self._sizes[name] for name in names]
        features = {
            "mm_hashes": {"image": names},
            "mm_placeholders": {"image": [{"offset": 3, "length": cells(size)} for size in sizes]},
            "kwargs_data": {"image": [base64.b64encode(bytes(w * h * PATCH_BYTES)).decode() for w, h in sizes]},
        }
        return self._sent({"features": features})

    def _see(self, url: str, name: str | None = None) -> str:
        """The name of an image that came as pixels."""
        data = base64.b64decode(url.partition("base64,")[2])
        name = name or hashlib.blake2b(data, digest_size=16).hexdigest()
        self._sizes[name] = struct.unpack(">II", data[16:24])  # of a PNG
        self.counts.shown += 1
        return name

    async def _generate(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        ids, asked = body["token_ids"], body["sampling_params"]
        parts = body.get("content_parts", [])
        for part in parts:
            if part["url"]:
                self._see(part["url"], part["uuid"])
            elif part["uuid"] not in self._sizes:
                return self._sent({"error": {"message": "Cache miss for image"}}, 400)
        names = [part["uuid"] for part in parts] or body["features"]["mm_hashes"]["image"]
        written = self._written(self._sizes[names[0]], len(names), asked["seed"])[: asked["max_tokens"]]
        began = time.perf_counter()
        await asyncio.sleep(len(written) * self._seconds)
        if asked["max_tokens"] > 1:
            self.counts.replying += time.perf_counter() - began
            self.counts.replies += 1
        made = sum(cells(self._sizes[part["uuid"]]) - 1 for part in parts)
        content = [{"token": f"token_id:{token}", "logprob": -0.1, "top_logprobs": []} for token in written]
        choice = {"index": 0, "token_ids": written, "logprobs": {"content": content}}
        return self._sent({"choices": [choice], "usage": {"prompt_tokens": len(ids) + made}})

    def _written(self, size: tuple[int, int], turn: int, seed: int) -> list[int]:
        """The tokens of the so manieth turn of a conversation about an image of this size."""
        random = Random(seed)
        thought = "the " * min(MOST, LEAST + int(MEDIAN * random.lognormvariate(0, SPREAD)))
        if random.random() < 1 / (TURNS + 1 - turn):
            text = protocol.write_answer(thought, "red")
        else:
            left, top = random.randrange(size[0] // 2), random.randrange(size[1] // 2)
            text = protocol.write_zoom(thought, Box(left, top, left + size[0] // 4, top + size[1] // 4))
        found: list[int] = self._tokenizer.encode(text + END, add_special_tokens=False).ids
        return found


def _always(answer: Any) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def same(_: web.Request) -> web.Response:
        return web.json_response(answer)

    return same


def cells(size: tuple[int, int]) -> int:
    """Tokens of an image of this width and height."""
    return (size[0] // CELL) * (size[1] // CELL)


if __name__ == "__main__":
    port, milliseconds = sys.argv[1:]
    web.run_app(Paced(float(milliseconds) / 1000).app(), host="127.0.0.1", port=int(port), print=None)
