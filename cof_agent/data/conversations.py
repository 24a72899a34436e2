"""Conversations inside rows: turns by role, whatever the set calls roles and contents, and the questions asked in them.

Known are `{"from": "human", "value": ...}` (ShareGPT, LLaVA), `{"role": "user", "content": ...}` with text or a list of parts
(OpenAI, Qwen), `{"user": ..., "assistant": ...}` pairs (the Cauldron), each as a list, as one JSON text, or as lists by key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cof_agent.data.nested import is_missing, unpacked
from cof_agent.data.questions import images_named_in, marks
from cof_agent.data.unusable import AUDIO, BAD_TURNS, UNFINISHED, VIDEO, Unusable

IMAGE_MARK = "<image>"

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool_response": "tool",
    "function_response": "tool",
    "environment": "tool",
    "ipython": "tool",
    "developer": "system",
}
_ROLE_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value", "text")
IMAGE_KEYS = ("image", "image_url", "url", "path", "source", "base64")
TEXT_TYPES = (None, "text", "input_text", "output_text")
_OTHER_KINDS = {"video": VIDEO, "audio": AUDIO}
"""What a part of a message may hold that is not read, by the word in its type or key."""

# What an assistant writes when it asks to see more, in the published sets, and how it marks its answer.
_CALL = re.compile(
    r"<tool_call>|<code>(?=\s*(?:```|import\b|from\b))|<grounding>|<function=|\"actions\W*\"\W*:?\s*\[\s*\{"
)
# The argument of the call that ends some agents' records.
_ARGUMENT = re.compile(r""""answer"\s*:\s*("(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?)""")
_ANSWERED = re.compile(r"<answer>|\\boxed\s*\{", re.IGNORECASE)
_RESULT = re.compile(
    r"<tool_response>|<sandbox_output>|^\s*(?:Observation|OBSERVATION|Code execution result)\b|^\s*[\w-]+ model outputs:"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. text: with `<image>` where an image stands. images: references to those that stand in the message itself."""

    role: str
    text: str
    images: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a conversation and its answer, as they are written. images: those of the messages up to the question.
    earlier: how many images or marks for them the messages before it have."""

    question: str
    answer: str
    images: tuple[Any, ...] = ()
    evidence: tuple[str, ...] = field(default=())
    """Answers that say where to look for this question's answer, in turns before it."""
    earlier: int = 0


def is_conversation(value: Any) -> bool:
    """Whether a column holds turns."""
    if isinstance(value, str) and "{" not in value:
        return False  # as most columns are
    value = listed(value)
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def turns_of(value: Any) -> list[Turn]:
    """The turns of a column that `is_conversation`, those of one role one after the other joined.

    Raises:
        Unusable: if a turn has a role that is not known, or content that is neither text nor parts.
    """
    made: list[Turn] = []
    for turn in (one for raw in listed(value) for one in _turns(raw)):
        if made and made[-1].role == turn.role:
            last = made.pop()
            turn = Turn(turn.role, f"{last.text}\n{turn.text}", last.images + turn.images)
        made.append(turn)
    return made


def prompt_of(turns: Sequence[Turn]) -> Turn:
    """What the user says in a conversation that no assistant has taken part in.

    Raises:
        Unusable: if no user speaks.
    """
    said = [turn for turn in turns if turn.role == "user"]
    if not said:
        raise Unusable(BAD_TURNS, "no turn of a user")
    return Turn("user", "\n".join(turn.text for turn in said), tuple(image for turn in said for image in turn.images))


def is_search(turns: Sequence[Turn]) -> bool:
    """Whether the turns are the record of an agent: calls of a tool and what came back, all for one question."""
    for turn, following in zip(turns, (*turns[1:], None), strict=False):
        if turn.role == "tool" or (turn.role == "user" and _RESULT.search(turn.text)):
            return True
        if turn.role == "assistant" and _CALL.search(turn.text) and (following is None or IMAGE_MARK in following.text):
            return True
    return False


def questions_in(turns: Sequence[Turn]) -> list[Asked]:
    """The questions of users that an assistant answers: of an agent's record the first, with the last answer.

    Raises:
        Unusable: if there is none, or an agent's record ends before its answer.
    """
    turns = [turn for turn in turns if turn.role != "system"]
    while turns and turns[0].role == "assistant":  # a greeting
        turns = turns[1:]
    if is_search(turns):
        return [_searched(turns)]
    return list(_pairs(turns))


def _searched(turns: Sequence[Turn]) -> Asked:
    last = turns[-1]
    if last.role != "assistant":
        raise Unusable(UNFINISHED)
    if not _ANSWERED.search(last.text) and (_CALL.search(last.text) or '"actions' in last.text):
        if not (told := _ARGUMENT.findall(last.text)):
            raise Unusable(UNFINISHED, "the last turn calls a tool")
        return Asked(turns[0].text, str(json.loads(told[-1], strict=False)), turns[0].images)
    return Asked(turns[0].text, last.text, turns[0].images)


def _pairs(turns: Sequence[Turn]) -> Iterator[Asked]:
    waiting, evidence = "", ()  # type: str, tuple[str, ...]
    images, before = (), ()  # type: tuple[Any, ...], tuple[Any, ...]
    earlier = shown = 0
    for turn, reply in zip(turns[::2], turns[1::2], strict=False):
        images += turn.images
        text = turn.text.replace(IMAGE_MARK, "").strip()
        if not text and waiting:  # Visual-CoT: the region first, then the crop without a word, and the answer
            yield Asked(waiting, reply.text, images[:1], evidence)
            waiting, evidence = "", ()
            continue
        if waiting:
            yield Asked(waiting, evidence[0], before, earlier=earlier)
        waiting, evidence, before = turn.text, (reply.text,), images
        earlier, shown = shown, shown + marks(turn.text)
    if waiting:
        yield Asked(waiting, evidence[0], before, earlier=earlier)


def listed(value: Any) -> Any:
    """The turns of a column: a list of objects, of a text that holds one, or of lists by key, as `datasets` keeps such a list."""
    value = unpacked(value)
    if isinstance(value, dict) and value and all(isinstance(one, list) for one in value.values()):
        return [dict(zip(value, turn, strict=False)) for turn in zip(*value.values(), strict=False)]
    return value


def role_of(turn: Mapping[str, Any]) -> str | None:
    """What a turn calls its role; None where it has none."""
    for key in _ROLE_KEYS:
        if isinstance(role := turn.get(key), str):
            return role
    return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and (role_of(value) is not None or is_pair(value))


def is_pair(turn: Mapping[str, Any]) -> bool:
    """Whether an object holds what a user and an assistant say, both."""
    return pair_in(turn) is not None


def pair_in(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a user and an assistant say in an object that holds both."""
    said, reply = turn.get("user", turn.get("human")), turn.get("assistant")
    return (said, reply) if isinstance(said, str) and isinstance(reply, str) else None


def _turns(raw: Mapping[str, Any]) -> Iterator[Turn]:
    if pair := pair_in(raw):
        yield Turn("user", pair[0], tuple(images_named_in(pair[0])))
        yield Turn("assistant", pair[1])
        return
    role = ROLES.get(str(role_of(raw)).lower())
    if role is None:
        raise Unusable(BAD_TURNS, f"role {role_of(raw)}")
    content = next((raw[key] for key in TEXT_KEYS if raw.get(key) not in (None, [])), "")
    if isinstance(content, list) and all(isinstance(part, dict | str) for part in content):
        parts = [_part(part) for part in content]
        yield Turn(role, "".join(text for text, _ in parts), tuple(image for _, image in parts if image is not None))
    elif isinstance(content, str | int | float | list):
        named = images_named_in(content) if isinstance(content, str) and role == "user" else ()
        yield Turn(role, str(content), tuple(named))
    else:
        raise Unusable(BAD_TURNS, f"content of kind {type(content).__name__}")


def _part(part: dict[str, Any] | str) -> tuple[str, Any]:
    """The text of a part of a message, and the image that it names, if it names one."""
    if isinstance(part, str):
        return part, None
    if (text := text_of(part)) is not None:
        return text, None
    if why := unread(part):
        raise Unusable(why)
    is_image, image = image_of(part)
    return (IMAGE_MARK if is_image else ""), image


def unread(part: Mapping[str, Any]) -> str | None:
    """Why a part of a message leaves its row out: it holds a video or a recording."""
    told = " ".join(map(str, (part.get("type"), *part)))
    return next((why for word, why in _OTHER_KINDS.items() if word in told), None)


def image_of(part: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether a part of a message is an image, and what it says of it."""
    typed = str(part.get("type", "")).startswith(("image", "input_image"))
    keys = (*IMAGE_KEYS, *TEXT_KEYS) if typed else IMAGE_KEYS
    image = next((part[key] for key in keys if not is_missing(part.get(key))), None)
    return typed or image is not None, image


def text_of(part: Mapping[str, Any]) -> str | None:
    """The text of a part of a message that is one."""
    if part.get("type") not in TEXT_TYPES:
        return None
    keys = TEXT_KEYS if part.get("type") else ("text",)
    return next((part[key] for key in keys if isinstance(part.get(key), str)), None)
