"""Conversations of published sets and of our own exports as rows to train on.

The set is read once: its texts are kept packed, its images stay files and are decoded when a batch needs them.
"""

from __future__ import annotations

import io
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, floor
from pathlib import Path
from typing import Any

from rich.progress import track

from cof_agent.data.boxes import Form, in_pixels, written
from cof_agent.data.containers import Container
from cof_agent.data.dialogues import Dialogue, Dialogues
from cof_agent.data.image_files import ImageFiles
from cof_agent.data.images import Reference, decoded
from cof_agent.data.rows import Row
from cof_agent.data.unusable import BAD_BOX, DAMAGED_IMAGE, NOT_AN_IMAGE, OTHER_COORDINATES, TOO_LARGE, Tally, Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.image import check_whole, file_of, open_source
from cof_agent.output.terminal import console
from cof_agent.protocol import Message
from sft.conversations.boxes import Evidence, form_of, have_boxes, moved
from sft.frame import Frame, Outline

THREADS = 4
_THOUSANDS = (CoordinateSystem.THOUSAND, CoordinateSystem.THOUSAND_YX)
"""Coordinates that belong to a model. Shares of 1 and pixels of the file mostly belong to a dialect, and stay as they are."""
AT_ONCE = 16  # rows, with the images that they hold


@dataclass(frozen=True, slots=True)
class Shot:
    """One image of a conversation. path: of its file; "" where none was written. region: what is shown of it, in source pixels.
    size: of the region."""

    path: str
    size: Size
    region: tuple[int, int, int, int] | None = None


