"""Writes assistant turns in the wire format, whole or begun."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from cof_agent.geometry import Box
from cof_agent.protocol.dialects import Dialect, ours
from cof_agent.protocol.parse import thought, well_formed
from cof_agent.trajectory import Answer, Turn, Zoom

THOUGHT, CALL, ANSWER = "<think>{}</think>", "<tool_call>{}</tool_call>", "<answer>{}</answer>"
"""How a thought, a call and an answer are marked, for prompts that explain it."""


def write_zoom(thought: str, box: Box, image: int = 0, dialect: Dialect | None = None) -> str:
    """A well-formed assistant turn that zooms; `box` in the model's coordinates, whole numbers without a point."""
    spoken = dialect or ours()
    return f"{_head(thought, spoken)}{_zoom_call(box, image, spoken)}"


def write_zooms(thought: str, boxes: Sequence[Box]) -> str:
    """The same with several zooms into the overview, in our dialect."""
    return f"{_head(thought, ours())}" + "\n".join(_zoom_call(box, 0, ours()) for box in boxes)


def _head(thought: str, dialect: Dialect) -> str:
    return f"<think>{thought}</think>\n" if dialect.end.thought == "required" else f"{thought}\n" if thought else ""


def _zoom_call(box: Box, image: int, dialect: Dialect) -> str:
    call = dialect.call
    arguments: dict[str, Any] = {call.box: [int(v) if float(v).is_integer() else round(v, 3) for v in box]}
    if call.first_called:
        arguments[call.image] = (
            call.later_called.replace("{n}", str(image + call.counts_from)) if image else call.first_called
        )
    elif call.image and (image or call.counts_from):
        arguments[call.image] = image + call.counts_from
    if call.bare:
        return f"{call.open}{json.dumps(arguments)}{call.close}"
    written = json.dumps({"name": call.names[0], "arguments": arguments})
    if call.form == "xml":
        given = "".join(f"<parameter={key}>\n{json.dumps(value)}\n</parameter>\n" for key, value in arguments.items())
        written = f"<function={call.names[0]}>\n{given}</function>"
    return f"{call.open}\n{written}\n{call.close}"


def write_answer(thought: str, answer: str, dialect: Dialect | None = None) -> str:
    """A well-formed assistant turn that answers; where an answer has no mark, it stands alone."""
    spoken = dialect or ours()
    if spoken.end.answer[0] == "plain":
        return answer
    marked = {"tag": f"<answer>{answer}</answer>", "boxed": f"\\boxed{{{answer}}}"}
    return f"{_head(thought, spoken)}{marked[spoken.end.answer[0]]}"


def stopped(text: str, stop: str, told: Any = None) -> str:
    """A turn that a server may have ended at the text `stop`, with that text in its place again.

    told: what the server says stopped it, where it says so. Where it does not, a tag that is open and that `stop` would close
    says the same.
    """
    if text.rstrip().endswith(stop):
        return text
    opening = stop.replace("</", "<", 1)
    begun = opening != stop and opening in text.rpartition(stop)[2]
    return text + stop if told == stop or begun else text


def begin_zoom(thought: str) -> str:
    """The beginning of a turn that zooms, up to the first number of its box."""
    return write_zoom(thought, Box(0, 0, 0, 0)).rpartition("[")[0] + "["


def begin_answer(thought: str) -> str:
    """The beginning of a turn that answers, up to the answer."""
    return write_answer(thought, "").removesuffix("</answer>")


def rewrite(
    turn: Turn, move: Callable[[Sequence[Any], int], Box], dialect: Dialect | None = None, into: Dialect | None = None
) -> str:
    """The words of a turn with the box of its zoom moved: `move` gets the box as written and the number of its image.

    dialect: in which the turn was written, `into`: in which it is written again; by default ours, and the same one.

    Raises:
        ValueError: if the turn is not one thought and one action, or the other dialect cannot say it.
    """
    spoken = dialect or ours()
    target = into or spoken
    if not well_formed(turn.text, dialect=spoken) or len(turn.actions) > 1:
        raise ValueError(
            "a turn of it is not one thought and one action, so that it cannot be rewritten for this model"
        )
    (action,) = turn.actions
    if isinstance(action, Zoom):
        if action.image and target.call.always_first:
            raise ValueError(f"it zooms into a crop, which {target.name} cannot")
        return write_zoom(thought(turn.text), move(action.box, action.image), action.image, target)
    if target == spoken or not isinstance(action, Answer):
        return turn.text
    said = thought(turn.text)
    return write_answer("" if said == action.text else said, action.text, target)  # a plain answer is no thought
