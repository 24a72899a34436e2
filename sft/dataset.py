"""Turns conversations in the wire format into TRL's columns: `messages` with image slots, and `images`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from cof_agent.protocol import Message


def to_row(messages: Sequence[Message], images: Sequence[Image]) -> dict[str, Any]:
    """One training row. `images[k]` are the pixels of view `k`, sized as the model sees them.

    Raises:
        ValueError: if the messages do not show each image once, in order; TRL fills slots by position.
    """
    order = [part["view"] for message in messages for part in message["content"] if part["type"] == "image"]
    if order != list(range(len(images))):
        raise ValueError(f"messages show the views {order}, but there are {len(images)} images")
    plain = [{"role": message["role"], "content": [_part(part) for part in message["content"]]} for message in messages]
    return {"messages": plain, "images": list(images)}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}
