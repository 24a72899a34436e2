"""Zooms distilled into one look: what a model reads in the overview, it learns to answer without a zoom.

The model's own plays from the overview alone say where the overview shows the answer: where they are right. They are read from a
file and not played before training: so the dry run shows every row, a server can play them ahead of any number of training
processes, and further runs use them again. It costs one more command, `cof eval --strategy direct`.

Vision-OPD (arXiv 2605.18740) draws the model that sees the whole image to itself seeing the crop, token by token. TRL 1.16
does not do that: its `DistillationTrainer` takes images, but teacher and student read the same prompt; the teacher of its
`SDFTTrainer` reads more text, but sees no images. So these rows are trained on like all others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

from cof_agent import scoring
from cof_agent.data.unusable import Tally
from cof_agent.errors import InputError
from cof_agent.trajectory import Answer, Sample, StopReason, Trajectory, is_look, read_jsonl

TRAJECTORIES = "trajectories.jsonl"
ONE_LOOK = "right, distilled into one look"
NOT_READ = "right, with zooms that the overview does not replace"
UNPLAYED = "right, with zooms, but without a play from the overview"
PLAIN = "right, without zooms"
KINDS = (ONE_LOOK, NOT_READ, UNPLAYED, PLAIN)

Question = tuple[str, int | None]
"""A sample's id, and the resolution that it was asked at."""


@dataclass
class Distillation:
    """What is distilled, as keys of a training's configuration."""

    distill: str | None = field(
        default=None,
        metadata={
            "metavar": "DIR",
            "help": "answer without a zoom what the model's own plays from the overview alone answer right; their file, or the "
            "folder of `cof eval --strategy direct` (default: keep all zooms)",
        },
    )
    distill_rate: float = field(
        default=0.5, metadata={"help": "least share of these plays of a question that must be right, above 0 to 1"}
    )


class Plays:
    """Plays from the overview alone, of the questions that trajectories answer with zooms.

    place: their file, or its folder. rate: the least share of a question's plays that must be right.

    Raises:
        InputError: if there are none, one was not from the overview alone, or the rate makes no sense.
    """

    def __init__(self, place: str, rate: float) -> None:
        if not 0 < rate <= 1:
            raise InputError(f"distill_rate must be above 0 and at most 1, not {rate:g}.")
        self._place, self._rate = place, rate
        self._plays: dict[Question, list[Trajectory]] = defaultdict(list)
        for play in _read(place):
            self._plays[_question(play)].append(play)
        self._looks: dict[Question, Iterator[Trajectory]] = {}

    def distilled(self, trajectories: Iterable[Trajectory], tally: Tally) -> list[Trajectory]:
        """The trajectories, but one look in place of those with zooms where the overview shows the answer. `tally` counts the
        kinds of those that are right; the others stay for whoever leaves them out.

        Raises:
            InputError: if a play is of another sample with the same id, or was told other things before the question.
        """
        tally.kinds.update(dict.fromkeys(KINDS, 0))
        found = []
        for trajectory in trajectories:
            kind, made = self._distilled(trajectory)
            tally.kinds.update([kind] if kind else [])
            found.append(made)
        return found

    def check(self, name: str) -> None:
        """Refuses plays that do not belong to the data of this name.

        Raises:
            InputError: if none is of a question that is answered there with zooms.
        """
        if not self._looks:
            raise InputError(
                f"{self._place} has no play of a question that {name} answers right with zooms at the same resolution."
            )

    def _distilled(self, trajectory: Trajectory) -> tuple[str | None, Trajectory]:
        if not is_right(trajectory):
            return None, trajectory
        if not any(is_look(action) for turn in trajectory.turns for action in turn.actions):
            return PLAIN, trajectory
        question = _question(trajectory)
        if question not in self._plays:
            return UNPLAYED, trajectory
        if question not in self._looks:
            self._looks[question] = cycle(self._read_off(trajectory, self._plays[question]))
        look = next(self._looks[question], None)
        return (NOT_READ, trajectory) if look is None else (ONE_LOOK, look)

    def _read_off(self, trajectory: Trajectory, plays: list[Trajectory]) -> list[Trajectory]:
        """The plays that read the answer off the overview, as one look, those that did so at once first; none if they are too
        few to be more than luck."""
        for play in plays:
            _check_same(trajectory, play, self._place)
        right = [play for play in plays if _answers(play) and _agrees(play, trajectory)]
        enough = len(right) >= self._rate * len(plays)
        found = sorted(right, key=lambda play: len(play.turns)) if enough else []
        return [replace(one_look(play), sample=trajectory.sample) for play in found]  # whose images may have been moved


def one_look(play: Trajectory) -> Trajectory:
    """A play from the overview alone as if it had answered at once: the words of its last turn, without the zooms that were
    refused before."""
    return replace(play, turns=play.turns[-1:])


def is_right(trajectory: Trajectory) -> bool:
    """Whether it is an example: it ends in an answer that is not known to be wrong."""
    ended = trajectory.error is None and trajectory.stop is StopReason.ANSWERED
    return ended and scoring.accuracy(trajectory) is not False


def _answers(play: Trajectory) -> bool:
    """Whether it ends in a turn that answers and asks for nothing."""
    return is_right(play) and all(isinstance(action, Answer) for action in play.turns[-1].actions)


def _agrees(play: Trajectory, trajectory: Trajectory) -> bool:
    """Whether the answer from the overview is right; where no answer is known, whether it is the one found with zooms."""
    if (right := scoring.accuracy(play)) is not None:
        return right
    sample = replace(play.sample, answers=(trajectory.answer or "",))
    return bool(scoring.accuracy(replace(play, sample=sample)))


def _question(trajectory: Trajectory) -> Question:
    return trajectory.sample.id, trajectory.resolution


def _read(place: str) -> list[Trajectory]:
    path = Path(place)
    found = list(read_jsonl(path / TRAJECTORIES if path.is_dir() else path, Trajectory))
    for play in found:
        if play.settings.get("max_zooms") != 0:
            raise InputError(f"{place} was played with zooms; play it from the overview alone: --strategy direct.")
    if played := [play for play in found if play.stop is not StopReason.ERROR]:
        return played
    raise InputError(f"{place} holds no plays to distill with.")


def _check_same(trajectory: Trajectory, play: Trajectory, place: str) -> None:
    """Refuses plays that were asked otherwise, or with other words before it: the model would learn to zoom by the prompt."""
    if _asked(trajectory.sample) != _asked(play.sample):
        raise InputError(f"{place} holds a play of another sample {play.sample.id!r}.")
    for name in ("prompt", "tools"):
        if (trajectory.settings.get(name) or None) != (play.settings.get(name) or None):
            raise InputError(f"{place} was played with another system prompt or other tools; play it with the same.")
    shown = [tuple(view.shown_size for view in one.overviews) for one in (trajectory, play)]
    if shown[0] != shown[1] or trajectory.dialect != play.dialect:
        raise InputError(
            f"{place} was played with overviews of another size, or in another dialect; play it with the same overview_pixels "
            "and dialect."
        )


def _asked(sample: Sample) -> tuple[object, ...]:
    names = tuple(Path(image).name for image in sample.images)
    return names, sample.question, sample.choices, sample.regions, sample.answers
