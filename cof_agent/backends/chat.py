"""Asks any chat model that LangChain's `init_chat_model` knows: vLLM, SGLang, `transformers serve`, OpenAI, ..."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from cof_agent.backends import families
from cof_agent.cache import Recent
from cof_agent.errors import InputError, said
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.output.install import how_to_install
from cof_agent.policy import GREEDY, Completion, PolicyError, Sampling, begun
from cof_agent.protocol import begins_anew
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from PIL.Image import Image

    from cof_agent.protocol import Message

Clients = dict[Sampling, "BaseChatModel"]

_PNG_CHARACTERS = 256 * 2**20  # of encoded images that are kept
PACKAGES = ("langchain", "langchain-openai", "openai")  # without which no served model can be asked
_RETRY_STATUS = (408, 409, 425, 429)


class ChatPolicy:
    """A served chat model. Images travel as PNG data URLs at the size we gave them; tools are told of in text only."""

    def __init__(
        self,
        model: str,
        provider: str | None,
        options: dict[str, Any],
        *,
        coordinates: CoordinateSystem,
        limits: PixelLimits,
    ) -> None:
        self.name = model
        self.coordinates = coordinates
        self.limits = limits
        self._provider = provider
        self._own_server = provider == "openai" and "base_url" in options
        self._options = options
        self._clients: Clients = {}
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Clients] = WeakKeyDictionary()
        self._pngs: Recent[str] = Recent(_PNG_CHARACTERS)
        self._client(GREEDY, self._clients)  # a missing package or key is found now

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message. Token counts are the server's, None where it does not say.

        With a seed, sampling is as reproducible as the server makes it.

        Raises:
            PolicyError: if the server is gone, too slow, overloaded (all worth a retry) or refuses the request.
            InputError: if it refuses the API key, knows no such model, or cannot go on from a beginning.
        """
        pngs = await asyncio.to_thread(lambda: [self._png(image) for image in images])
        client = await self._client_here(sampling)
        extra: dict[str, Any] = {} if sampling.seed is None else {"seed": sampling.seed}
        rendered = [_rendered(message, pngs) for message in messages]
        beginning = begun(messages)
        if beginning and not self._own_server:
            raise InputError(
                f"{self._where} cannot go on from the beginning of a reply, which this strategy needs; use a local model, "
                "or --base-url with a server that can, such as vLLM or SGLang."
            )
        if self._own_server:
            # As a part of the body that is sent as it is: LangChain and the client would compare every piece of every
            # message with its type first, a quarter of the time of a call.
            goes_on = {"add_generation_prompt": False, "continue_final_message": True} if beginning else {}
            request = client.ainvoke([], extra_body={"messages": rendered, **goes_on}, **extra)
        else:
            request = client.ainvoke(rendered, **extra)
        try:
            reply = await (request if self._provider == "openai" else _in_client_loop(request))
        except Exception as error:
            raise _explained(error, self.name, self._where) from error
        completion = _completion(reply)
        if not beginning:
            return completion
        if begins_anew(completion.text):
            raise InputError(
                f"{self._where} begins a new reply where it should go on from the beginning of one, which this strategy "
                "needs; use a server that knows continue_final_message, such as vLLM or SGLang."
            )
        return replace(completion, text=beginning + completion.text)

    def _png(self, image: Image) -> str:
        """Made once: each turn of a conversation shows all of its earlier images again."""
        key = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{image.size}{image.mode}".encode()).digest()
        return self._pngs.get(key, lambda: _png(image), len)

    async def _client_here(self, sampling: Sampling) -> BaseChatModel:
        """A client that can be used in this event loop: OpenAI's kind over its own connections, others in their loop."""
        if self._provider != "openai":
            return self._client(sampling, self._clients)
        clients = self._by_loop.setdefault(asyncio.get_running_loop(), {})
        return self._client(sampling, clients, http_async_client=await _connections())

    def _client(self, sampling: Sampling, known: Clients, **connections: Any) -> BaseChatModel:
        """A client for these sampling parameters, which not every provider takes at each request."""
        kind = replace(sampling, seed=None)  # seeds differ by turn, and go with the request
        if kind not in known:
            options = {**self._options, **connections, "temperature": kind.temperature, "max_tokens": kind.max_tokens}
            if kind.top_p < 1:
                options["top_p"] = kind.top_p
            if kind.logprobs:
                options["logprobs"] = True
            known[kind] = _init(self.name, self._provider, options)
        return known[kind]

    @property
    def _where(self) -> str:
        return str(self._options.get("base_url") or self._provider or "the provider")


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
        InputError: if a package or an API key is missing, the provider is unknown, or a limit is smaller than a cell.
    """
    vision = families.served(model)
    limits = vision.limits(max_pixels, zoom_pixels)
    options: dict[str, Any] = {"timeout": timeout, "max_retries": 0}  # who asks retries, see `policy.Retries`
    if base_url is not None:
        provider = provider or "openai"
        options["base_url"] = base_url
        if provider == "openai":
            options["use_responses_api"] = False  # which LangChain would choose by some models' names
        api_key = api_key or os.environ.get("OPENAI_API_KEY") or "none"  # most own servers ask for none
    if api_key is not None:
        options["api_key"] = api_key
    return ChatPolicy(
        model,
        provider,
        options,
        coordinates=coordinates or vision.coordinates,
        limits=limits,
    )


async def _in_client_loop(request: Coroutine[Any, Any, AIMessage]) -> AIMessage:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request, _client_loop()))


@cache
def _client_loop() -> asyncio.AbstractEventLoop:
    """The event loop of clients whose connections LangChain shares: they outlive the callers' own loops."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-clients", daemon=True).start()
    return loop


