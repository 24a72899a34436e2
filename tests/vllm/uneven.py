"""A reward for random weights, whose answers are never right."""

from __future__ import annotations

from cof_agent.trajectory import Trajectory


def words(trajectory: Trajectory) -> float:
    """How much was written, in hundreds of characters: differs within a group, so that there is something to learn."""
    return sum(len(turn.text) for turn in trajectory.turns) / 100
