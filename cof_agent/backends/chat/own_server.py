"""A server at an address of one's own that speaks OpenAI's chat completions: vLLM, SGLang, `transformers serve`, ..."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cof_agent.backends import secrets
from cof_agent.backends.chat import image_ids
from cof_agent.backends.chat.connections import Reply, Unreadable, get, post
from cof_agent.backends.chat.failures import decoded, of_error, of_status, unreadable
from cof_agent.backends.chat.native import Rendered, strict
from cof_agent.backends.chat.reading import completion, thought_field
from cof_agent.backends.chat.reasoning import Reasoning, of_server
from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.policy import Completion, Sampling

_DASHSCOPE = ".aliyuncs.com"  # Alibaba's own service of Qwen
LISTING = 10.0  # seconds for the list of models, at most
NEUTRAL: dict[str, Any] = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,  # `transformers serve` takes the repetition penalty by this name
}
"""Sent always: what is left out, a server fills in from the checkpoint's generation config. A server may refuse them."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class OwnServer:
    """A model on such a server. where: its address, for sentences, without what is secret. url: of its interface.
    authorization: of the HTTP header. timeout: seconds for one reply. thoughts: the field of its replies that has the thought,
    once one had. refused: what it does not take, by name. keeps_images: whether it has said that it keeps them by their ids.
    is_vllm: as its list of models says. reasoning: how much the model is to think."""

    model: str
    where: str
    url: SplitResult
    authorization: str
    timeout: float
    thoughts: str = ""
    refused: frozenset[str] = frozenset()
    can_go_on: bool = True
    counts_cells: bool = True
    keeps_images: bool = False
    is_vllm: bool = False
    reasoning: Reasoning = field(default_factory=Reasoning)

    @property
    def not_taken(self) -> frozenset[str]:
        """The parameters of sampling that it does not take."""
        return self.refused & NEUTRAL.keys()

    async def complete(
        self, messages: list[Rendered], sampling: Sampling, *, goes_on: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> Completion:
        """The reply to rendered messages; `goes_on`: the last one is the beginning of it. tools: schemas of native ones.

        Raises:
            PolicyError: if there is none.
            InputError: if the server refuses the API key, or knows no such model.
        """
        body = _body(self.model, messages, sampling, goes_on=goes_on, tools=tools) | self.reasoning.options
        for name in _LIMITS:
            body[name] += self.reasoning.budget
        without = self.refused
        status, found, headers = await self._post(_without(body, without))
        while status in (400, 422) and (more := _refused(found, body, sampling) - without):
            without |= more
            status, found, headers = await self._post(_without(body, without))
        if not 200 <= status < 300:
            raise of_status(status, found, headers, self.model, self.where)
        self._remember(without)
        made = completion(found, self.model, self.where, sampling.stop)
        self.thoughts = self.thoughts or thought_field(found)
        return made

    def think(self, value: str) -> None:
        """Has the model think so much, as `policy.REASONING` or a number of tokens.

        Raises:
            InputError: if the server has no such thing.
        """
        dashscope = str(self.url.hostname).endswith(_DASHSCOPE)
        self.reasoning = of_server(self.where, value, vllm=self.is_vllm, dashscope=dashscope)

    def models(self) -> list[dict[str, Any]]:
        """What the server tells of its models, from any thread; empty where it tells nothing. Afterwards it is known whether
        the server is vLLM, and whether it keeps images."""
        with ThreadPoolExecutor(1) as thread:  # there, no event loop is running
            return thread.submit(asyncio.run, self._get_acquainted()).result()

    async def _get_acquainted(self) -> list[dict[str, Any]]:
        reply = await _or_none(get(self._at("models"), self._headers(), timeout=min(self.timeout, LISTING)))
        listed = _listed(reply)
        self.is_vllm = any(one.get("owned_by") == "vllm" for one in listed)
        if self.is_vllm:
            sent = json.dumps(image_ids.probe(self.model)).encode()
            asked = post(self._at("chat/completions"), sent, self._headers(), timeout=min(self.timeout, LISTING))
            told = await _or_none(asked)
            self.keeps_images = told is not None and told.status == 400 and image_ids.says_missing(told.body)
        return listed

    async def _post(self, body: dict[str, Any]) -> tuple[int, Any, Mapping[str, str]]:
        """Status, content and headers of the reply."""
        sent = await asyncio.to_thread(lambda: json.dumps(body, separators=(",", ":")).encode())
        try:
            reply = await post(self._at("chat/completions"), sent, self._headers(), timeout=self.timeout)
            return reply.status, decoded(reply.body) if 200 <= reply.status < 300 else _words(reply), reply.headers
        except Unreadable as error:
            raise unreadable(str(error), self.where) from None
        except Exception as error:  # what aiohttp makes of a peer that breaks the rules of HTTP is not limited
            raise of_error(error, self.model, self.where) from error

    def _at(self, place: str) -> str:
        return self.url._replace(path=f"{self.url.path}/{place}").geturl()

    def _headers(self) -> dict[str, str]:
        return {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "authorization": self.authorization,
            "content-type": "application/json",
        }

    def _remember(self, without: frozenset[str]) -> None:
        """Says once what the server does not take."""
        told = sorted((without - self.refused) & NEUTRAL.keys())
        self.refused |= without
        if told:
            _log.warning(
                "%s does not take %s: it is asked without, and its own defaults hold; the record names the parameters.",
                self.where,
                " and ".join(told),
            )


async def _or_none(asked: Awaitable[Reply]) -> Reply | None:
    """The reply, if there is one: what goes wrong here goes wrong with the first question too, which says it."""
    try:
        return await asked
    except Exception:  # what aiohttp makes of a peer that breaks the rules of HTTP is not limited
        return None


def _listed(reply: Reply | None) -> list[dict[str, Any]]:
    """The models in a list of them."""
    try:
        found = decoded(reply.body) if reply is not None and reply.status == 200 else None
    except Unreadable:
        return []
    listed = found.get("data") if isinstance(found, dict) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _body(
    model: str, messages: list[Rendered], sampling: Sampling, *, goes_on: bool, tools: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "stream": False,
        **dict.fromkeys(_LIMITS, sampling.max_tokens),
        "temperature": sampling.temperature,
        **NEUTRAL,
        "top_p": sampling.top_p,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body |= {"stop": [sampling.stop], _KEEPS_STOP: True}
    if sampling.logprobs:
        body["logprobs"] = True
    if tools:
        body["tools"] = [*tools]
    if goes_on:
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body


_LIMITS = ("max_completion_tokens", "max_tokens")
"""The same under both names: Ollama and llama-cpp-python know the second alone, OpenAI's reasoning models the first."""
_UNKNOWN = re.compile(r"unsupported|unexpected|not supported|unknown|unrecogni|not permitted|extra", re.IGNORECASE)
_KEEPS_STOP = "include_stop_str_in_output"  # of vLLM and SGLang; elsewhere the text is put back
_PARSER = "tool parser"
_IMAGES = "images of tools"


def _refused(error: Any, body: dict[str, Any], sampling: Sampling) -> frozenset[str]:
    """What a server may not take, by its error, of what can be left out or said in another way; what was asked for in so many
    words cannot."""
    words = json.dumps(error)
    if image_ids.says_missing(words.encode()):  # asked again with its pixels
        return frozenset()
    free = {_KEEPS_STOP, *NEUTRAL} - ({"top_p"} if sampling.top_p < 1 else set())
    found = {name for name in free if name in body and re.search(rf"(?<!\w){name}(?!\w)", words)}
    limits = re.findall(rf"(?<!\w)(?:{'|'.join(_LIMITS)})(?!\w)", words)
    if _UNKNOWN.search(words):  # of two that it names, the second is what to use instead
        found |= {*limits[:1]}
    if "tools" in body and "tool-call-parser" in words:
        found.add(_PARSER)
    elif "tools" in body and not found and strict(body["messages"]) != body["messages"]:
        found.add(_IMAGES)
    return frozenset(found)


def _without(body: dict[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """The body for a server that does not take these."""
    found = {name: value for name, value in body.items() if name not in refused}
    if _PARSER in refused and "tools" in body:
        found["tool_choice"] = (
            "none"  # vLLM tells the model of the tools all the same, and leaves its calls in the text
        )
    if _IMAGES in refused and "tools" in body:
        found["messages"] = strict(body["messages"])
    return found


def connect(model: str, base_url: str, api_key: str, *, timeout: float) -> OwnServer:
    """The model at this address. A user and password in it are sent in place of the key, as HTTP has it.

    Raises:
        InputError: if it is no address, the key is none, or a package is missing.
    """
    if find_spec("aiohttp") is None:
        raise InputError(f"served models need another package: {how_to_install('aiohttp')}.")
    parts, key = _parts(base_url.strip()), api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError("the API key holds characters that cannot be sent; is the variable OPENAI_API_KEY right?")
    secrets.keep(key)
    secrets.keep_address(parts.geturl())
    user, password = secrets.credentials(parts.geturl())
    authorization = f"Basic {secrets.basic(user, password)}" if user or password else f"Bearer {key}"
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"), fragment="")
    return OwnServer(model, place._replace(query="").geturl(), place, authorization, timeout)


def _parts(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url)
        usable = bool(parts.hostname) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = secrets.hidden_addresses(base_url)
        raise InputError(f"{shown!r} is no address of a server; write it as in http://127.0.0.1:8000/v1.")
    return parts


def _words(reply: Reply) -> Any:
    """What an error says: its JSON, or its text."""
    try:
        return decoded(reply.body)
    except Unreadable:
        return reply.body.decode("utf-8", "replace")
