"""Conversations as lists of messages: the opening, what the model wrote, and what it was shown for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cof_agent.geometry import CoordinateSystem, View
from cof_agent.protocol.dialects import Dialect, filled, ours
from cof_agent.protocol.prompt import options_text, system_prompt, tool_schema
from cof_agent.region_refs import located
from cof_agent.trajectory import Observation, Sample, Trajectory, Turn

Message = dict[str, Any]
"""`{"role": ..., "content": [{"type": "text", "text": ...} | {"type": "image", "view": k}]}`; `view` counts images. Where a
dialect hands its tools to the model as tools, the first message has their schemas as `tools`."""

IMAGE = "{image}"


def opening(
    sample: Sample,
    *overviews: View,
    system: CoordinateSystem,
    prompt: str | None = None,
    tools: Sequence[dict[str, Any]] = (),
    dialect: Dialect | None = None,
) -> list[Message]:
    """The system message and the user's question under the overviews, its regions as words and boxes.

    prompt: replaces the system message. tools: schemas of the tools beside the zoom.
    """
    spoken = dialect or ours()
    told = system_prompt(system, tools, images=len(overviews), dialect=spoken) if prompt is None else prompt
    messages = [{"role": "system", "content": [_text(told)]}] if told or prompt is not None else []
    messages.append({"role": "user", "content": _question(sample, overviews, system, spoken)})
    if spoken.opening.tools == "native":
        messages[0] = {**messages[0], "tools": [tool_schema(system, spoken), *tools]}
    return messages


def _question(
    sample: Sample, overviews: Sequence[View], system: CoordinateSystem, dialect: Dialect
) -> list[dict[str, Any]]:
    """The question as parts of a message."""
    shown = overviews[0].shown_size
    values = {**question_of(sample, overviews, system, dialect), "width": shown.width, "height": shown.height}
    content: list[dict[str, Any]] = []
    for part in dialect.opening.choosing if sample.choices else dialect.opening.user:
        for position, text in enumerate(dialect.expanded(part).split(IMAGE)):
            if position:
                content += _pictures(overviews, system, dialect)
            if text:
                content.append(_text(filled(text, values)))
    return content


def question_of(
    sample: Sample, overviews: Sequence[View], system: CoordinateSystem, dialect: Dialect
) -> dict[str, str]:
    """What stands for `{question}` and `{options}`; the regions that they name are put into words before anything else."""
    texts = {"question": sample.question, "options": options_text(sample.choices, dialect)}
    return {name: plainly(located(text, sample.regions, overviews[0], system)) for name, text in texts.items()}


def _pictures(overviews: Sequence[View], system: CoordinateSystem, dialect: Dialect) -> list[dict[str, Any]]:
    """The overviews as parts of a message. One alone needs no label."""
    if len(overviews) == 1:
        return [{"type": "image", "view": 0}]
    content: list[dict[str, Any]] = []
    for number, view in enumerate(overviews):
        values = {"place": number + 1, "count": len(overviews), **_of_view(view, number, system, dialect)}
        content += _filled(dialect.opening.several, values, number, dialect)
    return content


def plainly(text: str) -> str:
    """A text from outside, in which no control token of a model (such as the end of a turn) can be read as one: an invisible mark
    stands behind its first character."""
    return _CONTROL.sub(f"<{_INVISIBLE}|", text)


_CONTROL = re.compile(r"<\|(?=[^\s<>|]{1,60}\|>)")
_INVISIBLE = "\u2060"  # WORD JOINER


def asked(messages: Sequence[Message]) -> str:
    """The text of the question that a conversation was opened with."""
    user = next(message for message in messages if message["role"] == "user")
    return str(next(part["text"] for part in reversed(user["content"]) if part["type"] == "text"))


def observation_messages(
    observations: Sequence[Observation],
    first_view: int,
    *,
    system: CoordinateSystem,
    dialect: Dialect | None = None,
    turn: int = 1,
    first_crop: int = 1,
    question: Mapping[str, str] | None = None,
) -> list[Message]:
    """What answers one assistant turn, for each look its image and words, or the error sentence: one message, or as a tool one
    for each look.

    `first_view` is the number that the first crop gets in the conversation, from 0; first_crop: its number among the crops,
    turn: of the answered message, both from 1. question: as `question_of` gives it, for dialects that repeat the question.
    """
    spoken = dialect or ours()
    replies: list[list[dict[str, Any]]] = []
    number = first_view
    for observation in observations:
        values = {**(question or {}), "turn": turn, "before": turn - 1, "zoom": first_crop + number - first_view}
        replies.append(_reply(observation, values, number, system, spoken))
        number += observation.view is not None
    if spoken.reply.role == "user":
        *before, last = replies
        between = spoken.expanded(spoken.reply.between)
        replies = [[*(part for parts in before for part in _ended(parts, between)), *last]]
    return [{"role": spoken.reply.role, "content": content} for content in replies]


def is_result(message: Message) -> bool:
    """Whether the words of a message say that they are the result of a tool."""
    return str(message["content"][0].get("text", "")).lstrip().startswith("<tool_response>")


def _ended(parts: list[dict[str, Any]], end: str) -> list[dict[str, Any]]:
    """Parts of a message with `end` behind the last one."""
    if parts[-1]["type"] == "image":
        return [*parts, _text(end)]
    return [*parts[:-1], _text(parts[-1]["text"] + end)]


def _reply(
    observation: Observation, values: Mapping[str, Any], number: int, system: CoordinateSystem, dialect: Dialect
) -> list[dict[str, Any]]:
    """What one look brought, as parts of a message."""
    reply, view = dialect.reply, observation.view
    if view is None:
        parts = reply.text if observation.error is None else reply.error
        said = {"text": plainly(observation.text or ""), "error": plainly(observation.error or "")}
        return _filled(parts, {**values, **said}, number, dialect)
    note = f" {observation.note}" if observation.note else ""
    known = {**values, "note": note, **_of_view(view, number, system, dialect)}
    return _filled(reply.parts, known, number, dialect)


def _of_view(view: View, number: int, system: CoordinateSystem, dialect: Dialect) -> dict[str, Any]:
    frame = system.describe(view.shown_size) if view.tool is None else f"made by {view.tool}"
    size = {"width": view.shown_size.width, "height": view.shown_size.height}
    return {"number": number + dialect.call.counts_from, "frame": frame, **size}


def _filled(parts: Iterable[str], values: Mapping[str, Any], number: int, dialect: Dialect) -> list[dict[str, Any]]:
    """Parts of a dialect as parts of a message; `{image}` in them is image `number`."""
    content: list[dict[str, Any]] = []
    for part in parts:
        for position, text in enumerate(dialect.expanded(part).split(IMAGE)):
            if position:
                content.append({"type": "image", "view": number})
            if text:
                content.append(_text(filled(text, values)))
    return content


def render(
    trajectory: Trajectory,
    *,
    system: CoordinateSystem,
    prompt: str | None = None,
    tools: Sequence[dict[str, Any]] = (),
    dialect: Dialect | None = None,
) -> list[Message]:
    """The whole conversation of a trajectory; image `k` of it is `trajectory.views[k]`. The rest as for `opening`.

    Raises:
        ValueError: if its images were never shown.
    """
    if trajectory.overview is None:
        raise ValueError(f"sample {trajectory.sample.id} was never shown, so there is nothing to render")
    overviews = trajectory.overviews
    opened = opening(trajectory.sample, *overviews, system=system, prompt=prompt, tools=tools, dialect=dialect)
    question = question_of(trajectory.sample, overviews, system, dialect or ours())
    first = len(overviews)
    return opened + render_turns(trajectory.turns, first_view=first, system=system, dialect=dialect, question=question)


def render_turns(
    turns: Iterable[Turn],
    *,
    first_view: int,
    system: CoordinateSystem,
    dialect: Dialect | None = None,
    question: Mapping[str, str] | None = None,
) -> list[Message]:
    """Assistant messages, literal, and the messages with what each turn was shown; question: as for `observation_messages`."""
    messages: list[Message] = []
    crop = 1
    for number, turn in enumerate(turns, 1):
        messages.append(assistant(turn.text))
        if turn.observations:
            seen = sum(observation.view is not None for observation in turn.observations)
            messages += observation_messages(
                turn.observations,
                first_view,
                system=system,
                dialect=dialect,
                turn=number,
                first_crop=crop,
                question=question,
            )
            first_view, crop = first_view + seen, crop + seen
    return messages


def assistant(text: str) -> Message:
    """An assistant message, literal."""
    return {"role": "assistant", "content": [_text(text)]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
