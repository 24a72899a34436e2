"""The record of a run's rollouts, for `cof view`: `trajectories.jsonl` in its output folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import JsonlAppender, Trajectory, read_jsonl, to_json
from rl.generation import Generation

NAME = "trajectories.jsonl"


def scored(
    generation: Generation,
    played: Sequence[Trajectory],
    rewards: Mapping[str, Sequence[float]],
    advantages: Sequence[float],
) -> list[Trajectory]:
    """What all processes played, with what it was scored as. rewards: by name, NaN without a score."""
    return [
        replace(
            trajectory,
            step=generation.step,
            rewards={name: _unless_nan(values[place]) for name, values in rewards.items()},
            advantage=advantages[place],
            group=f"{generation.name}-{place // generation.size}",
        )
        for place, trajectory in enumerate(played)
    ]


def append(path: Path, played: Sequence[Trajectory]) -> None:
    """Adds what was played, once it is scored."""
    with JsonlAppender(path) as file:
        for trajectory in played:
            file.append(trajectory)


def check_own(output: Path) -> None:
    """Refuses a folder whose record is not one of RL, which could go on with it.

    Raises:
        InputError: if another command wrote it.
    """
    path = output / NAME
    if path.exists() and path.stat().st_size and not (output / "run.json").exists():
        raise InputError(f"{path} was written by another command; name another output_dir.")


def forget_after(path: Path, step: int) -> None:
    """Takes out the rollouts of `step` and later, which an interrupted run played and will play again."""
    if path.exists():
        kept = [to_json(one) + "\n" for one in read_jsonl(path, Trajectory) if (one.step or 0) < step]
        write_atomic(path, "".join(kept))


def _unless_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
