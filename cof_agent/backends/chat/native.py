"""A conversation with native tools as servers have it: calls with ids, results as messages of the tool, thoughts of their own.

The record knows the literal text of a turn only; all that stands here is made from it, each time the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cof_agent import protocol

Rendered = dict[str, Any]
"""A message as OpenAI's interface has it."""


def with_calls(messages: Sequence[Rendered], thoughts: str) -> list[Rendered]:
    """Rendered messages with the calls of each assistant turn taken out of its text.

    thoughts: the field of a thought, where the server has one of its own; else thoughts stay in the text. The k-th result
    behind a turn answers its k-th call. A call that nobody could read stays in the text, and its result has an id that no
    call has. Where results are the user's messages, calls are nothing but text.
    """
    found: list[Rendered] = []
    ids: list[str] = []
    number = place = 0
    for message, after in zip(messages, [*messages[1:], None], strict=True):
        if message["role"] == "assistant" and after is not None and after["role"] == "tool":
            parts = protocol.in_parts(message["content"], thought=bool(thoughts))
            ids = [_id(number + k) for k in range(len(parts.calls))]
            number, place = number + len(ids), 0
            found.append(_said(parts.text, zip(ids, parts.calls, strict=True), {thoughts: parts.thought}))
        elif message["role"] == "tool":
            name = ids[place] if place < len(ids) else _id(number)
            number, place = number + (place >= len(ids)), place + 1
            found.append({**message, "tool_call_id": name})
        else:
            found.append(message)
    return found


def _id(number: int) -> str:
    return f"call{number:05d}"  # nine letters and digits: what the strictest templates take


def _said(text: str, calls: Any, thought: dict[str, str]) -> Rendered:
    """An assistant turn."""
    told = [
        {"id": name, "type": "function", "function": {"name": call[0], "arguments": call[1]}}
        for name, call in calls
        if call is not None
    ]
    more = {field: words for field, words in thought.items() if field and words}
    return {"role": "assistant", "content": text, **more, **({"tool_calls": told} if told else {})}


def strict(messages: Sequence[Rendered]) -> list[Rendered]:
    """The same for those who hold to the letter of the interface: results are text, and each call has one.

    Images of results stand in a user message behind them, as do results of what nobody could read as a call.
    """
    found: list[Rendered] = []
    waiting: list[str] = []
    later: list[dict[str, Any]] = []

    def settle() -> None:
        found.extend({"role": "tool", "tool_call_id": name, "content": protocol.NOT_DONE} for name in waiting)
        if later:
            found.append({"role": "user", "content": [*later]})
        waiting.clear()
        later.clear()

    for message in messages:
        if message["role"] != "tool":
            settle()
            found.append(message)
            waiting += [call["id"] for call in message.get("tool_calls", ())]
        elif message["tool_call_id"] not in waiting:
            later += _parts(message)
        else:
            waiting.remove(message["tool_call_id"])
            parts = _parts(message)
            later += [part for part in parts if part["type"] != "text"]
            words = "".join(part["text"] for part in parts if part["type"] == "text")
            found.append({**message, "content": words or protocol.FOLLOWS})
    settle()
    return found


def _parts(message: Rendered) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
