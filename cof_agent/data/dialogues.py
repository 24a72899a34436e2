"""Conversations to train on: a row as messages in the words of its set, each image at its place.

Known are messages by role (see `conversations`) with marks for images or with images among their parts, a prompt with a
completion, and a question with a response. A result of a tool becomes a user's turn, as the models' chat templates write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.data.columns import Columns, is_unwanted, words
from cof_agent.data.conversations import (
    ROLES,
    TEXT_KEYS,
    image_of,
    is_conversation,
    listed,
    pair_in,
    role_of,
    text_of,
    unread,
)
from cof_agent.data.forms import has_placeholder
from cof_agent.data.image_places import Said, Slot, placed, with_beside
from cof_agent.data.images import Reference, images_in, is_audio, is_video, references
from cof_agent.data.nested import at_path, is_missing, unpacked
from cof_agent.data.unusable import (
    AUDIO,
    BAD_TURNS,
    EMPTY_REPLY,
    MASKED_REPLY,
    NO_CONVERSATION,
    NO_OBJECT,
    NO_REPLY,
    NOT_WANTED,
    ONE_TURN_TRACE,
    PLACEHOLDER,
    TOOLS_APART,
    VIDEO,
    Unusable,
    check_characters,
)
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.protocol.messages import Message
from cof_agent.protocol.published import RESULT, called, holds_results, is_marked_result

FIELDS = ("messages", "images", "system", "question", "answer", "id")
"""What `--column NAME=COLUMN` can name."""

_NAMES = ("messages", "conversations", "conversation", "message_list", "dialogue", "dialog", "texts", "prompt")
_REPLIES = {("completion",), ("response",), ("output",), ("chosen",)}
"""Columns with what a model is to say. An `answer` is a truth to score by, and no reply unless a user says so."""
_PARTS = {"text", "image", "image_url", "input_text", "input_image"}
_SYSTEM = {("system",), ("system", "prompt")}
_OTHERWISE = {"rejected", "original", "raw"}
_CALLS = {"function_call", "tool_call"}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("loss", "loss_scale", "loss_weight", "weight", "train", "training", "train_on_turn")
"""Keys of a reply under which sets have 0 or false for one that is not trained on."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A row as it is trained on. messages: of system, user and assistant, with a part `{"type": "image"}` for each of `images`,
    in order. coordinates: what the boxes in the texts are (a `CoordinateSystem`), where the row says it, as our exports do."""

    id: str
    messages: list[Message]
    images: list[Reference]
    coordinates: str | None = None


class Dialogues:
    """Makes dialogues of the rows of one set. columns: our names (`FIELDS`) to the set's.

    Raises:
        InputError: if a name is none of `FIELDS`.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        if unknown := sorted(set(columns) - set(FIELDS)):
            raise InputError(f"there is no column {unknown[0]!r} to map; the names are {', '.join(FIELDS)}.")
        self._given = dict(columns)
        self._columns = Columns({name: columns[name] for name in ("question", "id") if name in columns})

    def of(self, values: Any) -> Dialogue:
        """The conversation of a row.

        Raises:
            Unusable: if there is none, or it cannot be trained on as it is written.
        """
        if not isinstance(values, dict):
            raise Unusable(NO_OBJECT, values)
        check_characters(values)
        if is_video(values):
            raise Unusable(VIDEO)
        if is_audio(values):
            raise Unusable(AUDIO)
        if is_unwanted(values) and (self._conversations(values) or any(words(name) in _REPLIES for name in values)):
            raise Unusable(NOT_WANTED)
        said, rest = self._said(values)
        said = self._with_system(said, rest)
        named = self._given.get("images")
        images = references(at_path(values, named)) if named else images_in(rest)
        shown = placed(said, images)
        messages = list(_messages(said))
        _check(messages)
        id = self._columns.of(rest).find("id", lambda value: isinstance(value, str | int))
        if any(map(has_placeholder, _texts(messages))):
            raise Unusable(PLACEHOLDER)
        known = next((one.value for one in CoordinateSystem if one == rest.get("coordinates")), None)
        return Dialogue("" if id is None else str(id), messages, shown, known)

    def _said(self, values: dict[str, Any]) -> tuple[list[Said], dict[str, Any]]:
        """What is said in a row, and the columns that say nothing."""
        names = self._conversations(values)
        if not names:
            return self._pair(values), values
        said = [one for raw in listed(at_path(values, names[0])) for one in _turns(raw)]
        used = {names[0]}
        if not any(one.role == "assistant" for one in said):
            reply = next((name for name in values if words(name) in _REPLIES and not is_missing(values[name])), None)
            if reply is None:
                raise Unusable(NO_REPLY)
            said += _reply(values[reply])
            used.add(reply)
        return said, {name: value for name, value in values.items() if name not in used}

    def _conversations(self, values: dict[str, Any]) -> list[str]:
        """The columns that hold one, the likeliest first."""
        if named := self._given.get("messages"):
            if not is_conversation(at_path(values, named)):
                raise Unusable(NO_CONVERSATION, f"{named} holds none")
            return [named]
        found = [name for name in values if not _OTHERWISE & set(words(name)) and is_conversation(values[name])]
        return sorted(found, key=lambda name: _NAMES.index(name) if name in _NAMES else len(_NAMES))

    def _pair(self, values: dict[str, Any]) -> list[Said]:
        """A question and its response, with those before them where a column has these."""
        named = self._given.get("answer")
        replies = [named] if named else [name for name in values if words(name) in _REPLIES]
        reply = next((found for name in replies if isinstance(found := at_path(values, name), str) and found), None)
        question = self._columns.of(values).find("question", lambda value: isinstance(value, str))
        if reply is None or question is None:
            raise Unusable(NO_CONVERSATION, ", ".join(values))
        if isinstance(extra := values.get("input"), str) and extra and extra != question:
            question = f"{question}\n{extra}"
        before = unpacked(values.get("history")) or []
        turns = [str(text) for pair in before for text in pair] if all(map(_is_pair_of_texts, before)) else []
        roles = ("user", "assistant")
        return [Said(roles[number % 2], [text]) for number, text in enumerate([*turns, question, reply])]

    def _with_system(self, said: list[Said], rest: dict[str, Any]) -> list[Said]:
        """With the system message of a column of its own, where none is said."""
        named = self._given.get("system")
        texts = [at_path(rest, named)] if named else [rest[name] for name in rest if words(name) in _SYSTEM]
        if not any(one.role == "system" for one in said):
            said = [*(Said("system", [text]) for text in texts[:1] if isinstance(text, str) and text), *said]
        tools = next((value for name, value in rest.items() if words(name) == ("tools",)), None)
        told = (part for one in said if one.role == "system" for part in one.parts if isinstance(part, str))
        if not is_missing(unpacked(tools)) and not any("tool" in part.lower() for part in told):
            raise Unusable(TOOLS_APART)
        return said


