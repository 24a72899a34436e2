"""A provider whose client LangChain's `init_chat_model` knows: OpenAI, Anthropic, Google, ..."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from cof_agent import protocol
from cof_agent.backends import secrets
from cof_agent.backends.chat.failures import of_error
from cof_agent.backends.chat.native import Rendered, strict
from cof_agent.backends.chat.reading import count, is_cut, logprob_of, message_text
from cof_agent.backends.chat.reasoning import Reasoning, of_provider
from cof_agent.errors import InputError, said, unknown
from cof_agent.output.install import how_to_install
from cof_agent.policy import GREEDY, REASONING, Completion, Sampling
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

PACKAGES = ("langchain", "langchain-openai", "openai")  # without which no provider can be asked

_WITHOUT_SEED = ("anthropic",)
_log = logging.getLogger(__name__)


class Provider:
    """A model of a provider. options: of its client. reasoning: how much it is to think, as `policy.REASONING` or a number of
    tokens.

    Raises:
        InputError: if a package or an API key is missing, or the provider is unknown or has no such reasoning.
    """

    can_go_on = False
    counts_cells = False
    keeps_images = False
    thoughts = "reasoning_content"  # which no client sends: providers want theirs back signed, or not at all

    def __init__(
        self, model: str, provider: str | None, options: dict[str, Any], *, reasoning: str | None = None
    ) -> None:
        self.model, self._provider, self._options = model, provider, options
        self.where = str(provider or "the provider")
        self._clients: dict[Sampling, BaseChatModel] = {}
        self._reasoning = Reasoning() if reasoning is None else of_provider(provider, reasoning)
        self.not_taken: frozenset[str] = frozenset()
        secrets.keep(options.get("api_key"))
        self._client(GREEDY)  # a missing package or key is found now

    def models(self) -> list[dict[str, Any]]:
        """Nothing: a provider's list says no more than the names."""
        return []

    async def complete(
        self, messages: list[Rendered], sampling: Sampling, *, goes_on: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> Completion:
        """The reply to rendered messages. tools: schemas of native ones.

        Raises:
            PolicyError: if there is none.
            InputError: if the provider refuses the API key, or knows no such model.
        """
        assert not goes_on, "a provider does not go on from a beginning"
        client = self._client(sampling)
        self._check_tools(tools)
        asked = _plain(strict(messages)) if tools else messages
        try:
            ready = client.bind_tools([*tools]) if tools else client
            reply = await _in_client_loop(ready.ainvoke(asked, **self._extra(sampling)))
        except Exception as error:  # clients of different providers share no exception types
            raise of_error(error, self.model, self.where) from error
        return _completion(reply, self.where, sampling.stop)

    def _check_tools(self, tools: Sequence[dict[str, Any]]) -> None:
        """Anthropic wants the thought before a call back with its signature, and no record has that."""
        if tools and self._provider == "anthropic" and self._reasoning.budget:
            raise InputError(
                "anthropic takes no number of tokens as --reasoning together with native tools; use another --dialect, or one of "
                f"{', '.join(REASONING)}."
            )

    def _extra(self, sampling: Sampling) -> dict[str, Any]:
        """What goes with each request."""
        seed = sampling.seed
        if seed is not None and self._provider in _WITHOUT_SEED:
            seed = None
            self._leave_out("seed", "the same question may get another answer next time")
        given = {"seed": seed, "stop": [sampling.stop] if sampling.stop else None}
        return {name: value for name, value in given.items() if value is not None}

    def _client(self, sampling: Sampling) -> BaseChatModel:
        """A client for these sampling parameters, which not every provider takes at each request."""
        kind = replace(sampling, seed=None, stop="")  # these go with the request; seeds differ by turn
        if kind not in self._clients:
            options = {**self._options, **self._reasoning.options}
            limit = _LIMIT.get(self._provider or "", "max_tokens")
            options |= {"temperature": kind.temperature, limit: kind.max_tokens + self._reasoning.budget}
            if kind.top_p < 1:
                options["top_p"] = kind.top_p
            if kind.logprobs:
                options["logprobs"] = True
            if self._reasoning.fixed:
                options = {name: value for name, value in options.items() if name not in ("temperature", "top_p")}
            made = self._clients[kind] = _init(self.model, self._provider, options)
            if getattr(made, "temperature", kind.temperature) != kind.temperature:
                self._leave_out("temperature", "this model chooses it")
        return self._clients[kind]

    def _leave_out(self, name: str, what: str) -> None:
        """Says once that a parameter of sampling is not taken."""
        if name not in self.not_taken:
            self.not_taken |= {name}
            _log.warning("%s takes no %s: %s.", self.where, name, what)


_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
"""Why a message ended, in the metadata of OpenAI's and Google's clients, of Anthropic's, of Bedrock's and of Ollama's."""
_LIMIT = {"ollama": "num_predict"}
"""The most tokens of a reply, where a provider's client does not call it `max_tokens`."""


async def _in_client_loop(request: Coroutine[Any, Any, AIMessage]) -> AIMessage:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request, _client_loop()))


