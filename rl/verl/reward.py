"""Our rewards as a `custom_reward_function` of verl: `path: pkg://rl.verl.reward`, `name: compute_score`.

verl scores each rollout by itself, so rewards that compare those of a group cannot be had here; nor the judge, in place of which
verl has reward models of its own.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.trajectory import JsonlAppender, StopReason, Trajectory, from_json
from rl.rewards import NEED_MORE, Reward, by_name, check_name, total

DEFAULT = ("accuracy", "format")


def compute_score(
    *,
    extra_info: Mapping[str, Any],
    rewards: Sequence[str] = DEFAULT,
    reward_weights: Sequence[float] | None = None,
    record: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """The `score` of a rollout that `rl.verl.agent_loop` played: the weighted sum of its rewards. Beside it what verl logs: each
    reward by name (NaN for one that could not be scored), and figures of the conversation.

    rewards, reward_weights: from `reward_kwargs`, as the settings of these names in `rl.settings`. record: a folder in which each
    worker appends what it scored to a file of its own, for `cof view`.

    Raises:
        InputError: as `functions_of`, or if nothing could be scored.
    """
    functions, weights = functions_of(tuple(rewards), None if reward_weights is None else tuple(reward_weights))
    played = from_json(extra_info["trajectory"], Trajectory)
    found = [function(trajectory=[played])[0] for function in functions]
    score = total(found, weights)
    if score is None:
        raise InputError(f"nothing can be scored of sample {played.sample.id}; verl has no rollouts without a score.")
    if record is not None:
        _keep(
            Path(record),
            replace(played, step=extra_info.get("max_global_steps"), rewards=dict(zip(rewards, found, strict=True))),
        )
    named = {name: math.nan if value is None else value for name, value in zip(rewards, found, strict=True)}
    return {"score": score, **named, **_figures(played)}


@lru_cache(maxsize=4)
def functions_of(
    rewards: tuple[str, ...] = DEFAULT, reward_weights: tuple[float, ...] | None = None
) -> tuple[list[Reward], list[float]]:
    """The reward functions of these names, and their weights.

    Raises:
        InputError: if a reward is unknown or needs the whole group, or the weights are not as many.
    """
    for name in rewards:
        if name in NEED_MORE:
            raise InputError(
                f"the reward {name} needs more than one rollout, and verl scores each by itself; leave it out."
            )
        check_name(name)
    weights = [1.0] * len(rewards) if reward_weights is None else list(reward_weights)
    if len(weights) != len(rewards):
        raise InputError(f"reward_weights must be one for each of {', '.join(rewards)}; there are {len(weights)}.")
    return [by_name(name, 1) for name in rewards], weights


_WRITING = threading.Lock()  # verl scores in threads


def _keep(folder: Path, scored: Trajectory) -> None:
    with _WRITING:
        _file_of(folder).append(scored)


@lru_cache(maxsize=1)
def _file_of(folder: Path) -> JsonlAppender:
    """This process's file, which stays open: its lock keeps others out."""
    return JsonlAppender(folder / f"trajectories-{socket.gethostname()}-{os.getpid()}.jsonl")


def _figures(played: Trajectory) -> dict[str, float]:
    """What `rl.trainer` logs of a rollout too; `acc` is what verl compares validations by."""
    return {
        "acc": float(bool(scoring.accuracy(played))),
        "zooms": float(played.zooms),
        "malformed": float(scoring.malformed(played)),
        "truncated": float(played.stop is StopReason.TRUNCATED),
    }
