"""A server at an address of one's own that speaks OpenAI's chat completions: vLLM, SGLang, `transformers serve`, ..."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cof_agent.backends import secrets
from cof_agent.backends.chat.connections import Reply, Unreadable, post
from cof_agent.backends.chat.failures import decoded, of_error, of_status, unreadable
from cof_agent.backends.chat.reading import completion
from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.policy import Completion, Sampling


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A model on such a server. where: its address, for sentences, without what is secret. url: that requests go to.
    authorization: of the HTTP header. timeout: seconds for one reply."""

    model: str
    where: str
    url: str
    authorization: str
    timeout: float
    can_go_on: bool = True

    async def complete(self, messages: list[dict[str, Any]], sampling: Sampling, *, goes_on: bool) -> Completion:
        """The reply to rendered messages; `goes_on`: the last one is the beginning of it.

        Raises:
            PolicyError: if there is none.
            InputError: if the server refuses the API key, or knows no such model.
        """
        body = self._body(messages, sampling, goes_on=goes_on)
        sent = await asyncio.to_thread(lambda: json.dumps(body, separators=(",", ":")).encode())
        try:
            reply = await self._post(sent)
            found = decoded(reply.body) if 200 <= reply.status < 300 else _words(reply)
        except Unreadable as error:
            raise unreadable(str(error), self.where) from None
        except Exception as error:  # what aiohttp makes of a peer that breaks the rules of HTTP is not limited
            raise of_error(error, self.model, self.where) from error
        if not 200 <= reply.status < 300:
            raise of_status(reply.status, found, reply.headers, self.model, self.where)
        return completion(found, self.model, self.where)

    async def _post(self, body: bytes) -> Reply:
        headers = {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "authorization": self.authorization,
            "content-type": "application/json",
        }
        return await post(self.url, body, headers, timeout=self.timeout)

    def _body(self, messages: list[dict[str, Any]], sampling: Sampling, *, goes_on: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "stream": False,
            "temperature": sampling.temperature,
            "max_completion_tokens": sampling.max_tokens,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.logprobs:
            body["logprobs"] = True
        if goes_on:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body


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
    url = place._replace(path=f"{place.path}/chat/completions").geturl()
    return OwnServer(model, place._replace(query="").geturl(), url, authorization, timeout)


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
