"""Messages as OpenAI's interface has them, which LangChain takes for every provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cof_agent.protocol import Message


def rendered(message: Message, urls: Sequence[str]) -> dict[str, Any]:
    """The message with `urls[k]` as the image of view k."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):  # as one string, which every server knows
        return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
    blocks = [
        {"type": "image_url", "image_url": {"url": urls[part["view"]]}} if part["type"] == "image" else part
        for part in parts
    ]
    return {"role": message["role"], "content": blocks}