@cache
def _client_loop() -> asyncio.AbstractEventLoop:
    """The event loop of clients whose connections LangChain shares: they outlive the callers' own loops."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-clients", daemon=True).start()
    return loop


def _init(model: str, provider: str | None, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError:
        raise InputError(f"served models need other packages: {how_to_install(*PACKAGES)}.") from None
    try:
        client: BaseChatModel = init_chat_model(
            model, model_provider=provider, **_without_redirects(provider), **options
        )
    except ImportError as error:
        hint = how_to_install(*PACKAGES) if provider == "openai" else said(error)
        raise InputError(f"the provider {provider or model} needs another package: {hint}") from None
    except Exception as error:  # what clients make of a missing key or a bad URL is not limited
        _, listed, names = str(error).partition("Supported model providers are:")
        if listed:
            raise InputError(unknown("provider", str(provider), [one.strip() for one in names.split(",")])) from None
        words = secrets.hidden_addresses(said(error)).rstrip(".")
        raise InputError(f"cannot use {model} of {provider or 'an unnamed provider'}: {words}.") from None
    return client


def _without_redirects(provider: str | None) -> dict[str, Any]:
    """Has OpenAI's client send questions to the host that was meant only. Other providers' clients have no such option."""
    if provider != "openai":
        return {}
    from openai import DefaultAsyncHttpxClient

    return {"http_async_client": DefaultAsyncHttpxClient(follow_redirects=False)}


def _plain(messages: Sequence[Rendered]) -> list[Rendered]:
    """Without thoughts, which a client might send under another name."""
    return [{name: value for name, value in one.items() if name != Provider.thoughts} for one in messages]


def _completion(reply: AIMessage, where: str, stop: str) -> Completion:
    told = reply.response_metadata or {}
    reason = next((told[name] for name in _REASONS if told.get(name)), None)
    message = {
        "content": reply.content if isinstance(reply.content, str) else str(reply.text) or None,
        "refusal": reply.additional_kwargs.get("refusal"),
        "reasoning_content": _thought(reply),
        "tool_calls": _calls(reply),
    }
    usage: Any = reply.usage_metadata or {}
    text = message_text(message, reason, where)
    return Completion(
        protocol.stopped(text, stop, told.get("stop_sequence")) if stop and not is_cut(reason) else text,
        Tokens(count(usage.get("input_tokens")), count(usage.get("output_tokens"))),
        is_cut(reason),
        logprob_of(told.get("logprobs")),
    )


def _thought(reply: AIMessage) -> str:
    blocks: list[Any] = reply.content_blocks
    found = [block.get("reasoning") for block in blocks if block.get("type") == "reasoning"]
    return "\n".join(text for text in found if isinstance(text, str))


def _calls(reply: AIMessage) -> list[dict[str, Any]]:
    """The calls as OpenAI's interface has them, those with broken arguments too."""
    whole = [(call["name"], json.dumps(call["args"], ensure_ascii=False)) for call in reply.tool_calls]
    broken = [(call["name"], call["args"]) for call in reply.invalid_tool_calls]
    return [{"function": {"name": name, "arguments": given}} for name, given in (*whole, *broken)]
