"""Rewards: thin adapters over `cof_agent.scoring`, which the evaluation uses too. What cannot be scored is None, never 0.

Each takes what TRL hands to a reward function; only the trajectories matter. They are chosen and weighted by name in a
run's configuration.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.geometry import Box, BoxError, CoordinateSystem, clip_to_view, read_box
from cof_agent.plugins import check_takes_one, is_plugin, load_function
from cof_agent.scoring.boxes import iou
from cof_agent.trajectory import Answer, Trajectory, Zoom, is_look

if TYPE_CHECKING:
    from torch import Tensor

    from cof_agent.evaluation.judge import Judge

Reward = Callable[..., list[float | None]]

DELTA, GAMMA = 0.2, 0.1  # Chain-of-Focus, arXiv 2505.15436
JUDGE = "judge"  # the name of the one reward that needs more than the trajectory


def scored(score: Callable[[Trajectory], float | None], name: str) -> Reward:
    """The reward function of a score of one trajectory."""

    def reward(*, trajectory: Sequence[Trajectory], **_: Any) -> list[float | None]:
        return [_number(score(one), name) for one in trajectory]

    reward.__name__ = name
    return reward


def _number(found: Any, name: str) -> float | None:
    """What a score returned; NaN is how some say that there is none.

    Raises:
        InputError: if it is no number.
    """
    try:
        number = math.nan if found is None else float(found)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise InputError(
            f"the reward {name} returned {found!r}; it takes one trajectory and returns a number, or None."
        )
    return None if math.isnan(number) else number


def box_iou(trajectory: Trajectory) -> float | None:
    """The mean over the sample's boxes of the best overlap (intersection over union) that the box of a zoom has with it, as the
    model wrote it; None for a sample without boxes."""
    if not trajectory.sample.boxes:
        return None
    asked = _asked(trajectory)
    best = [max((iou(box, one) for one in asked), default=0.0) for box in trajectory.sample.boxes]
    return sum(best) / len(best)


def zoom_cost_if_right(trajectory: Trajectory) -> float | None:
    """Minus 1 for each zoom of a right answer, 0 for a wrong one: where nothing helped, zooming is not punished. (Conditional on
    the right answer, as the decoupled conditional advantage of arXiv 2602.02099 is for lengths.)"""
    correct = scoring.accuracy(trajectory)
    if correct is None:
        return None
    return -float(trajectory.zooms) if correct else 0.0


def _asked(trajectory: Trajectory) -> list[Box]:
    """The boxes of the zooms that were carried out, in source pixels; others cost the model nothing, and could be many."""
    views, system = trajectory.views, CoordinateSystem(trajectory.settings["system"])
    found = []
    for turn in trajectory.turns:
        acted = [action for action in turn.actions if not isinstance(action, Answer)]
        # Fewer observations than actions: what comes after the first one beyond a limit brings none.
        for action, seen in zip(acted, turn.observations, strict=False):
            if not isinstance(action, Zoom) or seen.view is None or seen.view.source:  # boxes lie in the first image
                continue
            view = views[action.image]
            try:
                found.append(view.to_source(clip_to_view(read_box(action.box, system), view, system), system))
            except BoxError:  # of a dialect that shows something all the same
                continue
    return found


class Outcome(NamedTuple):
    """What a group's rewards need to know of a rollout."""

    correct: bool | None
    zooms: int
    formed: bool
    asked: bool
    """Whether it asked to be shown something, whatever came of it."""


Rule = Callable[[Outcome, Sequence[Outcome]], float]
"""The reward of a rollout among those of its group."""


def adaptive_paper(one: Outcome, group: Sequence[Outcome]) -> float:
    """The adaptive group-aware reward as the paper writes it: zooming where a look would have done costs `DELTA`, a wrong
    answer in the right form brings `GAMMA`."""
    if not one.correct:
        return GAMMA * one.formed
    return 1.0 if not one.zooms else 1.0 - DELTA * any(other.correct and not other.zooms for other in group)


def adaptive_released(one: Outcome, group: Sequence[Outcome]) -> float:
    """The same as in the released code, which pays for looking closely even where it did not help. It counts the calls that were
    written, also those that were refused."""
    if one.correct:
        direct = any(other.correct and not other.asked for other in group)
        return 0.8 if one.asked and direct else 1.0
    return 0.5 if one.asked else 0.1 * one.formed


def zoom_cost_by_success(one: Outcome, group: Sequence[Outcome]) -> float:
    """Minus the group's share of right answers for each zoom of a right answer, 0 for a wrong one: the harder a question is, the
    less a zoom costs. (The idea that cost counts only as far as answers succeed: arXiv 2604.08545.)"""
    return -float(one.zooms) * sum(bool(other.correct) for other in group) / len(group) if one.correct else 0.0


