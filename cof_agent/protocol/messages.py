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
    *overviews: View,
    system: CoordinateSystem,
    prompt: str | None = None,
    tools: Sequence[dict[str, Any]] = (),
) -> list[Message]:
    """The system message and the user's question under the overview, its regions as words and boxes. Of several overviews,
    each is followed by its number and size.

    prompt: replaces the system message. tools: schemas of the tools beside the zoom.
    """
    question = located(question_text(sample), sample.regions, overviews[0], system)
    told = system_prompt(system, tools, images=len(overviews)) if prompt is None else prompt
    return [
        {"role": "system", "content": [_text(told)]},
        {"role": "user", "content": [*_pictures(overviews, system), _text(question)]},
    ]


def _pictures(overviews: Sequence[View], system: CoordinateSystem) -> list[dict[str, Any]]:
    """The overviews as parts of a message. One alone needs no label; of several, people count from 1, calls from 0."""
    if len(overviews) == 1:
        return [{"type": "image", "view": 0}]
    parts: list[dict[str, Any]] = []
    for number, view in enumerate(overviews):
        label = f"Image {number}, picture {number + 1} of {len(overviews)}, {system.describe(view.shown_size)}.\n"
        parts += [{"type": "image", "view": number}, _text(label)]
    return parts


def asked(messages: Sequence[Message]) -> str:
    """The text of the question that a conversation was opened with."""
    user = next(message for message in messages if message["role"] == "user")
    return str(user["content"][-1]["text"])


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
        ValueError: if its images were never shown.
    """
    if trajectory.overview is None:
        raise ValueError(f"sample {trajectory.sample.id} was never shown, so there is nothing to render")
    overviews = trajectory.overviews
    opened = opening(trajectory.sample, *overviews, system=system, prompt=prompt, tools=tools)
    return opened + render_turns(trajectory.turns, first_view=len(overviews), system=system)


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
