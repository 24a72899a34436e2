"""The wire format of Chain-of-Spot (arXiv 2403.12966): what its two turns say, and how replies are read.

The first reply names the region of interest as `[x0, y0, x1, y1]`, fractions with three decimals of the square in whose
middle the image lies (`CoordinateSystem.PADDED`); the second one, under the crop of that region, is the answer: bare, or
after a thought, in the agent's tags.
The instructions are our own words. They and the reading of replies stand here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cof_agent import protocol
from cof_agent.geometry import Box, BoxError, CoordinateSystem, View, clip_to_view, read_box
from cof_agent.protocol.dialects import Dialect, ours
from cof_agent.trajectory import Action, Answer, Malformed, Sample, Trajectory, Turn, Zoom

VERSION = "spot-1"
SYSTEM = CoordinateSystem.PADDED

_POINT = (
    "Which region of the image is of interest for this question? "
    "Reply as [x0, y0, x1, y1], fractions of the padded square.\n"
)
_ANSWER = "Answer the question.\n"
_PLAIN = replace(ours(), end=replace(ours().end, answer=("tag", "plain")))

_NUMBER = r"([+-]?(?:\d{1,9}(?:\.\d{0,18})?|\.\d{1,18}))"  # bounded, so that no text takes long to read
_REGION = re.compile(r"(?<![\d.])" + r"\s{0,9},\s{0,9}".join([_NUMBER] * 4) + r"(?!\d)")


def opening(sample: Sample, *, prompt: str | None = None) -> list[protocol.Message]:
    """The overview with the request to name a region; under a system message only where `prompt` is one."""
    system = [] if prompt is None else [_message("system", prompt)]
    return [*system, ask_region(sample)]


def ask_region(sample: Sample, view: int | None = 0) -> protocol.Message:
    """The request to name a region, under image `view`; None where the image was shown before."""
    return _message("user", _POINT + protocol.question_text(sample), view)


def ask_answer(sample: Sample, view: int | None = 1) -> protocol.Message:
    """The question once more, under the crop; `view` None where no region was named and the overview must do."""
    return _message("user", _ANSWER + protocol.question_text(sample), view)


def messages(sample: Sample, turns: Sequence[Turn], *, prompt: str | None = None) -> list[protocol.Message]:
    """The conversation so far, up to where the model speaks next: none, one or both of its turns are done."""
    held = opening(sample, prompt=prompt)
    for number, turn in enumerate(turns):
        held.append(protocol.assistant(turn.text))
        if number == 0:
            seen = any(observation.view is not None for observation in turn.observations)
            held.append(ask_answer(sample, 1 if seen else None))
    return held


def render(trajectory: Trajectory) -> list[protocol.Message]:
    """The whole conversation of a trajectory, under the system message that it was held with.

    Raises:
        ValueError: if the image was never shown.
    """
    if trajectory.overview is None:
        raise ValueError(f"sample {trajectory.sample.id} was never shown, so there is nothing to render")
    return messages(trajectory.sample, trajectory.turns, prompt=trajectory.settings.get("prompt"))


def write_region(box: Box) -> str:
    """A well-formed first reply; `box` in fractions of the padded square."""
    return f"[{', '.join(f'{edge:.{SYSTEM.digits}f}' for edge in box)}]"


def read_region(text: str, overview: View) -> Zoom | Malformed:
    """The region that a first reply names: the first four numbers in it with commas between, whatever stands around them.

    `Malformed` where there are none, or where nothing of the box lies in the image: the run then goes on without a crop.
    """
    found = _REGION.search(text)
    if found is None:
        return Malformed("There is no region of the form [x0, y0, x1, y1].")
    box = tuple(float(number) for number in found.groups())
    try:
        clip_to_view(read_box(box), overview, SYSTEM)
    except BoxError as error:
        return Malformed(str(error))
    return Zoom(box)


def rewrite(
    turn: Turn, move: Callable[[Sequence[Any], int], Box], overview: View, *dialects: Dialect
) -> tuple[str, tuple[Action, ...]]:
    """The words and the action of a turn with its region moved into the padded square of another overview."""
    (action,) = turn.actions
    if not isinstance(action, Zoom):
        return turn.text, turn.actions
    text = write_region(move(action.box, action.image))
    return text, (read_region(text, overview),)


def read_answer(text: str) -> Answer | Malformed:
    """The second reply's answer: what stands in the agent's tags; without them, all that follows the thought."""
    tagged, plain = protocol.parse(text)[-1], protocol.parse(protocol.after_thought(text), dialect=_PLAIN)[-1]
    found = tagged if isinstance(tagged, Answer) else plain
    return found if isinstance(found, Answer) else Malformed("The second reply holds no answer.")


def _message(role: str, text: str, view: int | None = None) -> protocol.Message:
    image = [] if view is None else [{"type": "image", "view": view}]
    return {"role": role, "content": [*image, {"type": "text", "text": text}]}
