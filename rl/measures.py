"""Figures of a step's rollouts, as they are logged, and those that the progress shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from accelerate.utils import gather_object

from cof_agent import scoring
from cof_agent.training.progress import GRADIENT, PACE, RATE, Column
from cof_agent.trajectory import StopReason, Trajectory, from_json, to_json
from rl.rollout import Rollout

ACCURACY = "accuracy"


def columns(rewards: Iterable[str]) -> list[Column]:
    """Of the progress. rewards: names that the log has them under; accuracy is shown whether or not it is one."""
    others = [Column(name.rpartition(":")[2], f"rewards/{name}/mean", ".3f") for name in rewards if name != ACCURACY]
    return [
        Column("reward", "reward", ".3f"),
        Column(ACCURACY, ACCURACY, ".3f"),
        *others,
        Column("zooms", "zooms/mean", ".2f"),
        Column("length", "completions/mean_length", ".0f"),
        Column("kl", "kl", ".2g", 7),
        Column("ratio", "sampling/ratio/token", ".4f"),
        RATE,
        PACE,
        Column("entropy", "entropy", ".3f"),
        GRADIENT,
    ]


def gathered(rollouts: Sequence[Rollout]) -> tuple[list[Trajectory], int, dict[str, float]]:
    """What all processes played, its number of tokens, and its figures; the same on each process. Every process calls it."""
    lines = gather_object([to_json(one.trajectory) for one in rollouts])
    trajectories = [from_json(line, Trajectory) for line in lines]
    written = gather_object([sum(one.mask) for one in rollouts])
    read = gather_object([len(one.prompt) + len(one.completion) for one in rollouts])
    exhausted = gather_object([one.exhausted for one in rollouts])
    found = measures(trajectories) | {
        "exhausted": share(exhausted),
        "completions/mean_length": fmean(written),
        "completions/min_length": min(written),
        "completions/max_length": max(written),
    }
    return trajectories, sum(read), found


def measures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Figures of a step's rollouts: accuracy, in all and of those that did and did not zoom, zooms, malformed turns."""
    right = [bool(scoring.accuracy(one)) for one in trajectories]
    found = {
        "accuracy": share(right),
        "zooms/mean": sum(one.zooms for one in trajectories) / len(trajectories),
        "malformed": share([scoring.malformed(one) for one in trajectories]),
        "truncated": share([one.stop is StopReason.TRUNCATED for one in trajectories]),
    }
    for name, zoomed in (("direct", False), ("zoomed", True)):
        mine = [hit for hit, one in zip(right, trajectories, strict=True) if (one.zooms > 0) == zoomed]
        if mine:
            found[f"accuracy/{name}"] = share(mine)
    most = max(max(one.zooms, (one.settings or {}).get("max_zooms", 0)) for one in trajectories)
    for zooms in range(most + 1):  # also those that none has made: TRL averages what it is told
        found[f"zooms/{zooms}"] = share([one.zooms == zooms for one in trajectories])
    return found


def share(values: Sequence[bool]) -> float:
    """How many of them are true, from 0 to 1."""
    return sum(values) / len(values)
