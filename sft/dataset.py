"""What is trained on: conversations with their images, from trajectories, from sets in any known layout, or nano's curriculum.

Every source gives an outline of each sample (its words and the sizes of its images), from which it is measured, and the
sample itself, which is decoded when a batch needs it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from cof_agent import scoring
from cof_agent.data.containers import find, kind_of
from cof_agent.data.fetch import Fetcher
from cof_agent.data.image_files import ImageFiles
from cof_agent.data.rows import opened
from cof_agent.data.source import Source
from cof_agent.data.unusable import DAMAGED_IMAGE, Tally, Unusable
from cof_agent.environment import ZoomEnvironment, ZoomSettings, settings_of
from cof_agent.errors import InputError
from cof_agent.image import DEFAULT_MAX_SOURCE_PIXELS
from cof_agent.protocol import Message
from cof_agent.protocol.dialects import Dialect
from cof_agent.strategies.replay import messages_of
from cof_agent.training.distill import TRAJECTORIES, Plays
from cof_agent.trajectory import StopReason, Trajectory, read_jsonl
from sft.conversations.rows import Checks, read_dialogues
from sft.frame import Frame, Outline, reframe

REJECTED = "trajectory that was rejected"
UNANSWERED = "trajectory without an answer"
WRONG = "trajectory with a wrong answer"
MALFORMED = "trajectory with a malformed turn"
CHANGED = "image of another size than when it was recorded"


def to_row(messages: Sequence[Message], images: Sequence[Image.Image]) -> dict[str, Any]:
    """One training row, TRL's columns: `messages` with image slots, and `images`, sized as the model sees them.

    Raises:
        ValueError: if the messages do not show each image once, in order; TRL fills slots by position.
    """
    order = [part["view"] for message in messages for part in message["content"] if part["type"] == "image"]
    if order != list(range(len(images))):
        raise ValueError(f"messages show the views {order}, but there are {len(images)} images")
    return {"messages": _plain(messages), "images": list(images)}


def _plain(messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": [_part(part) for part in message["content"]]} for message in messages]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}


class Rows(Protocol):
    """A source of samples, by position."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> tuple[str, int]:
        """The file of a sample, and the number of its row in it, from 1."""

    def outline(self, index: int) -> Outline:
        """Decodes no image where that can be helped.

        Raises:
            Unusable: if the sample cannot be trained on.
        """

    def row(self, index: int) -> dict[str, Any]:
        """`messages` and `images` (PIL, RGB)."""


class TrajectoryRows:
    """Trajectories as the agent had them: the same words, and its views cut again from the source images.

    One that did not end in an answer, or in a wrong one, is no example and is left out. file: where they are from.
    dialect: in which they are held again; by default each in its own. most_pixels: of an image, in source pixels.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        frame: Frame,
        file: str = "",
        dialect: Dialect | None = None,
        most_pixels: int = DEFAULT_MAX_SOURCE_PIXELS,
    ) -> None:
        self._trajectories, self._frame, self._file, self._dialect = trajectories, frame, file, dialect
        self._most = most_pixels
        self._environment = ZoomEnvironment(ZoomSettings(max_source_pixels=most_pixels), source_cache=0)
        self._checks = Checks()

    def __len__(self) -> int:
        return len(self._trajectories)

    def where(self, index: int) -> tuple[str, int]:
        return self._file, index + 1

    def outline(self, index: int) -> Outline:
        trajectory = self._trajectories[index]
        if trajectory.error is not None:
            raise Unusable(REJECTED, trajectory.error)
        if trajectory.stop is not StopReason.ANSWERED:
            raise Unusable(UNANSWERED, trajectory.stop.value)
        if scoring.accuracy(trajectory) is False:
            raise Unusable(WRONG, trajectory.answer)
        if scoring.malformed(trajectory):
            raise Unusable(MALFORMED)
        try:
            trajectory = reframe(trajectory, self._frame, self._environment, self._dialect)
            shown = self._environment.overviews(trajectory.sample)
        except InputError as error:
            raise Unusable(DAMAGED_IMAGE, error) from None
        for view, recorded in zip(shown, trajectory.overviews, strict=True):
            if view.source_size != recorded.source_size:
                raise Unusable(CHANGED, f"{view.source_size}, but was {recorded.source_size} pixels")
        for path in trajectory.sample.images:
            self._checks.check(path)
        return Outline(_plain(messages_of(trajectory)), [view.shown_size for view in trajectory.views])

    def row(self, index: int) -> dict[str, Any]:
        trajectory = reframe(self._trajectories[index], self._frame, self._environment, self._dialect)
        settings = replace(settings_of(trajectory), max_source_pixels=self._most)
        environment = self._environment.with_settings(settings)
        images = [environment.image(trajectory.sample, view) for view in trajectory.views]
        return {"messages": _plain(messages_of(trajectory)), "images": images}


class Mixture:
    """The rows of several sources, one source after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def where(self, index: int) -> tuple[str, int]:
        part, place = self._part(index)
        return part.where(place)

    def outline(self, index: int) -> Outline:
        part, place = self._part(index)
        return part.outline(place)

    def row(self, index: int) -> dict[str, Any]:
        part, place = self._part(index)
        return part.row(place)

    def _part(self, index: int) -> tuple[Rows, int]:
        number = bisect_right(self._starts, index) - 1
        return self._parts[number], index - self._starts[number]