class Packed:
    """Values of JSON by position, compressed one by one: a hundred thousand conversations take up a few hundred megabytes, and
    the processes that read for a training share them."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, value: Any) -> None:
        self._bytes += zlib.compress(json.dumps(value, ensure_ascii=False).encode(), 1)
        self._ends.append(len(self._bytes))

    def __getitem__(self, index: int) -> Any:
        return json.loads(zlib.decompress(self._bytes[self._ends[index] : self._ends[index + 1]]))


@dataclass(slots=True)
class Checks:
    """Which image files are whole; each is looked at once."""

    _whole: set[str] = field(default_factory=set)

    def check(self, path: str, held: bytes | None = None) -> None:
        """Refuses an image that cannot be decoded. path: of its file; held: the image itself, where only the row has it.

        Raises:
            Unusable: if not.
        """
        if path and path in self._whole:
            return
        try:
            if file_of(path) != path:  # a page, which is drawn and not decoded
                open_source(path)
            else:
                with open(path, "rb") if held is None else io.BytesIO(held) as file:
                    check_whole(file, path or "in the row")
        except (InputError, OSError) as error:
            raise Unusable(DAMAGED_IMAGE, error) from None
        self._whole.add(path)


class DialogueRows:
    """Conversations as they are written, their images sized for the model, boxes in pixels moved with them.

    form: what numbers of boxes in the texts become other ones, see `boxes`; rows that say themselves what theirs are need none.
    """

    def __init__(self, frame: Frame, most_pixels: int) -> None:
        self._frame, self._most = frame, most_pixels
        self._packed, self._places = Packed(), array("Q")
        self._files: list[str] = []
        self.form: Form | None = None

    def __len__(self) -> int:
        return len(self._packed)

    def append(self, found: _Found, row: Row) -> None:
        images = [(one.path, one.size.width, one.size.height, one.region) for one in found.shots]
        self._packed.append((found.talk.messages, images, found.talk.coordinates))
        if str(row.file) not in self._files:
            self._files.append(str(row.file))
        self._places.extend((self._files.index(str(row.file)), row.number))

    def where(self, index: int) -> tuple[str, int]:
        return self._files[self._places[2 * index]], self._places[2 * index + 1]

    def outline(self, index: int) -> Outline:
        messages, shots = self._read(index)
        return Outline(messages, [self._frame.fitted(shot.size) for shot in shots])

    def row(self, index: int) -> dict[str, Any]:
        messages, shots = self._read(index)
        return {"messages": messages, "images": [self._image(shot) for shot in shots]}

    def _read(self, index: int) -> tuple[list[Message], list[Shot]]:
        messages, images, known = self._packed[index]
        shots = [Shot(path, Size(width, height), region) for path, width, height, region in images]
        form = self.form if known is None else Form() if known == CoordinateSystem.ABSOLUTE else None
        if known in _THOUSANDS and known != self._frame.system and have_boxes(messages):
            raise Unusable(OTHER_COORDINATES, f"{known}, and the model's are {self._frame.system.value}")
        return moved(messages, [shot.size for shot in shots], self._frame, form), shots

    def _image(self, shot: Shot) -> Any:
        source = open_source(shot.path, max_source_pixels=self._most)
        region = Box(*shot.region) if shot.region else Box(0, 0, source.size.width, source.size.height)
        return source.show(View(source.size, region, self._frame.fitted(shot.size)))


def read_dialogues(
    source: Container,
    columns: dict[str, str],
    files: ImageFiles,
    frame: Frame,
    *,
    boxes: str | None,
    limit: int | None,
    write: bool,
    most_pixels: int,
    tally: Tally,
    progress: bool = False,
) -> DialogueRows:
    """The conversations of a set; what cannot be used is recorded in `tally`.

    boxes: as `--boxes` says it. limit: how many rows at most. write: whether images that rows hold are written to files; rows
    whose images are not can be measured, not trained on. progress: whether a bar is shown.

    Raises:
        InputError: if a file cannot be read, a column does not exist, or the boxes in the texts cannot be told.
    """
    made, evidence = DialogueRows(frame, most_pixels), Evidence()
    gatherer = _Gatherer(Dialogues(columns), files, write=write, most_pixels=most_pixels)
    rows: Iterable[Row] = source.rows()
    if progress:
        rows = track(rows, "Reading rows", console=console(stderr=True), transient=True)
    for row, found in gatherer.read(rows):
        if limit is not None and len(made) >= limit:
            break
        tally.rows += 1
        if isinstance(found, Unusable):
            tally.leave_out(row.number, row.file, found)
            continue
        if found.talk.coordinates is None:
            evidence.add(found.talk.messages, [shot.size for shot in found.shots], frame)
        made.append(found, row)
    made.form = form_of(boxes, evidence, source.name)
    if note := evidence.note(made.form):
        tally.notes.append(note)
    if gatherer.wrote:
        tally.notes.append(f"images that rows hold are written to {files.keep}")
    return made


@dataclass(frozen=True, slots=True)
class _Found:
    talk: Dialogue
    shots: list[Shot]


class _Gatherer:
    """Makes conversations of rows, several at the same time: most of the work is done outside Python."""

    def __init__(self, reader: Dialogues, files: ImageFiles, *, write: bool, most_pixels: int) -> None:
        self._reader, self._files, self._write, self._most = reader, files, write, most_pixels
        self._checks = Checks()
        self.wrote = False

    def read(self, rows: Iterable[Row]) -> Iterator[tuple[Row, _Found | Unusable]]:
        """Each row with its conversation, or with the reason why it has none, in order."""
        rows = iter(rows)
        with ThreadPoolExecutor(THREADS) as pool:
            while batch := list(islice(rows, AT_ONCE)):
                yield from zip(batch, pool.map(self._attempt, batch), strict=True)

    def _attempt(self, row: Row) -> _Found | Unusable:
        try:
            talk = self._reader.of(row.values)
            return _Found(talk, [self._shot(ref, row.file) for ref in talk.images])
        except Unusable as why:
            return why

    def _shot(self, ref: Reference, row_in: Path) -> Shot:
        taken = self._files.take(ref, measure=True, write=self._write, row_in=row_in)
        self.wrote |= ref.holds_image and bool(taken.path)
        if taken.size is None:
            raise Unusable(NOT_AN_IMAGE, ref.value)
        if taken.size.area > self._most:
            raise Unusable(TOO_LARGE, f"{taken.size} pixels")
        self._checks.check(taken.path, None if taken.path else _held(ref))
        return Shot(taken.path, taken.size) if ref.box is None else _part(taken.path, taken.size, ref.box)


def _held(ref: Reference) -> bytes:
    return ref.value if ref.kind == "bytes" else decoded(ref.value) or b""


def _part(path: str, size: Size, box: str) -> Shot:
    """A crop that a set names by its box (Visual-CoT), in pixels of the file."""
    found = in_pixels(written(box, size)[0], Form())
    if found is None:
        raise Unusable(BAD_BOX, box)
    left, top, right, bottom = floor(found.x0), floor(found.y0), ceil(found.x1), ceil(found.y1)
    return Shot(path, Size(right - left, bottom - top), (left, top, right, bottom))
