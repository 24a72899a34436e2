"""Recorded trajectories in words again, whatever wire format they were held in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, settings_of
from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.protocol.dialects import Dialect, dialect_of
from cof_agent.strategies.spot import protocol as spot
from cof_agent.trajectory import Action, Trajectory, Turn

Move = Callable[[Sequence[Any], int], Box]
"""A box as the model wrote it, in the image of this number, as a box in other coordinates."""


@dataclass(frozen=True, slots=True)
class Format:
    """A wire format. system: what its boxes mean, where the format says that and not the model.

    render: the conversation of a trajectory. rewrite: the words and actions of a turn whose box is moved, given the new
    overview, the dialect that it was written in and the one that it is to be written in; raises ValueError if it cannot be
    rewritten.
    """

    render: Callable[[Trajectory], list[protocol.Message]]
    rewrite: Callable[[Turn, Move, View, Dialect, Dialect], tuple[str, tuple[Action, ...]]]
    system: CoordinateSystem | None = None


def format_of(trajectory: Trajectory) -> Format:
    """The wire format that a trajectory was held in."""
    return _FORMATS.get(trajectory.protocol_version, _AGENT)


def messages_of(trajectory: Trajectory) -> list[protocol.Message]:
    """The conversation as it was held, under the system prompt that it was held with.

    Raises:
        InputError: if the record does not say with which settings it was made.
        ValueError: if the image was never shown.
    """
    return format_of(trajectory).render(trajectory)


def _render(trajectory: Trajectory) -> list[protocol.Message]:
    settings = settings_of(trajectory)
    tools = ZoomEnvironment(settings).tool_schemas
    prompt, dialect = trajectory.settings.get("prompt"), dialect_of(trajectory)
    return protocol.render(trajectory, system=settings.system, prompt=prompt, tools=tools, dialect=dialect)


def _rewrite(turn: Turn, move: Move, overview: View, dialect: Dialect, into: Dialect) -> tuple[str, tuple[Action, ...]]:
    text = protocol.rewrite(turn, move, dialect, into)
    return text, protocol.parse(text, dialect=into)


_AGENT = Format(_render, _rewrite)
_FORMATS = {spot.VERSION: Format(spot.render, spot.rewrite, spot.SYSTEM)}
"""Other formats than the agent's, by `protocol_version`."""
