"""The conversations of one process on vLLM servers: a turn is asked for as soon as it is ready, whatever the others do.

An image travels once: it is named by its pixels, and from then on the server finds it by that name, in the cache of its image
processor. Of conversations that open with the same images, one shows them to the server and the others wait for that.
Conversations that open alike have the same server, which reads what they have in common once. One whose server has gone goes
on with another one: it is asked for the same tokens with the same seed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

from cof_agent.backends.chat import connections
from cof_agent.backends.chat.images import png
from cof_agent.backends.vllm.requests import Reply, Request, collapsed
from cof_agent.errors import InputError, said

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

GENERATE = "/inference/v1/generate"
VERSION = "/weight_info"
JSON = {"content-type": "application/json"}
PATIENCE = 1800.0  # seconds for one reply, the server's queue included
LOOK = 30.0  # seconds within which a server that lives says which weights it has
TRIES = 5  # of a request whose connection breaks, or that gets no reply in time, though the server lives
_MISSING = "Cache miss"  # how vLLM's refusal of an image that it does not have begins


class Gone(Exception):
    """A server, or the last of them, does not answer, or no longer has the weights that it was sent."""


class Servers:
    """Servers that have the same weights, for one rollout; belongs to one event loop.

    version: how the weights were called when they were sent. first: which server the first conversation goes to.
    """

    def __init__(self, urls: Sequence[str], version: str, image_token: int, first: int = 0) -> None:
        self._servers = [_Server(url, version, image_token) for url in urls]
        self._next = cycle(self._servers[first % len(urls) :] + self._servers[: first % len(urls)])
        self._homes: dict[bytes, _Server] = {}
        self._last = ""  # why the last of those that are gone is

    async def ask(self, request: Request) -> Reply:
        """The reply to a turn.

        Raises:
            Gone: if no server is left.
            InputError: if a server refuses the request, or reads an image otherwise than the model in training does.
        """
        while True:
            server = self._home(request)
            try:
                return await server.ask(request)
            except Gone as error:
                if not server.gone:
                    server.gone = True
                    self._last = f"{server.url}: {error}"
                    _log.warning("The vLLM server %s is asked no more in this rollout: %s.", server.url, error)

    def _home(self, request: Request) -> _Server:
        """The server of the conversations that open with the same image."""
        opening = request.keys[0] if request.keys else b""
        if opening not in self._homes or self._homes[opening].gone:
            self._homes[opening] = self._another()
        return self._homes[opening]

    def _another(self) -> _Server:
        if all(server.gone for server in self._servers):
            raise Gone(f"no vLLM server is left ({self._last})")
        return next(server for server in self._next if not server.gone)

    async def unchanged(self) -> bool:
        """Whether all replies were written with the weights that were sent, as far as servers can say. A server that was
        restarted while nobody waited for a reply of it answers, too, with the weights of the checkpoint, whether or not it is
        given up later on. Of one that says nothing any more, the replies are taken."""
        used = [server for server in self._servers if server.used]
        found = await asyncio.gather(*(server.version() for server in used))
        return all(server.is_named(name) for server, name in zip(used, found, strict=True) if name or not server.gone)


class _Server:
    """One server. known: the images that it has, by key. used: whether a reply came from it. gone: it is not asked again."""

    def __init__(self, url: str, version: str, image_token: int) -> None:
        self.url, self.used, self.gone = url, False, False
        self._version, self._image_token = version, image_token
        self._known: set[bytes] = set()
        self._openings: dict[tuple[bytes, ...], asyncio.Task[None]] = {}

    async def ask(self, request: Request) -> Reply:
        await self._open(request)
        return await self._reply(request)

    async def _open(self, request: Request) -> None:
        """Shows the server the images with which a conversation opens, unless another one does or has done so."""
        if not request.keys or not self._known.isdisjoint(request.keys):
            return
        if request.keys not in self._openings:
            shortest = replace(request, sampling=request.sampling | {"max_tokens": 1})
            self._openings[request.keys] = asyncio.create_task(self._shown(shortest))
        await asyncio.shield(self._openings[request.keys])

    async def _shown(self, request: Request) -> None:
        await self._reply(request)

    async def _reply(self, request: Request) -> Reply:
        for _ in range(3):  # with the images that it lacks; with all of them, should it have lost some
            answer = await self._post(request)
            if answer.status == 200:
                self._known.update(request.keys)
                self.used = True
                return self._read(request, answer.body)
            if answer.status < 500 and not _says(answer.body).startswith(_MISSING):
                raise InputError(f"the vLLM server {self.url} refuses a request: {_says(answer.body)}")
            self._known.difference_update(request.keys)
        raise Gone(f"it fails with status {answer.status}: {_says(answer.body)}")

    async def _post(self, request: Request) -> connections.Reply:
        body, left = await self._body(request), TRIES
        while True:
            try:
                return await connections.post(f"{self.url}{GENERATE}", body, JSON, timeout=PATIENCE)
            except Exception as error:  # aiohttp's errors, and those of sockets
                left -= 1
                # A connection that was kept open may have been closed as the request left: then the server still lives.
                if not (left and await self.is_current()):
                    raise Gone(said(error)) from error

    async def _body(self, request: Request) -> bytes:
        parts = [
            {"type": "image_url", "uuid": key.hex(), "url": None if key in self._known else await _url(image)}
            for image, key in zip(request.images, request.keys, strict=True)
        ]
        asked = {"token_ids": collapsed(request.ids, self._image_token), "sampling_params": request.sampling}
        return json.dumps(asked | ({"content_parts": parts} if parts else {})).encode()

    def _read(self, request: Request, body: bytes) -> Reply:
        """Prompts grow by an image at a time, so that their lengths tell if an image has another size for vLLM."""
        found = json.loads(body)
        if (made := found["usage"]["prompt_tokens"]) != len(request.ids):
            raise InputError(
                f"vLLM makes {made} tokens of a conversation that has {len(request.ids)}: it resizes images; keep min_pixels, "
                "max_pixels, overview_pixels, zoom_pixels and resolutions within the limits of the checkpoint's own image "
                "processor, and within mm-processor-kwargs of vllm_options."
            )
        (choice,) = found["choices"]
        return Reply(choice["token_ids"], [_number(token["logprob"]) for token in choice["logprobs"]["content"]])

    async def is_current(self) -> bool:
        """Whether it answers, with the weights that were sent."""
        return self.is_named(await self.version())

    def is_named(self, version: str | None) -> bool:
        """Whether the weights that were sent are called so."""
        return version == self._version

    async def version(self) -> str | None:
        """How it calls its weights; None if it does not say."""
        try:
            answer = await connections.get(f"{self.url}{VERSION}", {}, timeout=LOOK)
        except Exception:  # aiohttp's errors, and those of sockets; callers log what they do without it
            return None
        return json.loads(answer.body).get("weight_version") if answer.status == 200 else None


async def _url(image: Image) -> str:
    data = await asyncio.to_thread(lambda: base64.b64encode(png(image)))
    return f"data:image/png;base64,{data.decode()}"


def _number(logprob: float) -> float | None:
    return None if math.isnan(logprob) else logprob


def _says(body: bytes) -> str:
    """What a server says of its error."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
