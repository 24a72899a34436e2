"""What the turns of a trajectory are scored for beside the answer: the format, and where the zooms point."""

from __future__ import annotations

from collections.abc import Sequence

from cof_agent import protocol
from cof_agent.geometry import Box
from cof_agent.protocol.dialects import dialect_of
from cof_agent.trajectory import Malformed, Trajectory, Turn, Use

HIT_COVERAGE = 0.5  # of the target's area that a crop must take in


def well_formed(trajectory: Trajectory) -> bool:
    """The format reward's condition: every turn has exactly the form of its dialect, and the last one answers.

    Raises:
        InputError: if the record does not hold its dialect.
    """
    if not trajectory.turns or trajectory.answer is None:
        return False
    dialect = dialect_of(trajectory)
    return all(protocol.well_formed(turn.text, _tools(turn), dialect) for turn in trajectory.turns)


def _tools(turn: Turn) -> set[str]:
    """The tools beside the zoom that a turn uses; a call of one that is not there was recorded as malformed."""
    return {action.tool for action in turn.actions if isinstance(action, Use)}


def malformed(trajectory: Trajectory) -> bool:
    """Whether any turn held something that is no action."""
    return any(isinstance(action, Malformed) for turn in trajectory.turns for action in turn.actions)


def target_hits(trajectory: Trajectory) -> bool | None:
    """Whether the crops take in every target box; None where there is no target or no zoom was made.

    Targets lie in the first image. A target counts as taken in when one crop covers at least half of its area.
    """
    targets = trajectory.sample.boxes
    crops = [view.region for view in trajectory.crops if view.source == 0]
    if not targets or not trajectory.crops:
        return None
    return all(_covered(target, crops) for target in targets)


def _covered(target: Box, crops: Sequence[Box]) -> bool:
    return any(crop.coverage(target) >= HIT_COVERAGE for crop in crops)
