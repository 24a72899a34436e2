"""Writes assistant turns in the wire format, whole or begun."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from cof_agent.geometry import Box
from cof_agent.protocol.parse import thought, well_formed
from cof_agent.protocol.prompt import TOOL_NAME
from cof_agent.trajectory import Turn, Zoom

THOUGHT, CALL, ANSWER = "<think>{}</think>", "<tool_call>{}</tool_call>", "<answer>{}</answer>"
"""How a thought, a call and an answer are marked, for prompts that explain it."""


def write_zoom(thought: str, box: Box, image: int = 0) -> str:
    """A well-formed assistant turn that zooms; `box` in the model's coordinates, whole numbers without a point."""
    return f"<think>{thought}</think>\n{_zoom_call(box, image)}"


def write_zooms(thought: str, boxes: Sequence[Box]) -> str:
    """The same with several zooms into the overview."""
    return f"<think>{thought}</think>\n" + "\n".join(_zoom_call(box) for box in boxes)


def _zoom_call(box: Box, image: int = 0) -> str:
    arguments: dict[str, Any] = {"bbox_2d": [int(v) if float(v).is_integer() else round(v, 3) for v in box]}
    if image:
        arguments["image"] = image
    call = json.dumps({"name": TOOL_NAME, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


def write_answer(thought: str, answer: str) -> str:
    """A well-formed assistant turn that answers."""
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


def put_together(thought: str, text: str, calls: Sequence[tuple[str, str]]) -> str:
    """The turn that a server has taken apart into its thought (empty without one), the rest, and its calls, each the name of
    a tool and the JSON of its arguments, which may be broken."""
    written = (
        f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {given}}}\n</tool_call>' for name, given in calls
    )
    head = [f"<think>{thought.strip()}</think>"] if thought.strip() else []
    return "\n".join([*head, *([text.strip()] if text.strip() else []), *written])


def begin_zoom(thought: str) -> str:
    """The beginning of a turn that zooms, up to the first number of its box."""
    return write_zoom(thought, Box(0, 0, 0, 0)).rpartition("[")[0] + "["


def begin_answer(thought: str) -> str:
    """The beginning of a turn that answers, up to the answer."""
    return write_answer(thought, "").removesuffix("</answer>")


def rewrite(turn: Turn, move: Callable[[Sequence[Any], int], Box]) -> str:
    """The words of a turn with the box of its zoom moved: `move` gets the box as written and the number of its image.

    Raises:
        ValueError: if the turn is not one thought and one action.
    """
    if not well_formed(turn.text) or len(turn.actions) > 1:
        raise ValueError(
            "a turn of it is not one thought and one action, so that it cannot be rewritten for this model"
        )
    (action,) = turn.actions
    if not isinstance(action, Zoom):
        return turn.text
    return write_zoom(thought(turn.text), move(action.box, action.image), action.image)
