"""Asks a served chat model. Images travel as PNG data URLs at the size we gave them; tools are told of in text only."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from cof_agent.backends import families, secrets
from cof_agent.backends.chat import own_server
from cof_agent.backends.chat.messages import png, rendered
from cof_agent.backends.chat.providers import Provider
from cof_agent.cache import Recent
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy import Completion, Sampling, begun
from cof_agent.protocol import begins_anew

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message

_PNG_CHARACTERS = 256 * 2**20  # of encoded images that are kept
_OPENAI_ADDRESS = ("OPENAI_BASE_URL", "OPENAI_API_BASE")  # where OpenAI's own clients look for another server


class Client(Protocol):
    """One served model, as `OwnServer` and `Provider` are. where: for sentences. can_go_on: from the beginning of a reply."""

    @property
    def where(self) -> str: ...

    @property
    def can_go_on(self) -> bool: ...

    async def complete(self, messages: list[dict[str, Any]], sampling: Sampling, *, goes_on: bool) -> Completion:
        """The reply to rendered messages; `goes_on`: the last one is the beginning of it."""
        ...


class ChatPolicy:
    """A served model as a policy. What it says is free of the API key and of passwords that we know."""

    def __init__(self, name: str, client: Client, *, coordinates: CoordinateSystem, limits: PixelLimits) -> None:
        self.name, self.coordinates, self.limits = name, coordinates, limits
        self._client = client
        self._pngs: Recent[str] = Recent(_PNG_CHARACTERS)

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message. Token counts are the server's, None where it does not say.

        With a seed, sampling is as reproducible as the server makes it.

        Raises:
            PolicyError: if the server is gone, too slow, overloaded, says nothing readable (all worth a retry) or refuses.
            InputError: if it refuses the API key, knows no such model, or cannot go on from a beginning.
        """
        beginning = begun(messages)
        if beginning and not self._client.can_go_on:
            raise InputError(
                f"{self._client.where} cannot go on from the beginning of a reply, which this strategy needs; use a local "
                "model, or --base-url with a server that can, such as vLLM or SGLang."
            )
        pngs = await asyncio.to_thread(lambda: [self._png(image) for image in images])
        asked = [rendered(message, pngs) for message in messages]
        completion = await self._client.complete(asked, sampling, goes_on=bool(beginning))
        text = secrets.hidden(completion.text)
        if beginning and begins_anew(text):
            raise InputError(
                f"{self._client.where} begins a new reply where it should go on from the beginning of one, which this "
                "strategy needs; use a server that knows continue_final_message, such as vLLM or SGLang."
            )
        return replace(completion, text=beginning + text)

    def _png(self, image: Image) -> str:
        """Made once: each turn of a conversation shows all of its earlier images again."""
        key = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{image.size}{image.mode}".encode()).digest()
        return self._pngs.get(key, lambda: png(image), len)


def connect(
    model: str,
    *,
    provider: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    coordinates: CoordinateSystem | None = None,
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
    timeout: float = 120.0,
) -> ChatPolicy:
    """A policy that asks a served model.

    provider: as in `init_chat_model`; with `base_url` it is "openai" by default, which is what vLLM, SGLang and
    `transformers serve` speak. coordinates: what the model's boxes mean; by default by the family in its name
    (`families.served`). max_pixels, zoom_pixels: area limits of the overview and of a crop in shown pixels, by default the
    family's; the server must allow as many, or it resizes and absolute coordinates are off.
    timeout: seconds for one request.

    Raises:
        InputError: if a package or an API key is missing, the provider is unknown, the address is none, or a limit is
            smaller than a cell.
    """
    vision = families.served(model)
    limits = vision.limits(max_pixels, zoom_pixels)
    client = _client(model, provider, base_url, api_key, timeout)
    return ChatPolicy(model, client, coordinates=coordinates or vision.coordinates, limits=limits)


def _client(model: str, provider: str | None, base_url: str | None, api_key: str | None, timeout: float) -> Client:
    if base_url is None and provider == "openai":
        base_url = next((os.environ[name] for name in _OPENAI_ADDRESS if os.environ.get(name)), None)
    if base_url is not None and provider in (None, "openai"):
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"  # most own servers ask for none
        return own_server.connect(model, base_url, key, timeout=timeout)
    if base_url is not None:
        secrets.keep_address(base_url)
    given = {"base_url": base_url, "api_key": api_key}
    options = {name: value for name, value in given.items() if value is not None}
    return Provider(model, provider, {**options, "timeout": timeout, "max_retries": 0})  # who asks retries: `Retries`