def in_groups(rule: Rule, size: int, name: str) -> Reward:
    """A reward function of `rule` for groups of `size` rollouts, which follow each other over all processes.

    A group may be divided between processes, so each of them learns of all rollouts.
    """

    from accelerate.utils import gather_object

    def reward(*, trajectory: Sequence[Trajectory], **_: Any) -> list[float | None]:
        mine = [_outcome(one) for one in trajectory]
        everyone = gather_object([(len(mine), mine)])  # in the order of the processes
        flat = [entry for _, part in everyone for entry in part]
        start = _start(everyone, mine)
        found: list[float | None] = []
        for index in range(start, start + len(mine)):
            first = index // size * size
            one, group = flat[index], flat[first : first + size]
            found.append(None if one.correct is None else rule(one, group))
        return found

    reward.__name__ = name
    return reward


def _outcome(one: Trajectory) -> Outcome:
    asked = any(is_look(action) for turn in one.turns for action in turn.actions)
    return Outcome(scoring.accuracy(one), one.zooms, scoring.well_formed(one), asked)


def _start(everyone: Sequence[tuple[int, Any]], mine: Sequence[Any]) -> int:
    """Where this process's rollouts stand among those of all."""
    from accelerate import PartialState

    rank = PartialState().process_index
    assert everyone[rank][0] == len(mine)
    return sum(count for count, _ in everyone[:rank])


def judged(judge: Judge) -> Reward:
    """1 if the judge calls the answer right, 0 if it calls it wrong, None if it gave no verdict; the metric `judge/failures`
    counts those. Each process judges its own rollouts."""
    from accelerate import PartialState

    def reward(
        *, trajectory: Sequence[Trajectory], log_metric: Callable[[str, float], None] | None = None, **_: Any
    ) -> list[float | None]:
        before = judge.failures
        verdicts = judge.verdicts(trajectory)
        if log_metric is not None:
            # A process's share of the sum over all: TRL logs a mean over them.
            log_metric("judge/failures", (judge.failures - before) * PartialState().num_processes)
        return [None if right is None else float(right) for right in verdicts]

    reward.__name__ = JUDGE
    return reward


def by_name(name: str, group: int, judge: Judge | None = None) -> Reward:
    """The reward function that a configuration calls `name`, or the user's own, named as `module:function`.

    judge: what `judge` asks; no other reward needs one.

    Raises:
        InputError: if the user's function cannot be found.
        KeyError: if there is no reward of this name.
    """
    if is_plugin(name):
        return scored(load_function(name, "reward"), name)
    if name == JUDGE and judge is not None:
        return judged(judge)
    if name in _IN_GROUPS:
        return in_groups(_IN_GROUPS[name], group, name)
    return scored(_PLAIN[name], name)


_PLAIN: dict[str, Callable[[Trajectory], float | None]] = {
    "accuracy": scoring.accuracy,
    "number": scoring.number,
    "anls": scoring.anls,
    "choice": scoring.choice,
    "format": scoring.well_formed,
    "zoom_cost": lambda one: -one.zooms,
    "zoom_cost_if_right": zoom_cost_if_right,
    "box_iou": box_iou,
}
_IN_GROUPS: dict[str, Rule] = {
    "adaptive_paper": adaptive_paper,
    "adaptive_released": adaptive_released,
    "zoom_cost_by_success": zoom_cost_by_success,
}
NAMES = (*_PLAIN, *_IN_GROUPS, JUDGE)
NEED_MORE = (*_IN_GROUPS, JUDGE)
"""Rewards that need more than one trajectory."""
_OF_TRL = ("prompts", "completions", "completion_ids")
"""What a reward that is written for TRL calls its first parameter."""


def check_name(name: str) -> None:
    """Raises:
    InputError: if there is no reward of this name, or the function that it names cannot be loaded.
    """
    if is_plugin(name):
        function = load_function(name, "reward")
        if (first := _first_parameter(function)) in _OF_TRL:
            raise InputError(
                f"the reward {name} is written for TRL, which hands it lists ({first}); here a reward takes one Trajectory and "
                "returns a number, or None: see rl/README.md."
            )
        check_takes_one(function, f"the reward {name}", "a trajectory")
    elif name not in NAMES:
        raise InputError(
            f"there is no reward {name}; the rewards are {', '.join(NAMES)}, or module:function for your own."
        )


def _first_parameter(function: Callable[..., Any]) -> str:
    try:
        return next(iter(inspect.signature(function).parameters), "")
    except ValueError:  # of functions in C, which say nothing of themselves
        return ""


def neutral(rewards: Tensor, size: int) -> Tensor:
    """Rewards, [rollouts of whole groups, rewards], with the mean of its group in place of each that is NaN: a judge that failed
    speaks neither for nor against an answer, and other rollouts keep theirs. NaN stays where a whole group has none, and in a
    rollout without any reward, which TRL leaves out of the group's mean and deviation.

    TRL adds up what is there, so that no reward would count as 0. Its `normalize_then_sum` has the same effect by itself.
    """
    groups = rewards.view(-1, size, rewards.shape[1])
    kept = ~groups.isnan() | groups.isnan().all(2, keepdim=True)
    return groups.where(kept, groups.nanmean(1, keepdim=True)).view_as(rewards)


def total(rewards: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted sum of a rollout's rewards, as TRL's: without those that are None; None if all of them are."""
    known = [weight * reward for weight, reward in zip(weights, rewards, strict=True) if reward is not None]
    return sum(known) if known else None
