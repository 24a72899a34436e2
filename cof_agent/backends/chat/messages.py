"""Messages as OpenAI's interface has them, which LangChain takes for every provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cof_agent.protocol import Message


Part = dict[str, Any]
"""One piece of a message: text or an image."""


def image_part(url: str | None, name: str | None = None) -> Part:
    """An image at a URL. name: vLLM's id of it; with such an id, the URL may be left out."""
    part: Part = {"type": "image_url", "image_url": None if url is None else {"url": url}}
    return part if name is None else {**part, "uuid": name}


def rendered(message: Message, images: Sequence[Part]) -> dict[str, Any]:
    """The message with `images[k]` as the image of view k."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):  # as one string, which every server knows
        return {"role": message["role"], "content": "".join(part["text"] for part in parts)}
    blocks = [images[part["view"]] if part["type"] == "image" else part for part in parts]
    return {"role": message["role"], "content": blocks}
