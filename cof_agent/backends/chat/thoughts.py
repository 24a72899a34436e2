"""Conversations with served models whose chat template writes a thought before each answer: Qwen3.5 and later, Qwen3-VL-Thinking.

Some of these templates delete the thoughts before the last message of the user. They take a message of the user for the result
of a tool if it stands inside `<tool_response>`, and delete nothing before such a message. So what the model is shown goes back
like this; in this process `local.template` does the same. Others keep all thoughts, but only those that stand in a field of their
own.
"""

from __future__ import annotations

from collections.abc import Sequence

from cof_agent import protocol
from cof_agent.backends.chat.native import Rendered
from cof_agent.protocol.published import RESULT


def kept(messages: Sequence[Rendered], field: str, *, results: bool) -> list[Rendered]:
    """Rendered messages in such a form that the thoughts stay. If the first turn has no thought, nothing changes.

    field: of a thought, where the server has one of its own; else thoughts stay in the text. results: whether what is shown
    behind the first turn has to be the result of a tool.
    """
    first = next((place for place, one in enumerate(messages) if one["role"] == "assistant"), len(messages))
    if first == len(messages) or not protocol.taken_apart(messages[first]["content"])[0]:
        return [*messages]
    later = [_as_result(one) if results and one["role"] == "user" else one for one in messages[first:]]
    return [*messages[:first], *(_apart(one, field) if one["role"] == "assistant" and field else one for one in later)]


def _as_result(message: Rendered) -> Rendered:
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if protocol.is_result({"content": parts}):
        return message
    before, after = ({"type": "text", "text": text} for text in RESULT)
    return {**message, "content": [before, *_stripped(parts), after]}


def _stripped(parts: Sequence[Rendered]) -> list[Rendered]:
    """Without spaces at the ends, as templates write results."""
    found = [*parts]
    if found[0]["type"] == "text":
        found[0] = {**found[0], "text": found[0]["text"].lstrip()}
    if found[-1]["type"] == "text":
        found[-1] = {**found[-1], "text": found[-1]["text"].rstrip()}
    return found


def _apart(message: Rendered, field: str) -> Rendered:
    thought, text = protocol.taken_apart(message["content"])
    return {**message, "content": text, **({field: thought} if thought else {})}
