"""Turns as servers and providers have them, in parts: a thought, a text, and calls. And the literal text of these."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.protocol.calls import Call, calls_in, placed_calls
from cof_agent.protocol.dialects import ours
from cof_agent.protocol.parse import begins_anew, closed_thoughts, taken_apart

FOLLOWS = "The image follows."
"""A result that is an image alone, where images stand in another message."""
NOT_DONE = "This call was not carried out."

_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parts:
    """calls: name and arguments as JSON, in the order of the turn's actions; None for one that cannot be read, which stands in
    the text as it was written."""

    thought: str
    text: str
    calls: tuple[tuple[str, str] | None, ...]


def put_together(thought: str, text: str, calls: Sequence[tuple[str, str]], *, cut: bool = False) -> str:
    """The turn that a server has taken apart into its thought (empty without one), the rest, and its calls, each the name of
    a tool and the JSON of its arguments, which may be broken. cut: whether the turn was cut off, so that the last call is not
    closed unless it is whole."""
    written = [f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {given}' for name, given in calls]
    closed = [not cut or number < len(calls) or is_whole_json(given) for number, (_, given) in enumerate(calls, 1)]
    written = [call + "}\n</tool_call>" if whole else call for call, whole in zip(written, closed, strict=True)]
    thought = thought.replace("</think>", "").strip()  # else the rest of it would be read as what the turn does
    head = [f"<think>{thought}</think>"] if thought else []
    return "\n".join([*head, *([text.strip()] if text.strip() else []), *written])


def repeats(text: str, calls: Sequence[tuple[str, str]]) -> bool:
    """Whether a text still has all of the calls that a server has read in it, as `put_together` takes them: put together with it
    they would be made twice."""
    written = calls_in(text.rpartition("</think>")[2], ours().call)
    there = [(one.name, one.arguments) for one in written if isinstance(one, Call)]
    return all((name, _json(given)) in there for name, given in calls)


def is_whole_json(text: str) -> bool:
    """Whether a text is JSON to its end."""
    return _json(text) is not _NONE


_NONE = object()


def _json(text: str) -> Any:
    """What a text of JSON holds; `_NONE` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NONE


def in_parts(turn: str, *, thought: bool) -> Parts:
    """The parts of a literal turn. thought: whether its thought is one of them; else it stays in the text."""
    begin = _end_of_thought(turn)
    before, body = turn[:begin], turn[begin:]
    calls: list[tuple[str, str] | None] = []
    kept: list[str] = []
    end = 0
    for start, stop, found in placed_calls(_without_thoughts(body), ours().call):
        read = [_written(call) for call in found]
        calls += read
        if None not in read:
            kept.append(body[end:start])
            end = stop
    text = "".join([*kept, body[end:]]).rstrip() if kept else body
    if thought:
        return Parts(*taken_apart(before + text), tuple(calls))
    return Parts("", before + text, tuple(calls))


def _end_of_thought(turn: str) -> int:
    """Where the thought ends that a turn begins with; 0 without one."""
    head, closing, _ = turn.partition("</think>")
    if closing and "<think>" not in head:
        return len(head + closing)
    return next((end for _, end in closed_thoughts(turn)), 0) if begins_anew(turn) else 0


def _without_thoughts(text: str) -> str:
    """A text of the same length with blanks for its closed thoughts, in which `parse` looks for no calls."""
    for begin, end in closed_thoughts(text):
        text = f"{text[:begin]}{' ' * (end - begin)}{text[end:]}"
    return text


def _written(call: Any) -> tuple[str, str] | None:
    if not isinstance(call, Call) or not isinstance(call.name, str) or not _NAME.fullmatch(call.name):
        return None
    return call.name, json.dumps(call.arguments, ensure_ascii=False)
