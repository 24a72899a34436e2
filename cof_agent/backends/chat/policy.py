"""Asks a served chat model. Images travel at the size we gave them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cof_agent.backends import families, secrets
from cof_agent.backends.chat import own_server
from cof_agent.backends.chat.identity import UNKNOWN, Identity, identify, unknown
from cof_agent.backends.chat.image_ids import ImageIds
from cof_agent.backends.chat.images import Carrier, Files, Inside, name_of
from cof_agent.backends.chat.messages import Part, image_part, rendered
from cof_agent.backends.chat.native import Rendered, with_calls
from cof_agent.backends.chat.providers import Provider
from cof_agent.backends.chat.sizes import SizeCheck
from cof_agent.backends.chat.thoughts import kept
from cof_agent.cache import LRUCache
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy import Completion, PolicyError, Sampling, begun
from cof_agent.protocol import begins_anew, with_opening

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message

_OPENAI_ADDRESS = ("OPENAI_BASE_URL", "OPENAI_API_BASE")  # where OpenAI's own clients look for another server


class Client(Protocol):
    """One served model, as `OwnServer` and `Provider` are. where: for sentences. can_go_on: from the beginning of a reply.
    thoughts: the field in which it has thoughts, apart from the text; empty where it has none. counts_cells: whether the tokens
    that it tells of are those that the model reads. keeps_images: whether an image that was sent with an id may be left out
    later. not_taken: the parameters of sampling that it has refused so far."""

    @property
    def where(self) -> str: ...

    @property
    def can_go_on(self) -> bool: ...

    @property
    def thoughts(self) -> str: ...

    @property
    def counts_cells(self) -> bool: ...

    @property
    def keeps_images(self) -> bool: ...

    @property
    def not_taken(self) -> frozenset[str]: ...

    def models(self) -> list[dict[str, Any]]:
        """What the server tells of its models; empty where it tells nothing."""
        ...

    async def complete(
        self, messages: list[Rendered], sampling: Sampling, *, goes_on: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> Completion:
        """The reply to rendered messages; `goes_on`: the last one is the beginning of it. tools: schemas of native ones."""
        ...


class ChatPolicy:
    """A served model as a policy. What it says is free of the API key and of passwords that we know. sizes: sees to it that
    images keep their size, where it is known how many tokens they have. carrier: how images travel, by default to the last
    pixel. image_ids: those that the server has already. known: what the model is."""

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        coordinates: CoordinateSystem,
        limits: PixelLimits,
        sizes: SizeCheck | None = None,
        carrier: Carrier | None = None,
        known: Identity = UNKNOWN,
    ) -> None:
        self.name, self.coordinates, self.limits = name, coordinates, limits
        self._client, self._sizes, self._known = client, sizes, known
        self._carrier = carrier or Inside()
        self._urls: LRUCache[str] = LRUCache(self._carrier.budget, self._carrier.drop)  # by the name of the pixels
        self.image_ids = ImageIds(client.where)

    @property
    def not_taken(self) -> frozenset[str]:
        """The parameters of sampling that the server has refused so far."""
        return self._client.not_taken

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message. Token counts are the server's, None where it does not say.

        With a seed, sampling is as reproducible as the server makes it.

        Raises:
            PolicyError: if the server is gone, too slow, overloaded, says nothing readable (all worth a retry) or refuses.
            InputError: if it refuses the API key, knows no such model, cannot go on from a beginning, or resizes images so that
                boxes would be misread.
        """
        if self._sizes is not None:
            self._sizes.ask()
        beginning = begun(messages)
        if beginning and not self._client.can_go_on:
            raise InputError(
                f"{self._client.where} cannot go on from the beginning of a reply, which this strategy needs; use a local "
                "model, or --base-url with a server that can, such as vLLM or SGLang."
            )
        completion = await self._complete(messages, images, sampling, goes_on=bool(beginning))
        if self._sizes is not None:
            self._sizes.told(messages, images, completion.tokens.prompt)
        text = secrets.hidden(completion.text)
        if not beginning and self._known.thinks:
            text = with_opening(text)
        if beginning and begins_anew(text):
            raise InputError(
                f"{self._client.where} begins a new reply where it should go on from the beginning of one, which this "
                "strategy needs; use a server that knows continue_final_message, such as vLLM or SGLang."
            )
        return replace(completion, text=beginning + text)

    async def _complete(
        self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling, *, goes_on: bool
    ) -> Completion:
        """The reply. Pixels that the server should have are left out; if it then fails, it is asked once more with them."""

        async def ask(left_out: frozenset[str]) -> Completion:
            parts = await asyncio.to_thread(lambda: [*map(partial(self._part, left_out), names, images)])
            asked = [rendered(message, parts) for message in messages]
            tools = messages[0].get("tools", ())
            if tools:
                asked = with_calls(asked, self._client.thoughts)
            elif self._known.thinks:
                asked = kept(asked, self._client.thoughts, results=self._known.forgets)
            return await self._client.complete(asked, sampling, goes_on=goes_on, tools=tools)

        names = await asyncio.to_thread(lambda: [name_of(image) + self._carrier.pixels for image in images])
        left_out = self.image_ids.known(names)
        try:
            completion = await ask(left_out)
        except PolicyError as error:
            if not left_out or error.outage:
                raise
            completion = await ask(frozenset())
            self.image_ids.missed(left_out)
            left_out = frozenset()
        if left_out and self._sizes is not None and self._sizes.lacks_images(images, completion.tokens.prompt):
            self.image_ids.stop("it has answered without an image of an earlier turn")
            completion, left_out = await ask(frozenset()), frozenset()
        if self._client.keeps_images:
            self.image_ids.shown(names, left_out=bool(left_out))
        return completion

    def _part(self, left_out: frozenset[str], name: str, image: Image) -> Part:
        if name in left_out:
            return image_part(None, name)
        url = self._urls.get(name, lambda: self._carrier.url(image, name), self._carrier.cost)
        return image_part(url, name if self._client.keeps_images else None)


