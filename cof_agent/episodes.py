"""What is played: samples, each at one or several resolutions, once or several times."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from cof_agent.errors import InputError
from cof_agent.trajectory import Key, Sample, Trajectory, to_json

RESOLUTION, QUESTION = "resolution", "question"
"""Keys of the metadata of samples whose picture was drawn at several sizes (`cof scenes --resolutions`): the long side of this
one in source pixels, and the id that they share."""

CYCLE_OF = "cycle_of"
"""Key of the metadata of a question that is asked several times, its options rotated: the id of the first of these."""

PART_OF = "part_of"
"""Key of the metadata of a benchmark's question whose authors average over parts, not over questions: the names of the part, and
of the part within it."""


class Resolutions(tuple[int, ...]):
    """Long sides of overviews in shown pixels: numbers, or a text such as 448,1024. Where one is drawn for each sample, what is
    named twice is drawn twice as often.

    Raises:
        InputError: if they are not whole numbers from 10 to 99999.
    """

    def __new__(cls, given: str | Iterable[int] = ()) -> Resolutions:
        text = given if isinstance(given, str) else ",".join(str(one) for one in given)
        found = [int(part) for part in text.split(",")] if re.fullmatch(r"\d{2,5}(,\d{2,5})*", text) else []
        if text and not found:
            raise InputError(f"resolutions are pixels with commas between, as in 448,1024, not {text!r}.")
        return super().__new__(cls, found)

    def __str__(self) -> str:
        return ",".join(str(one) for one in self)


@dataclass(frozen=True, slots=True)
class Episode:
    """One play of a sample; the fields are those of the `Trajectory` that it becomes."""

    sample: Sample
    resolution: int | None = None
    play: int | None = None
    shuffle_seed: int | None = None

    @property
    def key(self) -> Key:
        """What tells it from the other episodes of its run."""
        return self.sample.id, self.resolution, self.play


def episodes(
    samples: Iterable[Sample],
    *,
    resolutions: Sequence[int] = (),
    plays: int = 1,
    shuffle_seed: int | None = None,
) -> list[Episode]:
    """Each sample at each resolution, so many times; all of one image follow each other.

    resolutions: long sides of the overview in shown pixels; none for the model's own limit. plays: numbered from 1 where
    there are several.

    Raises:
        InputError: if a picture was drawn at several sizes already.
    """
    samples = list(samples)
    if resolutions:
        for sample in samples:
            if QUESTION in sample.metadata:
                raise InputError(
                    f"the picture of {sample.id!r} was drawn at several sizes already, so it cannot be asked about at "
                    "others; leave --resolutions out."
                )
    numbers: Sequence[int | None] = range(1, plays + 1) if plays > 1 else (None,)
    return [
        Episode(sample, resolution, play, shuffle_seed)
        for sample in samples
        for resolution in resolutions or (None,)
        for play in numbers
    ]


def drawn(samples: Iterable[Sample], resolutions: Sequence[int], seed: int) -> list[Episode]:
    """Each sample at one of the resolutions, drawn by its id and the seed; without resolutions at the model's own limit."""
    if not resolutions:
        return episodes(samples)
    return [Episode(sample, Random(f"resolution:{seed}:{sample.id}").choice(list(resolutions))) for sample in samples]


def question_of(sample: Sample) -> str:
    """The id of the question that a sample asks, at whatever size its picture was drawn, in whatever order its options stand."""
    return str(sample.metadata.get(QUESTION, sample.metadata.get(CYCLE_OF, sample.id)))


def chosen_resolution(trajectory: Trajectory) -> int | None:
    """The long side, in pixels, at which the picture was asked about or drawn, where somebody chose it."""
    if trajectory.resolution is not None:
        return trajectory.resolution
    return side if isinstance(side := trajectory.sample.metadata.get(RESOLUTION), int) else None


def resolution_of(trajectory: Trajectory) -> int | None:
    """As `chosen_resolution`; else the long side of the source, in pixels, the longest of several; None where it was never
    opened."""
    if (side := chosen_resolution(trajectory)) is not None:
        return side
    return max((view.source_size.long_side for view in trajectory.overviews), default=None)


def by_key(wanted: Iterable[Episode]) -> dict[Key, Episode]:
    """The episodes by their keys, in their order.

    Raises:
        InputError: if two have the same.
    """
    found: dict[Key, Episode] = {}
    for episode in wanted:
        if episode.key in found:
            raise InputError(f"two samples have the id {episode.sample.id!r}; ids must differ.")
        found[episode.key] = episode
    return found


def digest(wanted: Iterable[Episode]) -> int:
    """A sum over questions and answers, to tell whether others are asked; wherever their images lie now."""
    plain = (
        to_json(replace(one, sample=one.sample.with_images(Path(path).name for path in one.sample.images)))
        for one in wanted
    )
    return zlib.crc32("\n".join(plain).encode("utf-8", "backslashreplace"))
