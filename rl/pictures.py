"""Rollouts in the trackers of a run, with their pictures: TensorBoard, trackio and wandb, every so many steps."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.image import open_source
from cof_agent.output.escape import for_terminal
from cof_agent.protocol import question_text
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.images import limit_of
from cof_agent.viewer.picture import annotate
from cof_agent.viewer.templates import cut

MOST = 4
"""Rollouts that are shown of a step."""
SIDE = 1000
"""Pixels on the long side of an overview in a picture."""
_LONGEST = 4000  # characters of one text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """One rollout as a tracker shows it. words: question, answer and rewards. spoken: all that the model wrote. Both are text
    of models and of data, without control characters, and are no Markdown."""

    picture: Image.Image
    words: str
    spoken: str


class RolloutPictures(TrainerCallback):
    """Shows rollouts of the latest generation after every `steps`-th step. They stand at the step of its figures.

    callbacks: those of the trainer. A tracker is asked through the run that transformers began in it.
    """

    def __init__(self, steps: int, callbacks: Sequence[TrainerCallback]) -> None:
        self._steps, self._callbacks = steps, callbacks
        self._played: list[Trajectory] = []

    def take(self, played: Sequence[Trajectory]) -> None:
        """What the generation under way played, with rewards, advantages and groups."""
        self._played = list(played)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._played or state.global_step % self._steps:
            return
        shown = [one for one in (_shown(each, state.global_step) for each in chosen(self._played)) if one is not None]
        self._played = []
        for tracker, show in _SHOW.items():
            for callback in self._callbacks:
                if isinstance(callback, INTEGRATION_TO_CALLBACK[tracker]):
                    show(callback, shown, state.global_step)


def chosen(played: Sequence[Trajectory]) -> list[Trajectory]:
    """The best and the worst rollout of the first groups that have a better and a worse one; of other groups the first."""
    groups = [list(group) for _, group in groupby(played, lambda one: one.group)]
    pairs = [sorted(group, key=lambda one: -(one.advantage or 0)) for group in groups]
    unequal = [(pair[0], pair[-1]) for pair in pairs if pair[0].advantage != pair[-1].advantage]
    equal = [(pair[0],) for pair in pairs if pair[0].advantage == pair[-1].advantage]
    return [one for some in (*unequal, *equal) for one in some][:MOST]


def _shown(trajectory: Trajectory, step: int) -> Shown | None:
    """None, and a warning, where there is no picture: training goes on without it."""
    try:
        sources = [open_source(path, max_source_pixels=limit_of([trajectory])) for path in trajectory.sample.images]
        picture = annotate(trajectory, *sources, long_side=SIDE)
    except (InputError, ValueError, OSError, MemoryError) as error:
        _log.warning("a rollout of sample %s has no picture: %s", trajectory.sample.id, error)
        return None
    spoken = "\n\n".join(
        f"turn {number}\n{cut(turn.text, _LONGEST)}" for number, turn in enumerate(trajectory.turns, 1)
    )
    return Shown(picture, words_of(trajectory, step), for_terminal(spoken, lines=True))


def words_of(trajectory: Trajectory, step: int) -> str:
    """What the picture is about, a line for each thing. group: as in `trajectories.jsonl`."""
    sample, right = trajectory.sample, scoring.accuracy(trajectory)
    verdict = {True: " (right)", False: " (wrong)", None: ""}[right]
    said = f"none ({trajectory.stop.value})" if trajectory.answer is None else f"{trajectory.answer}{verdict}"
    rewards = ", ".join(
        f"{name} {'-' if value is None else f'{value:.3g}'}" for name, value in trajectory.rewards.items()
    )
    lines = {
        "question": question_text(sample),
        "answer": said,
        "truth": " or ".join(sample.answers),
        "rewards": rewards,
        "advantage": "-" if trajectory.advantage is None else f"{trajectory.advantage:.3g}",
        "zooms": str(trajectory.zooms),
        "step": f"{step}, group {trajectory.group}, sample {sample.id}",
    }
    return "\n".join(f"{name}: {for_terminal(cut(text, _LONGEST), lines=True)}" for name, text in lines.items())


def fenced(text: str) -> str:
    """Markdown that shows the text as it is: a block of code whose fence is longer than any in the text."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}\n{text}\n{fence}"


def _tensorboard(callback: Any, shown: Sequence[Shown], step: int) -> None:
    writer = callback.tb_writer
    for place, one in enumerate(shown, 1):
        writer.add_image(f"rollouts/{place}", np.asarray(one.picture), step, dataformats="HWC")
        writer.add_text(f"rollouts/{place}", fenced(f"{one.words}\n\n{one.spoken}"), step)
    writer.flush()


def _trackio(_: Any, shown: Sequence[Shown], step: int) -> None:
    import trackio

    lines = [replace(one, words=one.words.replace("\n", " | ")) for one in shown]  # it shows no line breaks
    trackio.log(_media(trackio.Image, lines, step))


def _wandb(_: Any, shown: Sequence[Shown], step: int) -> None:
    import wandb

    wandb.log(_media(wandb.Image, shown, step))


def _media(image: Callable[..., Any], shown: Sequence[Shown], step: int) -> dict[str, Any]:
    """Entries of a log that has one dictionary a step. A list of pictures would want them to have one size."""
    pictures = {f"rollouts/{place}": image(one.picture, caption=one.words) for place, one in enumerate(shown, 1)}
    return {**pictures, "train/global_step": step}  # the step as transformers' own callbacks log it


_SHOW: dict[str, Callable[[Any, Sequence[Shown], int], None]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