@dataclass(frozen=True, slots=True)
class Connection:
    """A served model that has been reached, before it is said how it will be asked. known: what it is."""

    model: str
    client: Client
    known: Identity

    def policy(
        self,
        *,
        coordinates: CoordinateSystem | None = None,
        max_pixels: int | None = None,
        zoom_pixels: int | None = None,
        boxes: bool = True,
        image_folder: str | None = None,
        jpeg: int | None = None,
    ) -> ChatPolicy:
        """The model as a policy; arguments and errors as for `connect`. image_folder, jpeg: how images travel, where not as
        PNG."""
        known = self.known
        if boxes and coordinates is None and known.vision is None:
            raise unknown(self.model, self.client.where)
        vision = known.vision or families.UNKNOWN
        limits = vision.limits(max_pixels, zoom_pixels, own=known.own)
        system = coordinates or vision.coordinates
        counts = known.vision is not None and self.client.counts_cells
        sizes = SizeCheck(self.client.where, limits.grid, system, known.phrases) if counts else None
        carrier = Inside(jpeg) if image_folder is None else Files(image_folder)
        return ChatPolicy(
            self.model,
            self.client,
            coordinates=system,
            limits=limits,
            sizes=sizes,
            carrier=carrier,
            known=known,
        )


def reach(
    model: str,
    *,
    provider: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    timeout: float = 120.0,
    reasoning: str | None = None,
) -> Connection:
    """The served model, and what its checkpoint, the server and its name say of it (`identity.identify`).

    provider: as in `init_chat_model`; with `base_url` it is "openai" by default, which is what vLLM, SGLang and
    `transformers serve` speak. timeout: seconds for one request. reasoning: how much the model is to think
    (`policy.REASONING`, or a number of tokens).

    Raises:
        InputError: if a package or an API key is missing, the provider is unknown or has no such reasoning, or the
            address is none.
    """
    client = _client(model, provider, base_url, api_key, timeout, reasoning)
    listed = client.models()
    if reasoning is not None and isinstance(client, own_server.OwnServer):
        client.think(reasoning)  # by what the server is, which is known now
    return Connection(model, client, identify(model, listed))


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
    boxes: bool = True,
) -> ChatPolicy:
    """A policy that asks a served model.

    coordinates: what the model's boxes mean, by default as is known of it. max_pixels, zoom_pixels: area limits of the
    overview and of a crop in shown pixels, by default the checkpoint's or the family's; the server must allow as many, or it
    resizes and absolute coordinates are off. boxes: whether it will be asked for any, so that their meaning has to be known.
    The rest as for `reach`.

    Raises:
        InputError: as `reach`, or if a limit is smaller than a cell, or nothing says what the boxes mean.
    """
    reached = reach(model, provider=provider, base_url=base_url, api_key=api_key, timeout=timeout)
    return reached.policy(coordinates=coordinates, max_pixels=max_pixels, zoom_pixels=zoom_pixels, boxes=boxes)


def _client(
    model: str,
    provider: str | None,
    base_url: str | None,
    api_key: str | None,
    timeout: float,
    reasoning: str | None,
) -> Client:
    if base_url is None and provider == "openai":
        base_url = next((os.environ[name] for name in _OPENAI_ADDRESS if os.environ.get(name)), None)
    if base_url is not None and provider in (None, "openai"):
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"  # most own servers ask for none
        return own_server.connect(model, base_url, key, timeout=timeout)
    if base_url is not None:
        secrets.keep_address(base_url)
    given = {"base_url": base_url, "api_key": api_key}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"timeout": timeout, "max_retries": 0}  # who asks retries: `Retries`
    return Provider(model, provider, options, reasoning=reasoning)
