"""What is trained on: conversations with their images, from trajectories, Parquet, a hub dataset, or nano's curriculum.

Every source gives an outline of each sample (its words and the sizes of its images), from which it is measured, and the
sample itself, which is decoded when a batch needs it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from cof_agent import scoring
from cof_agent.data.hub import load_table
from cof_agent.data.source import Source
from cof_agent.data.spec import is_local
from cof_agent.environment import ZoomEnvironment, settings_of
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.protocol import Message
from cof_agent.strategies.replay import messages_of
from cof_agent.trajectory import StopReason, Trajectory, read_jsonl
from sft.frame import Frame, Unfit, reframe

COLUMNS = ("messages", "images", "id")  # of a table; `id` may be left out
ROLES = ("system", "user", "assistant")


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
    return [{"role": message["role"], "content": [_part(part) for part in message["content"]]} for message in messages]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}


@dataclass(frozen=True, slots=True)
class Outline:
    """A sample without pixels: messages with image slots, and the sizes of the images in shown pixels."""

    messages: list[Message]
    sizes: list[Size]


class Rows(Protocol):
    """A source of samples, by position."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """How the sample is called in the list of what was left out."""

    def outline(self, index: int) -> Outline:
        """Decodes no image where that can be helped.

        Raises:
            Unfit: if the sample cannot be trained on.
        """

    def row(self, index: int) -> dict[str, Any]:
        """`messages` and `images` (PIL, RGB)."""


class TrajectoryRows:
    """Trajectories as the agent had them: the same words, and its views cut again from the source images.

    One that did not end in an answer, or in a wrong one, is no example and is unfit.
    """

    def __init__(self, trajectories: Sequence[Trajectory], frame: Frame) -> None:
        self._trajectories, self._frame = trajectories, frame
        self._environment = ZoomEnvironment(source_cache=0)

    def __len__(self) -> int:
        return len(self._trajectories)

    def name(self, index: int) -> str:
        return self._trajectories[index].sample.id

    def outline(self, index: int) -> Outline:
        trajectory = self._trajectories[index]
        if trajectory.error is not None:
            raise Unfit(f"it was rejected: {trajectory.error}")
        if trajectory.stop is not StopReason.ANSWERED:
            raise Unfit(f"it ended without an answer ({trajectory.stop.value})")
        if scoring.accuracy(trajectory) is False:
            raise Unfit("its answer is wrong")
        try:
            trajectory = reframe(trajectory, self._frame, self._environment)
            size = self._environment.reset(trajectory.sample).source_size
        except InputError as error:
            raise Unfit(str(error).rstrip(".")) from None
        if size != trajectory.views[0].source_size:
            raise Unfit(f"its image is {size} pixels, but was {trajectory.views[0].source_size} when it was recorded")
        return Outline(_plain(messages_of(trajectory)), [view.shown_size for view in trajectory.views])

    def row(self, index: int) -> dict[str, Any]:
        trajectory = reframe(self._trajectories[index], self._frame, self._environment)
        environment = self._environment.with_settings(settings_of(trajectory))
        images = [environment.image(trajectory.sample, view) for view in trajectory.views]
        return {"messages": _plain(messages_of(trajectory)), "images": images}


class TableRows:
    """Rows of a dataset with the columns `messages` and `images`, as `cof collect --export parquet` writes them."""

    def __init__(self, table: Any, spec: str, *, images: str | None = None) -> None:
        self._table, self._spec, self._images = table, spec, Path(images or "")

    def __len__(self) -> int:
        return len(self._table)

    def name(self, index: int) -> str:
        found = self._table[index].get("id")
        return str(index) if found is None else str(found)

    def outline(self, index: int) -> Outline:
        entry = self._table[index]
        messages = _checked(entry["messages"])
        slots = sum(part["type"] == "image" for message in messages for part in message["content"])
        files = entry["images"] or []
        if slots != len(files):
            raise Unfit(f"its messages show {slots} images, but it lists {len(files)}")
        sizes = []
        for number, file in enumerate(files):
            with _opened(file, number, self._images) as image:
                sizes.append(Size(*image.size))
        return Outline(messages, sizes)

    def row(self, index: int) -> dict[str, Any]:
        entry = self._table[index]
        images = []
        for number, file in enumerate(entry["images"] or []):
            with _opened(file, number, self._images) as image:
                images.append(image.convert("RGB"))
        return {"messages": _checked(entry["messages"]), "images": images}


def _checked(messages: Any) -> list[Message]:
    """Messages with content in parts.

    Raises:
        Unfit: if they are no conversation of system, user and assistant in text and images.
    """
    if not isinstance(messages, list) or not messages:
        raise Unfit("it has no messages")
    return [_checked_message(message) for message in messages]


def _checked_message(message: Any) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise Unfit(f"a message of it has the role {role!r}; what is shown back to the model must be a user's")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and (part.get("type") == "image" or isinstance(part.get("text"), str)) for part in parts
    ):
        raise Unfit("a message of it is neither text nor a list of texts and images")
    return {"role": role, "content": [_part(part) for part in parts]}


def _opened(file: Any, number: int, folder: Path) -> Image.Image:
    """The image of a cell: the file's bytes, or its path in this folder.

    Raises:
        Unfit: if there is no such image, or it cannot be read.
    """
    try:
        held = file.get("bytes") if isinstance(file, dict) else None
        path = file.get("path") if isinstance(file, dict) else file
        return Image.open(io.BytesIO(held) if held else folder / str(path or ""))
    except (OSError, TypeError, ValueError, Image.DecompressionBombError):
        raise Unfit(f"its image {number} is missing or cannot be read") from None


def read_rows(source: Source, frame: Frame) -> Rows:
    """The samples of a source: a JSONL file of trajectories or the folder of one, a Parquet file, or a dataset.

    Raises:
        InputError: if there are none, or a dataset has other columns.
    """
    path = Path(source.data)
    ours = path / "trajectories.jsonl" if path.is_dir() else path
    if ours.suffix == ".jsonl" and ours.exists():
        if source.column:
            raise InputError("--column is for Parquet and datasets; trajectories have columns of their own.")
        trajectories = islice(read_jsonl(ours, Trajectory), source.samples)
        rows: Rows = TrajectoryRows([_placed(one, source.images) for one in trajectories], frame)
    else:
        rows = TableRows(_table(source), source.data, images=source.images)
    if not len(rows):
        raise InputError(f"{source.data} holds nothing to train on.")
    return rows


def _placed(trajectory: Trajectory, images: str | None) -> Trajectory:
    """With its image in this folder."""
    if images is None:
        return trajectory
    sample = trajectory.sample
    return replace(trajectory, sample=replace(sample, image=str(Path(images) / sample.image)))


def _table(source: Source) -> Any:
    import datasets

    spec, path = source.data, Path(source.data)
    if is_local(spec) and not path.exists():
        raise InputError(f"there is no file or folder {spec} to train on.")
    table = _renamed(load_table(spec, source.split or "train"), source.columns, spec)
    missing = {"messages", "images"} - set(table.column_names)
    if missing:
        columns = ", ".join(table.column_names)
        raise InputError(
            f"{spec} has no column {sorted(missing)[0]!r} (its columns are {columns}); name its own with --column."
        )
    table = table.cast_column("images", datasets.List(datasets.Image(decode=False)))
    return table.select(range(min(source.samples, len(table)))) if source.samples else table


def _renamed(table: Any, columns: Mapping[str, str], spec: str) -> Any:
    """With our names of columns in place of the set's."""
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise InputError(f"there is no column {unknown[0]!r} to map; the names are {', '.join(COLUMNS)}.")
    if lost := sorted(set(columns.values()) - set(table.column_names)):
        raise InputError(f"{spec} has no column {lost[0]!r} (its columns are {', '.join(table.column_names)}).")
    table = table.remove_columns([ours for ours in columns if ours in table.column_names and ours != columns[ours]])
    return table.rename_columns({theirs: ours for ours, theirs in columns.items()})
