"""The words that open a conversation: the system message with its tools, and the question with its choices.

The format is the one that published Chain-of-Focus and DeepEyes checkpoints write (arXiv 2505.15436).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cof_agent.geometry import CoordinateSystem
from cof_agent.trajectory import Sample

PROTOCOL_VERSION = "1"
TOOL_NAME = "image_zoom_in_tool"

_BOX_WORDS = {
    CoordinateSystem.ABSOLUTE: "in pixels of that image",
    CoordinateSystem.THOUSAND: "from 0 to 1000 on both axes of that image",
    CoordinateSystem.THOUSAND_YX: "from 0 to 1000 on both axes of that image",
    CoordinateSystem.UNIT: "from 0 to 1 on both axes of that image",
    CoordinateSystem.PADDED: "from 0 to 1 on both axes of the square in whose middle that image lies",
}


_TASK = "You answer a question about an image. The image may show less detail than the original has."
_TASK_OF_SEVERAL = (
    "You answer a question about {count} pictures, which are images 0 to {last} of this conversation. They may show less "
    'detail than the originals have.\nIn a call, "image" is the number of the image that the box refers to. A call without '
    '"image" refers to image 0, the first picture. Each region that comes back gets the next number.'
)


def tool_schema(system: CoordinateSystem) -> dict[str, Any]:
    """The zoom tool as an OpenAI function schema, its box described in the model's coordinates."""
    edges = "top, left, bottom, right" if system.y_first else "left, top, right, bottom"
    return {
        "type": "function",
        "function": {
            "name": TOOL_NAME,
            "description": "Shows a region of an image again, cut from the full-resolution original.",
            "parameters": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 4,
                        "maxItems": 4,
                        "description": f"The region as {system.corners}, {_BOX_WORDS[system]}: {edges}.",
                    },
                    "image": {
                        "type": "integer",
                        "description": "Which image of this conversation the region refers to; 0, the first, by default.",
                    },
                },
                "required": ["bbox_2d"],
            },
        },
    }


def system_prompt(system: CoordinateSystem, tools: Sequence[dict[str, Any]] = (), *, images: int = 1) -> str:
    """The default system message; a file can replace it for checkpoints that were trained with their own.

    tools: schemas of further tools, as OpenAI writes functions; they are listed behind the zoom. images: how many overviews
    the conversation opens with.
    """
    schemas = "\n".join(json.dumps(schema) for schema in (tool_schema(system), *tools))
    return "\n".join(
        (
            _TASK if images == 1 else _TASK_OF_SEVERAL.format(count=images, last=images - 1),
            "Think inside <think></think> first. Then either zoom or answer.",
            "To look closer at a region, call the tool in this list:",
            f"<tools>\n{schemas}\n</tools>",
            'A call is written as <tool_call>\n{"name": <tool name>, "arguments": <arguments as JSON>}\n</tool_call>',
            "The region then comes back as a new image. When you know the answer, write <answer>your answer</answer>.",
        )
    )


def question_text(sample: Sample) -> str:
    """The question, with its choices as lettered lines."""
    lines = [sample.question, *(f"{letter}. {text}" for letter, text in lettered(sample.choices))]
    return "\n".join(lines)


def lettered(choices: Sequence[str]) -> list[tuple[str, str]]:
    """Choices with the letters they are shown under: A, B, ..., Z, AA, ..."""
    return [(_letter(index), text) for index, text in enumerate(choices)]


def _letter(index: int) -> str:
    head = _letter(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("A") + index % 26)
