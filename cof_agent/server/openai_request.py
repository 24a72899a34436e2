"""Reads a request for a chat completion: one question about the images of the last messages.

Every field counts, is refused by name, or says nothing about the answer. A conversation's earlier questions and answers are
not read: the agent answers one question. The reply says so (`EARLIER`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cof_agent.data.unusable import Unusable, check_characters
from cof_agent.server.refusals import Refusal

EARLIER = "Each question is answered by itself: earlier questions and answers of the conversation were not read."

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "stop": ([], ""),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "prediction": (),
    "audio": (),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields that are understood as long as they ask for nothing."""

_ABOUT_THE_CALLER = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
}
"""Fields that do not change the answer."""

MOST_CHARACTERS, MOST_IMAGES, MOST_CHOICES = 200_000, 16, 200
"""Of one question."""

_BEFORE = ("system", "developer")  # roles whose texts stand before the question
_ROLES = (*_BEFORE, "user", "assistant", "tool", "function")


_KINDS = ("str", "int", "float", "bool")  # what pydantic puts behind a name where several kinds may stand


_MOST_TOKENS = 1_000_000_000


class _StreamOptions(BaseModel):
    include_usage: bool | None = False


class _Said(BaseModel):
    """One message."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class _Fields(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: Annotated[list[_Said], Field(min_length=1)]
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    choices: list[str] | None = None
    regions: list[Annotated[list[float], Field(min_length=4, max_length=4)]] | None = None


@dataclass(frozen=True)
class Asked:
    """A request that was understood. images: as the client names them. sampling: fields of `AgentConfig`. tokens: the least
    limit of one turn. earlier: whether the conversation had other questions or answers, which are not read."""

    model: str
    text: str
    images: tuple[str, ...]
    stream: bool = False
    with_usage: bool = False
    choices: tuple[str, ...] = ()
    regions: tuple[tuple[float, ...], ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    earlier: bool = False


def read(body: bytes) -> Asked:
    """The question of a request's body.

    Raises:
        Refusal: 400, naming the field that is missing, wrong or not supported.
    """
    fields = _fields(body)
    _check_others(fields.model_extra or {})
    text, images, earlier = _asked(fields.messages)
    _check_size(text, images, fields.choices or [])
    sampling = {name: getattr(fields, name) for name in ("temperature", "top_p", "seed")}
    options = fields.stream_options
    return Asked(
        fields.model,
        text,
        tuple(images),
        bool(fields.stream),
        options is not None and bool(options.include_usage),
        tuple(fields.choices or ()),
        tuple(map(tuple, fields.regions or ())),
        {name: value for name, value in sampling.items() if value is not None},
        fields.max_completion_tokens or fields.max_tokens,
        earlier,
    )


def _fields(body: bytes) -> _Fields:
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body of the request is no JSON.") from None
    if not isinstance(plain, dict):
        raise Refusal(400, "the body of the request is no JSON object.")
    try:
        check_characters(plain)
    except Unusable as why:
        raise Refusal(400, f"the request holds a {why.reason}.") from None
    try:
        return _Fields.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(one) for one in first["loc"] if one not in _KINDS and "[" not in str(one))
        raise Refusal(400, f"the field {where[:100]} of the request: {first['msg']}.", param=where[:100]) from None


def _check_others(others: Mapping[str, Any]) -> None:
    untold = {"tools"} if others.get("tool_choice") == "none" else set[str]()
    for name, value in others.items():
        neutral = any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in _NEUTRAL.get(name, ())
        )
        if value is None or name in _ABOUT_THE_CALLER | untold or neutral:
            continue
        why = "is not supported: the agent gives one answer, as text" if name in _NEUTRAL else "is not known"
        raise Refusal(400, f"the field {name[:100]} of the request {why}.", param=name[:100])


def _check_size(text: str, images: list[str], choices: list[str]) -> None:
    """Refuses a question that is longer than a person's may be.

    Raises:
        Refusal: 400 if not.
    """
    for what, found, most in (
        ("characters of text", len(text), MOST_CHARACTERS),
        ("images", len(images), MOST_IMAGES),
        ("choices", len(choices), MOST_CHOICES),
        ("characters of choices", sum(map(len, choices)), MOST_CHARACTERS),
    ):
        if found > most:
            raise Refusal(400, f"the question has {found:,} {what}; at most {most:,} are read.", param="messages")
    if not all(choice.strip() for choice in choices):
        raise Refusal(400, "one of the choices is empty; leave it out.", param="choices")


def _asked(messages: list[_Said]) -> tuple[str, list[str], bool]:
    """The question, system texts before it; the images of the last message that has any; whether there is more, which is not
    read."""
    messages = _joined(messages)
    last = messages[-1]
    if last.role != "user":
        raise Refusal(
            400, f"the last message must be the user's, not of the role {last.role[:40]!r}.", param="messages"
        )
    system = [_text(one) for message in messages if message.role in _BEFORE for one in _parts(message)]
    shown = [message for message in messages if message.role == "user" and _images(message)]
    if not shown:
        raise Refusal(
            400,
            "there is no image in the conversation: this model answers questions about images; send one as image_url.",
            param="messages",
        )
    own = list(_parts(last))
    if not _has_text(last):
        raise Refusal(400, "there is no question beside the image.", param="messages")
    images = _images(shown[-1])
    earlier = any(
        message.role not in _BEFORE and (message is not shown[-1] or _has_text(message)) for message in messages[:-1]
    )
    is_text = [part["type"] == "text" for part in own]
    all_before = is_text == sorted(is_text)  # the pictures before what is said: then they need no names
    if len(images) == 1 or shown[-1] is not last or all_before:
        return "\n".join([*system, *(_text(part) for part in own if part["type"] == "text")]), images, earlier
    numbers = count(1)
    named = [_text(part) if part["type"] == "text" else f"picture {next(numbers)}" for part in own]
    return "\n".join([*system, *named]), images, earlier


def _joined(messages: list[_Said]) -> list[_Said]:
    """The messages, those of the user that follow each other as one: some clients send the picture and the question apart.

    Raises:
        Refusal: 400 if a role is none.
    """
    made: list[_Said] = []
    for message in messages:
        if message.role not in _ROLES:
            raise Refusal(400, f"a message has the role {message.role[:40]!r}, which is none.", param="messages")
        if made and made[-1].role == message.role == "user":
            message = _Said(role="user", content=[*_listed(made.pop()), *_listed(message)])
        made.append(message)
    return made


def _listed(message: _Said) -> list[dict[str, Any]]:
    """The parts of a message, as they were sent."""
    content = message.content
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _parts(message: _Said) -> Iterator[dict[str, Any]]:
    for part in _listed(message):
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            yield {"type": "text", "text": part["text"]}
        elif kind == "image_url":
            yield {"type": "image", "url": _url(part)}
        else:
            raise Refusal(400, f"a part of a message is {str(kind)[:40]!r}, but only text and image_url are read.")


def _url(part: Mapping[str, Any]) -> str:
    named = part.get("image_url")
    url = named.get("url") if isinstance(named, Mapping) else named
    if not isinstance(url, str) or not url:
        raise Refusal(400, "an image_url has no url.", param="messages")
    return url


def _text(part: Mapping[str, Any]) -> str:
    if part["type"] != "text":
        raise Refusal(400, "a system message holds an image; send it in the user's message.", param="messages")
    return str(part["text"]).strip()


def _has_text(message: _Said) -> bool:
    return any(part["type"] == "text" and part["text"].strip() for part in _parts(message))


def _images(message: _Said) -> list[str]:
    return [part["url"] for part in _parts(message) if part["type"] == "image"]
