"""Conversations as the chat template of a checkpoint writes them.

Templates of models that think (Qwen3.5 and later) need more than roles and contents. They write the beginning of the assistant's
turn themselves, some take the thought apart from the words, and some delete the thoughts before the last message of the user:
there what the model was shown goes back as the result of a tool, which leaves earlier turns as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from cof_agent import protocol
from cof_agent.backends.families import Markers
from cof_agent.errors import InputError
from cof_agent.protocol import Message

_THINKING = {"enable_thinking": True}
"""What templates are asked for that would else close the thought before the model has written one."""


def templated(processor: Any, messages: Sequence[Message], *, answering: bool = False) -> str:
    """The text of a conversation by the processor's own template, which is handed the tools that its first message has.

    answering: up to where the next turn of the assistant begins, with what the template writes of that turn (see `opened`).

    Raises:
        InputError: if it has tools, and the template knows none.
    """
    template = str(processor.chat_template or "")
    tools = messages[0].get("tools")
    if tools and "tools" not in template:
        raise InputError(
            "the chat template of this checkpoint knows no tools; use another --dialect, such as ours or qwen3-zoom."
        )
    told = [_plain(message, apart="reasoning_content" in template) for message in messages]
    if _thoughtful(messages) and _forgets_thoughts(template):
        told = _as_results(told)
    given = {**({"tools": tools} if tools else {}), **(_THINKING if "enable_thinking" in template else {})}
    text: str = processor.apply_chat_template(told, tokenize=False, add_generation_prompt=answering, **given)
    return text


def opened(processor: Any, markers: Markers) -> str:
    """What the template writes of the assistant's turn before the model goes on, such as the tag of a thought; mostly nothing."""
    asked: Message = {"role": "user", "content": [{"type": "text", "text": "?"}]}
    return templated(processor, [asked], answering=True).rpartition(markers.assistant)[2]


def _plain(message: Message, *, apart: bool) -> Message:
    """A message as chat templates know it: which image is meant is said by the order, and a thought may stand `apart`."""
    content = [{"type": "image"} if part["type"] == "image" else part for part in message["content"]]
    told = {"role": message["role"], "content": content}
    if not apart or message["role"] != "assistant":
        return told
    thought, rest = protocol.taken_apart("".join(part["text"] for part in content))
    return {**told, "content": [{"type": "text", "text": rest}], "reasoning_content": thought}


def _thoughtful(messages: Sequence[Message]) -> bool:
    """Whether the first turn of the assistant has a thought. By later ones earlier turns would change."""
    texts = ("".join(part["text"] for part in one["content"]) for one in messages if one["role"] == "assistant")
    return bool(protocol.taken_apart(next(texts, ""))[0])


def _as_results(messages: Sequence[Message]) -> list[Message]:
    """What was shown behind the first turn of the assistant as results of a tool, where its words do not say so already."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return [
        {**message, "role": "tool"}
        if index > first and message["role"] == "user" and not protocol.is_result(message)
        else message
        for index, message in enumerate(messages)
    ]


@lru_cache(maxsize=32)
def _forgets_thoughts(template: str) -> bool:
    """Whether a template leaves the thought of an earlier turn out, once the user has said something after it."""
    thought = "a thought of an earlier turn"
    turns = (("user", "One?"), ("assistant", f"<think>\n{thought}\n</think>\n\nYes."), ("user", "Two?"))
    talk = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    asked = [_plain(message, apart="reasoning_content" in template) for message in talk]
    (text,), _ = render_jinja_template(conversations=[asked], chat_template=template, **_THINKING)
    return thought not in text