def read_rows(
    source: Source,
    frame: Frame,
    tally: Tally | None = None,
    *,
    keep_images: Path | None = None,
    write: bool = True,
    most_pixels: int = DEFAULT_MAX_SOURCE_PIXELS,
    progress: bool = False,
    dialect: Dialect | None = None,
    plays: Plays | None = None,
) -> Rows:
    """The samples of a source: trajectories (their file or its folder), or a set of conversations, see `data.dialogues`.

    tally: where what was read and left out is recorded. keep_images: the folder for images that rows hold themselves or name
    by URL. write: whether they are written, which training needs. most_pixels: of an image, in source pixels. dialect: in which
    trajectories are held again, by default each in its own; published conversations are trained as they are written. plays:
    from the overview alone, with which trajectories are distilled.

    Raises:
        InputError: if there are none, or a column is mapped that does not exist.
    """
    tally = Tally() if tally is None else tally
    path = Path(source.data)
    ours = path / TRAJECTORIES if path.is_dir() else path
    if (path.is_dir() and ours.exists()) or (path.is_file() and _are_trajectories(path)):
        kept = _trajectories(source, ours, tally)
        return TrajectoryRows(plays.distilled(kept, tally) if plays else kept, frame, str(ours), dialect, most_pixels)
    found = find(source.data, source.split)
    if found.ours:
        raise InputError(f"{source.data} holds questions and no conversations; `cof collect` makes some of them.")
    tally.notes += found.notes
    files = ImageFiles(
        found.folders(Path(source.images) if source.images else None),
        keep_images,
        fetcher=Fetcher() if source.download else None,
    )
    return read_dialogues(
        found,
        source.columns,
        files,
        frame,
        boxes=source.boxes,
        limit=source.samples,
        write=write or source.download,
        most_pixels=most_pixels,
        tally=tally,
        progress=progress,
    )


def _are_trajectories(path: Path) -> bool:
    """Whether the first line of a file is a trajectory."""
    if kind_of(path) != "json":
        return False
    with opened(path) as file:
        try:
            first = json.loads(next((line for line in file if line.strip()), ""))
        except ValueError:  # no JSONL
            return False
    return isinstance(first, dict) and {"sample", "turns"} <= set(first)


def _trajectories(source: Source, path: Path, tally: Tally) -> list[Trajectory]:
    if source.column:
        raise InputError("--column is for other sets; trajectories have columns of their own.")
    found = [_placed(one, source.images) for one in islice(read_jsonl(path, Trajectory), source.samples)]
    tally.rows += len(found)
    return found


def _placed(trajectory: Trajectory, images: str | None) -> Trajectory:
    """With its image in this folder."""
    if images is None:
        return trajectory
    sample = trajectory.sample
    return replace(trajectory, sample=sample.with_images(str(Path(images) / path) for path in sample.images))