def _is_pair_of_texts(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _reply(value: Any) -> list[Said]:
    if isinstance(value, Mapping) and role_of(value) is not None:
        value = [value]
    if is_conversation(value):
        return [one for raw in listed(value) for one in _turns(raw)]
    if isinstance(value, str):
        return [Said("assistant", [value])]
    raise Unusable(NO_REPLY, f"a completion of kind {type(value).__name__}")


# Turns --------------------------------------------------------------------------------------------------------------------------


def _turns(raw: Mapping[str, Any]) -> Iterator[Said]:
    if pair := pair_in(raw):
        yield Said("user", [pair[0]])
        yield Said("assistant", [pair[1]])
        return
    name = str(role_of(raw)).lower()
    role = ROLES.get(name)
    if role is None:
        raise Unusable(BAD_TURNS, f"role {role_of(raw)}")
    parts = _content(next((raw[key] for key in TEXT_KEYS if raw.get(key) not in (None, [])), ""))
    if beside := [one for key in ("images", "image") for one in references(raw.get(key))]:
        parts = with_beside(parts, beside)
    yield Said(role, _as_called(raw, parts, name) if role == "assistant" else parts)


def _content(content: Any) -> list[str | Slot]:
    if isinstance(content, str) and content.startswith("[{"):  # parts, as one text
        found = unpacked(content)
        is_parts = isinstance(found, list) and all(isinstance(one, dict) and one.get("type") in _PARTS for one in found)
        content = found if is_parts else content
    if isinstance(content, list):
        return [_part(part) for part in content]
    if isinstance(content, str):
        return [content]
    raise Unusable(BAD_TURNS, f"content of kind {type(content).__name__}")


def _part(part: Any) -> str | Slot:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise Unusable(BAD_TURNS, f"part of kind {type(part).__name__}")
    kind, number = part.get("type"), part.get("index")
    if (text := text_of(part)) is not None:
        return text
    if why := unread(part):
        raise Unusable(why, f"part of type {kind}")
    is_image, image = image_of(part)
    if is_image:
        return Slot(image, number if isinstance(number, int) else None)
    raise Unusable(BAD_TURNS, f"part of type {kind}")


def _as_called(raw: Mapping[str, Any], parts: list[str | Slot], name: str) -> list[str | Slot]:
    """The parts of a reply, a thought and calls that stand beside its text written into it."""
    if any(raw.get(key) in (False, 0) for key in _WEIGHTS) or not is_missing(raw.get("train_detail")):
        raise Unusable(MASKED_REPLY)
    if not is_missing(raw.get("actions")):  # LLaVA-Plus
        raise Unusable(BAD_TURNS, "actions beside a reply")
    text = "".join(part for part in parts if isinstance(part, str))
    thought = next((raw[key] for key in _THOUGHTS if isinstance(raw.get(key), str) and raw[key].strip()), "")
    calls = unpacked(raw.get("tool_calls")) or []
    one = unpacked(raw.get("function_call"))
    if not calls and isinstance(one, Mapping) and one.get("name"):
        calls = [one]
    if name in _CALLS and not calls and isinstance(found := unpacked(text), list | dict):
        text, calls = "", found if isinstance(found, list) else [found]
    if not thought and not calls:
        return parts
    try:
        return [called(text, thought, calls), *(part for part in parts if isinstance(part, Slot))]
    except ValueError as error:
        raise Unusable(BAD_TURNS, error) from None


# Messages -----------------------------------------------------------------------------------------------------------------------


def _messages(said: Sequence[Said]) -> Iterator[Message]:
    """Each turn as a message; results of tools, one after the other, as one of a user."""
    results: list[dict[str, Any]] = []
    for one in said:
        parts = [_plain(part) for part in one.parts if part != ""]
        if one.role == "tool":
            results += [*([_text("\n")] if results else []), *_result(parts)]
            continue
        if results:
            yield {"role": "user", "content": _joined(results)}
            results = []
        yield {"role": one.role, "content": _joined(parts)}
    if results:
        yield {"role": "user", "content": _joined(results)}


def _result(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if any(is_marked_result(part.get("text", "")) for part in parts):
        return parts
    return [_text(RESULT[0]), *parts, _text(RESULT[1])]


def _plain(part: str | Slot) -> dict[str, Any]:
    return _text(part) if isinstance(part, str) else {"type": "image"}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _joined(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts with texts that follow each other in one."""
    made: list[dict[str, Any]] = []
    for part in parts:
        if made and part["type"] == made[-1]["type"] == "text":
            made[-1] = _text(made[-1]["text"] + part["text"])
        else:
            made.append(part)
    return made


def _texts(messages: Sequence[Message]) -> list[str]:
    return [part["text"] for one in messages for part in one["content"] if part["type"] == "text"]


def _check(messages: Sequence[Message]) -> None:
    """Refuses an assistant's turn that is empty, or holds what it did not write itself.

    Raises:
        Unusable: if not.
    """
    replies = ["".join(part["text"] for part in one["content"]) for one in messages if one["role"] == "assistant"]
    if not any(reply.strip() for reply in replies):
        raise Unusable(NO_REPLY)
    if not all(reply.strip() for reply in replies):
        raise Unusable(EMPTY_REPLY)
    if any(holds_results(reply) for reply in replies):
        raise Unusable(ONE_TURN_TRACE)