_open: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncGenerator[Any, None], Any]] = WeakKeyDictionary()


async def _connections() -> Any:
    """The connections of this event loop to servers of OpenAI's kind; they are closed with it."""
    loop = asyncio.get_running_loop()
    if loop not in _open:
        keeper = _keep_open()
        _open[loop] = keeper, await anext(keeper)
    return _open[loop][1]


async def _keep_open() -> AsyncGenerator[Any, None]:
    """aiohttp's connections: httpx looks at each idle one at each request. `asyncio.run` ends this when it ends."""
    from openai import DefaultAioHttpClient

    async with DefaultAioHttpClient() as client:
        yield client


def _init(model: str, provider: str | None, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        raise InputError(f"served models need other packages: {how_to_install(*PACKAGES)}.") from None
    try:
        client: BaseChatModel = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        hint = how_to_install(*PACKAGES) if provider == "openai" else said(error)
        raise InputError(f"the provider {provider or model} needs another package: {hint}") from None
    except Exception as error:  # what clients make of a missing key or a bad URL is not limited
        raise InputError(f"cannot use {model} of {provider or 'an unnamed provider'}: {_sentence(error)}") from None
    return client


def _png(image: Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _rendered(message: Message, urls: Sequence[str]) -> dict[str, Any]:
    """The message as OpenAI's interface has it, which LangChain takes for every provider."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):  # as one string, which every server knows
        return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
    blocks = [
        {"type": "image_url", "image_url": {"url": urls[part["view"]]}} if part["type"] == "image" else part
        for part in parts
    ]
    return {"role": message["role"], "content": blocks}


def _completion(reply: AIMessage) -> Completion:
    usage = reply.usage_metadata
    tokens = Tokens(usage["input_tokens"], usage["output_tokens"]) if usage else Tokens()
    reason = reply.response_metadata.get("finish_reason") or reply.response_metadata.get("stop_reason")
    told = [entry["logprob"] for entry in (reply.response_metadata.get("logprobs") or {}).get("content") or []]
    truncated = reason in ("length", "max_tokens", "MAX_TOKENS")
    return Completion(str(reply.text), tokens, truncated, fmean(told) if told else None)


def _explained(error: Exception, model: str, where: str) -> Exception:
    """What a client's error means to us; itself where it is none of the server's doing.

    Clients of different providers share no exception types, but nearly all of theirs carry an HTTP status.
    """
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return InputError(f"{where} refuses the API key for {model}: {_sentence(error)}")
    if status == 404:
        return InputError(f"{where} knows no model {model}: {_sentence(error)}")
    if isinstance(status, int):
        transient = status >= 500 or status in _RETRY_STATUS
        return PolicyError(f"{where} answered with status {status}: {_sentence(error)}", transient=transient)
    first = _first_cause(error)  # the clients' own kinds mislead: OpenAI's takes a refused connection for a timeout
    names = " ".join(kind.__name__ for one in (first, error) for kind in type(one).__mro__)
    if (isinstance(first, OSError | EOFError) and not isinstance(first, TimeoutError)) or "Disconnected" in names:
        return PolicyError(f"cannot reach {where}: {_sentence(first)} Is the server running?")
    if "Timeout" in names:
        return PolicyError(f"{where} did not answer in time; is the server overloaded?")
    if any(kind in names for kind in ("ConnectionError", "TransportError", "ClientError")):
        return PolicyError(f"cannot reach {where}: {_sentence(first)} Is the server running?")
    if isinstance(error, TypeError | ValueError | KeyError):  # a reply that the client cannot make sense of
        return PolicyError(f"{where} gave no answer that can be read: {_sentence(error)}", transient=False)
    return error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _sentence(error: BaseException) -> str:
    text = said(error)
    if isinstance(body := getattr(error, "body", None), dict) and "message" not in body:
        text += f": {' '.join(str(body.get('detail', body)).split())}"  # a server that has its own form of error
    return f"{text[:300].rstrip('.')}."
