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
from cof_agent.data.forms import Draft, drafts, texts_in
from cof_agent.data.image_files import ImageFiles, Taken
from cof_agent.data.questions import Pictures, marks, without_marks
from cof_agent.data.rows import Row
from cof_agent.data.unusable import SEVERAL_IMAGES, Tally, Unusable

_EVIDENCE = 256  # rows behind the last one wanted, from which it is seen what a set means
_EVIDENCE_BYTES = 64 << 20  # of images that these rows hold


@dataclass(slots=True)
class Item:
    """One question, its texts without marks for images. number: of its row in the whole set, from 1. row: in `file`. wanted:
    whether it is to become a sample, and does not only show what the set means."""

    draft: Draft
    number: int
    row: int
    file: Path
    images: list[Taken]
    boxes: list[Written]
    wanted: bool


def gathered(
    source: Container,
    files: ImageFiles,
    columns: Columns,
    limit: int | None,
    write: bool,
    tally: Tally,
    *,
    one_image: bool = False,
) -> list[Item]:
    """The questions of the rows of a set: the first `limit`, and some behind them, whose images are not written. one_image:
    whether those about several images are left out.

    Raises:
        InputError: if a file cannot be read.
    """
    return list(_Gatherer(files, columns, limit, write, tally, one_image).items(source))


class _Gatherer:
    def __init__(
        self, files: ImageFiles, columns: Columns, limit: int | None, write: bool, tally: Tally, one_image: bool
    ) -> None:
        self.files, self.columns, self.limit, self.write, self.tally = files, columns, limit, write, tally
        self.one_image = one_image
        self.found = 0
        self.by_id: dict[str, list[Taken]] = {}
        """Images that rows before held: VLMEvalKit writes a row's index in place of an image that it has already."""

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
                cost += 0 if wanted else sum(ref.cost for ref in draft.images)
                item = tally.attempt(row.number, row.file, lambda d=draft, r=row, w=wanted: self._item(d, r, w))  # type: ignore[misc]
                if item is not None:
                    self.found += 1
                    yield item

    def _item(self, draft: Draft, row: Row, wanted: bool) -> Item:
        images = self._images(draft, row, wanted)
        held = all(ref.holds_image for ref in draft.images)
        if len(images) > 1 and self.one_image:
            raise Unusable(SEVERAL_IMAGES, len(images))
        draft.images = []  # the row's own bytes are not held any longer
        if len(images) == 1:
            draft.question, draft.prompt = without_marks(draft.question), without_marks(draft.prompt)
        else:
            _name_pictures(draft, len(images))
        if held:
            own = str(row.values["index"]) if isinstance(row.values, dict) and "index" in row.values else ""
            self.by_id |= {name: images for name in (draft.id, own) if name}
        boxes = [one for found in draft.boxes for one in written(found, images[0].size)]
        return Item(draft, self.tally.rows, row.number, row.file, images, boxes, wanted)

    def _images(self, draft: Draft, row: Row, wanted: bool) -> list[Taken]:
        first, *others = draft.images
        if first.kind == "path" and not others and first.value in self.by_id:
            return self.by_id[first.value]
        if others and self.one_image:
            raise Unusable(SEVERAL_IMAGES, len(draft.images))  # before any is written
        measure = bool(draft.boxes) or _may_be_box(draft.answer)
        write = self.write and wanted
        return [self.files.take(ref, measure=measure, write=write, row_in=row.file) for ref in draft.images]


def _name_pictures(draft: Draft, images: int) -> None:
    """Puts words in the places of marks, in a question about several images and in its choices, whose marks go on counting where
    there are images for them."""
    asked, prompted = (Pictures(from_nought=draft.from_nought, earlier=draft.earlier) for _ in range(2))
    goes_on = marks(draft.question) + sum(map(marks, texts_in(draft.choices))) <= images
    chosen = asked if goes_on else Pictures(from_nought=draft.from_nought)
    draft.prompt, draft.question = prompted.in_question(draft.prompt), asked.in_question(draft.question)
    draft.choices = chosen.in_choices(draft.choices)


def _may_be_box(answer: Any) -> bool:
    """Whether an answer may be four numbers, so that the size of its image is wanted."""
    if isinstance(answer, str) and (len(answer) < 7 or not any(character.isdigit() for character in answer)):
        return False
    try:
        return box_in(answer, True) is not None
    except Unusable:
        return False
