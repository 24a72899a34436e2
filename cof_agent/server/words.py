"""What happens in a conversation, as text and as plain values: for clients that know nothing of trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cof_agent.geometry import View
from cof_agent.graphs.steps import Event, Looked, Saw, Spoke
from cof_agent.protocol import thought
from cof_agent.trajectory import Observation, StopReason, Tokens, Trajectory, Turn

ENDED = {
    StopReason.MAX_ZOOMS: "No answer: all zooms were spent, and the model asked for more.",
    StopReason.TRUNCATED: "No answer: a turn ran into the limit of tokens before it came to an action.",
    StopReason.MALFORMED: "No answer: the model wrote neither a zoom nor an answer that can be read.",
}


def lines_of(event: Event) -> list[str]:
    """What an event says to a reader, in lines of plain text."""
    match event:
        case Looked(overviews=overviews):
            return [f"Overview: {view.source_size} pixels, shown at {view.shown_size}." for view in overviews]
        case Spoke(thought=text):
            return [text] if text else []
        case Saw(observations=observations):
            return [_seen(one) for one in observations]


def _seen(observation: Observation) -> str:
    if (view := observation.view) is None:
        return observation.text or f"Refused: {observation.error}"
    made = "Zoom" if view.tool is None else view.tool
    of = f" of image {view.source}" if view.source else ""
    edges = ", ".join(map(str, view.region.pixels()))
    return f"{made} to [{edges}]{of}, shown at {view.shown_size}."


def zooms_of(turns: Iterable[Turn]) -> Iterator[dict[str, Any]]:
    """Every view that the turns brought, numbered from 1."""
    views = ((one.view, turn) for turn in turns for one in turn.observations if one.view is not None)
    for number, (view, turn) in enumerate(views, 1):
        yield zoom(view, number, thought(turn.text))


def zoom(view: View, number: int, text: str) -> dict[str, Any]:
    """One view: its box in source pixels of image `image`, counted from 0, how large it was shown, and what the model said."""
    return {
        "number": number,
        "image": view.source,
        "box": list(view.region.pixels()),
        "source_size": [view.source_size.width, view.source_size.height],
        "shown_size": [view.shown_size.width, view.shown_size.height],
        "thought": text,
        **({} if view.tool is None else {"tool": view.tool}),
    }


def usage_of(trajectory: Trajectory) -> dict[str, int] | None:
    """Tokens of all turns together; None where a turn does not know."""
    total = sum((turn.tokens for turn in trajectory.turns), Tokens(0, 0))
    if total.prompt is None or total.completion is None:
        return None
    together = total.prompt + total.completion
    return {"prompt_tokens": total.prompt, "completion_tokens": total.completion, "total_tokens": together}
