"""The shipped dialects with words of our own in place of their authors', which are not in this repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cof_agent import protocol
from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.protocol.dialects import Dialect, described, names, ours, to_yaml
from cof_agent.protocol.dialects.read import with_words

OWN_WORDS = {
    "system": "You look at pictures.",
    "suffix": "\nThink, then zoom or answer.",
    "described": "Zooms in.",
    "parameters": json.dumps({"type": "object", "properties": {"bbox_2d": {"type": "array"}}}),
    "refused": "That did not work: ",
    "advice": "Try again.",
}
SHOWN = {
    "mini-o3": "After turn {before}, crop {turn} is:\n{image}.\nGo on.",
    "pixel-reasoner": "\nThe crop ({width}x{height}):",
    "sensenova-mars": "<tool_response>\nThe crop:",
}
NAMES = names()
ZOOM = ours().call.names[0]
"""What our tool is called."""


def spoken(name: str) -> Dialect:
    """The dialect of this name, ready for use."""
    found = described(name)
    return with_words(found, {word: SHOWN[name] if word == "shown" else OWN_WORDS[word] for word in found.missing})


def saved(name: str, folder: Path) -> str:
    """A file with it."""
    path = folder / f"{name}.yaml"
    path.write_text(to_yaml(spoken(name)))
    return str(path)


def zoom(dialect: Dialect, region: Sequence[float], view: View, system: CoordinateSystem, image: int = 0) -> str:
    """A turn that zooms into a region in source pixels, as a model of this dialect writes it."""
    box = view.from_source(Box(*region), dialect.coordinates or system)
    return protocol.write_zoom("There.", box, image, dialect)


def broken(dialect: Dialect) -> str:
    """A turn with a call that cannot be read."""
    call: Any = dialect.call
    return f"<think>Hm.</think>\n{call.open}{{nothing{call.close}"
