"""A server that speaks as vLLM's does to `rl.engines.servers`, for faults that the real one cannot be made to show."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.loopback import Body, Reply, serving

IMAGE_TOKEN = 9
CELLS = 4  # tokens of each image

Asked = tuple[list[int], list[bool]]


class CannedVLLM:
    """Answers a prompt with its number of images and the tokens of the first reply asked for.

    known: names of the images that it has. asked: of each request the token ids, and of each image whether it came along.
    left: replies until it fails with status 500, if it does. fails: the same of turns alone, while it lives. drops: requests that
    it leaves without any reply. grows: tokens that it makes more of an image than we do. refusal: what it says to all requests.
    """

    def __init__(self, name: str = "") -> None:
        self.name, self.version, self.url = name, "as sent", ""
        self.known: set[str] = set()
        self.asked: list[Asked] = []
        self.left: int | None = None
        self.fails: int | None = None
        self.grows = 0
        self.refusal = ""
        self.drops = 0
        self._one = threading.Lock()

    @contextmanager
    def up(self) -> Iterator[CannedVLLM]:
        with serving(self._answer) as (self.url, _):
            yield self

    def restart(self) -> None:
        """As the process would: it has the weights of the checkpoint, and no image."""
        self.version, self.known = "default", set()

    def _answer(self, path: str, body: Body | None) -> Reply:
        if path == "/weight_info":
            return (500, {}) if self.left == 0 else (200, {"weight_version": self.version})
        assert path == "/inference/v1/generate" and body is not None
        with self._one:
            return self._generate(body)

    def _generate(self, body: dict[str, Any]) -> Reply:
        ids, parts = body["token_ids"], body.get("content_parts", [])
        self.asked.append((ids, [bool(part["url"]) for part in parts]))
        if self.drops:
            self.drops -= 1
            raise ConnectionResetError
        if self.left == 0 or self.fails == 0:
            return _wrong(500, "EngineCore encountered an issue.")
        if self.refusal:
            return _wrong(400, self.refusal)
        if not all(part["url"] or part["uuid"] in self.known for part in parts):
            return _wrong(400, "Cache miss for image at index 0 but data is not provided.")
        self.left = None if self.left is None else self.left - 1
        self.fails = None if self.fails is None else self.fails - 1
        self.known.update(part["uuid"] for part in parts)
        time.sleep(0.01)
        return 200, _reply([len(parts), *self.name.encode()], len(ids) + len(parts) * (CELLS - 1 + self.grows))


def _reply(ids: list[int], prompt: int) -> dict[str, Any]:
    content = [{"token": f"token_id:{token}", "logprob": -float(token)} for token in ids]
    return {"choices": [{"token_ids": ids, "logprobs": {"content": content}}], "usage": {"prompt_tokens": prompt}}


def _wrong(status: int, message: str) -> Reply:
    return status, {"error": {"message": message, "code": status}}
