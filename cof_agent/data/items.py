"""The questions of a set with their images on disk, before it is known what the set as a whole means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cof_agent.data.answers import box_in
from cof_agent.data.boxes import Written, written
from cof_agent.data.columns import Columns
from cof_agent.data.containers import Container
from cof_agent.data.forms import Draft, drafts
from cof_agent.data.image_files import ImageFiles, Taken
from cof_agent.data.images import Reference
from cof_agent.data.questions import without_marks
from cof_agent.data.rows import Row
from cof_agent.data.unusable import Tally, Unusable

_EVIDENCE = 256  # rows behind the last one wanted, from which it is seen what a set means
_EVIDENCE_BYTES = 64 << 20  # of images that these rows hold
_NO_IMAGE = Reference("path", "")


@dataclass(slots=True)
class Item:
    """One question, its texts without marks for images. number: of its row in the whole set, from 1. row: in `file`. wanted:
    whether it is to become a sample, and does not only show what the set means."""

    draft: Draft
    number: int
    row: int
    file: Path
    image: Taken
    boxes: list[Written]
    wanted: bool


def gathered(
    source: Container, files: ImageFiles, columns: Columns, limit: int | None, write: bool, tally: Tally
) -> list[Item]:
    """The questions of the rows of a set: the first `limit`, and some behind them, whose images are not written.

    Raises:
        InputError: if a file cannot be read.
    """
    return list(_Gatherer(files, columns, limit, write, tally).items(source))


class _Gatherer:
    def __init__(self, files: ImageFiles, columns: Columns, limit: int | None, write: bool, tally: Tally) -> None:
        self.files, self.columns, self.limit, self.write, self.tally = files, columns, limit, write, tally
        self.found = 0
        self.by_id: dict[str, Taken] = {}
        """Images of rows before: VLMEvalKit writes a row's index in place of an image that it has already."""

    def items(self, source: Container) -> Iterator[Item]:
        behind, cost, aside = 0, 0, Tally()
        for row in source.rows():
            wanted = self.limit is None or self.found < self.limit
            if not wanted and (behind >= _EVIDENCE or cost >= _EVIDENCE_BYTES):
                return
            tally = self.tally if wanted else aside
            tally.rows += 1
            behind += not wanted
            made = tally.attempt(row.number, row.file, lambda row=row: drafts(row.values, self.columns)) or []  # type: ignore[misc]
            for number, draft in enumerate(made):
                draft.id = f"{draft.id or f'{tally.rows:07d}'}-{number}" if len(made) > 1 else draft.id
                cost += 0 if wanted else draft.image.cost
                item = tally.attempt(row.number, row.file, lambda d=draft, r=row, w=wanted: self._item(d, r, w))  # type: ignore[misc]
                if item is not None:
                    self.found += 1
                    yield item

    def _item(self, draft: Draft, row: Row, wanted: bool) -> Item:
        image = self.by_id.get(draft.image.value) if draft.image.kind == "path" else None
        if image is None:
            measure = bool(draft.boxes) or _may_be_box(draft.answer)
            image = self.files.take(draft.image, measure=measure, write=self.write and wanted)
        draft.image = _NO_IMAGE  # the row's own bytes are not held any longer
        draft.question, draft.prompt = without_marks(draft.question), without_marks(draft.prompt)
        if draft.id:
            self.by_id[draft.id] = image
        boxes = [one for found in draft.boxes for one in written(found, image.size)]
        return Item(draft, self.tally.rows, row.number, row.file, image, boxes, wanted)


def _may_be_box(answer: Any) -> bool:
    """Whether an answer may be four numbers, so that the size of its image is wanted."""
    if isinstance(answer, str) and (len(answer) < 7 or not any(character.isdigit() for character in answer)):
        return False
    try:
        return box_in(answer, True) is not None
    except Unusable:
        return False
