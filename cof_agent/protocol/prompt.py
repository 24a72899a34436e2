"""The words that open a conversation: the system message, the tools, and the question with its choices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cof_agent.geometry import CoordinateSystem
from cof_agent.protocol.dialects import Dialect, filled, ours
from cof_agent.trajectory import Sample

PROTOCOL_VERSION = "1"

_BOX_WORDS = {
    CoordinateSystem.ABSOLUTE: "in pixels of that image",
    CoordinateSystem.THOUSAND: "from 0 to 1000 on both axes of that image",
    CoordinateSystem.THOUSAND_YX: "from 0 to 1000 on both axes of that image",
    CoordinateSystem.UNIT: "from 0 to 1 on both axes of that image",
    CoordinateSystem.UNIT_OR_PIXELS: "from 0 to 1 on both axes of that image",
    CoordinateSystem.SOURCE: "in pixels of the original image",
    CoordinateSystem.PADDED: "from 0 to 1 on both axes of the square in whose middle that image lies",
}


def tool_schema(system: CoordinateSystem, dialect: Dialect | None = None) -> dict[str, Any]:
    """The zoom tool as an OpenAI function schema; where its dialect says nothing else, its box described in the model's
    coordinates."""
    spoken = dialect or ours()
    opening = spoken.opening
    described = spoken.expanded(opening.described) or (
        "Shows a region of an image again, cut from the full-resolution original."
    )
    parameters = json.loads(spoken.expanded(opening.parameters)) if opening.parameters else _parameters(system, spoken)
    function = {"name": spoken.call.names[0], "description": described, "parameters": parameters}
    return {"type": "function", "function": function}


def _parameters(system: CoordinateSystem, dialect: Dialect) -> dict[str, Any]:
    edges = "top, left, bottom, right" if system.y_first else "left, top, right, bottom"
    box = {
        "type": "array",
        "items": {"type": "number"},
        "minItems": 4,
        "maxItems": 4,
        "description": f"The region as {system.corners}, {_BOX_WORDS[system]}: {edges}.",
    }
    properties: dict[str, Any] = {dialect.call.box: box}
    if dialect.call.first_called:
        first, later = dialect.call.first_called, dialect.call.later_called.replace("{n}", "N")
        properties[dialect.call.image] = {
            "type": "string",
            "description": f"Which image of this conversation the region refers to: {first}, or {later}.",
        }
    elif dialect.call.image:
        lowest = dialect.call.counts_from
        properties[dialect.call.image] = {
            "type": "integer",
            "description": f"Which image of this conversation the region refers to; {lowest}, the first, by default.",
        }
    return {"type": "object", "properties": properties, "required": [dialect.call.box]}


def system_prompt(
    system: CoordinateSystem,
    tools: Sequence[dict[str, Any]] = (),
    *,
    images: int = 1,
    dialect: Dialect | None = None,
) -> str:
    """The system message of a dialect; a file can replace it for checkpoints that were trained with their own.

    tools: schemas of further tools, as OpenAI writes functions; they are listed behind the zoom. images: how many overviews
    the conversation opens with.
    """
    spoken = dialect or ours()
    opening = spoken.opening
    text = opening.system_of_several if images > 1 and opening.system_of_several else opening.system
    schemas = "\n".join(json.dumps(schema) for schema in (tool_schema(system, spoken), *tools))
    return filled(spoken.expanded(text), {"tools": schemas, "count": images, "last": images - 1})


def question_text(sample: Sample) -> str:
    """The question, with its choices as lettered lines."""
    lines = [sample.question, *(f"{letter}. {text}" for letter, text in lettered(sample.choices))]
    return "\n".join(lines)


def options_text(choices: Sequence[str], dialect: Dialect) -> str:
    """The choices as a dialect lists them."""
    option = dialect.expanded(dialect.opening.option)
    return "".join(filled(option, {"letter": letter, "option": text}) for letter, text in lettered(choices))


def lettered(choices: Sequence[str]) -> list[tuple[str, str]]:
    """Choices with the letters they are shown under: A, B, ..., Z, AA, ..."""
    return [(_letter(index), text) for index, text in enumerate(choices)]


def _letter(index: int) -> str:
    head = _letter(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("A") + index % 26)
