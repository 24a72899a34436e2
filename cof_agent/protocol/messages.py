"""Conversations as lists of messages: the opening, what the model wrote, and what it was shown for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cof_agent.geometry import CoordinateSystem, View
from cof_agent.protocol.prompt import question_text, system_prompt
from cof_agent.region_refs import located
from cof_agent.trajectory import Observation, Sample, Trajectory, Turn

Message = dict[str, Any]
"""`{"role": ..., "content": [{"type": "text", "text": ...} | {"type": "image", "view": k}]}`; `view` counts images."""


def opening(
    sample: Sample,
    overview: View,
    *,
    system: CoordinateSystem,
    prompt: str | None = None,
    tools: Sequence[dict[str, Any]] = (),
) -> list[Message]:
    """The system message and the user's question under the overview, its regions as words and boxes.

    prompt: replaces the system message. tools: schemas of the tools beside the zoom.
    """
    question = located(question_text(sample), sample.regions, overview, system)
    return [
        {"role": "system", "content": [_text(system_prompt(system, tools) if prompt is None else prompt)]},
        {"role": "user", "content": [{"type": "image", "view": 0}, _text(question)]},
    ]


def asked(messages: Sequence[Message]) -> str:
    """The text of the question that a conversation was opened with."""
    user = next(message for message in messages if message["role"] == "user")
    return "".join(part["text"] for part in user["content"] if part["type"] == "text")


def observation_message(observations: Sequence[Observation], first_view: int, *, system: CoordinateSystem) -> Message:
    """The user message that answers one assistant turn: for each look its image, then its text; or the error sentence.

    `first_view` is the number that the first crop gets in the conversation.
    """
    content: list[dict[str, Any]] = []
    number = first_view
    for observation in observations:
        if observation.view is None:
            content.append(_text(f"{observation.text if observation.error is None else observation.error}\n"))
            continue
        view, note = observation.view, f" {observation.note}" if observation.note else ""
        what = system.describe(view.shown_size) if view.tool is None else f"made by {view.tool}"
        content += [{"type": "image", "view": number}, _text(f"Image {number}, {what}.{note}\n")]
        number += 1
    content[-1]["text"] = content[-1]["text"].removesuffix("\n")
    return {"role": "user", "content": content}


def render(
    trajectory: Trajectory,
    *,
    system: CoordinateSystem,
    prompt: str | None = None,
    tools: Sequence[dict[str, Any]] = (),
) -> list[Message]:
    """The whole conversation of a trajectory; image `k` of it is `trajectory.views[k]`. The rest as for `opening`.

    Raises:
        ValueError: if the image was never shown.
    """
    if trajectory.overview is None:
        raise ValueError(f"sample {trajectory.sample.id} was never shown, so there is nothing to render")
    opened = opening(trajectory.sample, trajectory.overview, system=system, prompt=prompt, tools=tools)
    return opened + render_turns(trajectory.turns, first_view=1, system=system)


def render_turns(turns: Iterable[Turn], *, first_view: int, system: CoordinateSystem) -> list[Message]:
    """Assistant messages, literal, and the user messages with what each turn was shown."""
    messages: list[Message] = []
    for turn in turns:
        messages.append(assistant(turn.text))
        if turn.observations:
            messages.append(observation_message(turn.observations, first_view, system=system))
            first_view += sum(observation.view is not None for observation in turn.observations)
    return messages


def assistant(text: str) -> Message:
    """An assistant message, literal."""
    return {"role": "assistant", "content": [_text(text)]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
