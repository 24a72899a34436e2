"""How a row of a published file becomes a sample: `Table` reads rows whose parts have a column each.

Several benchmarks share a layout, and most have two: that of the authors or of lmms-eval, and VLMEvalKit's TSV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cof_agent.data.answers import PEOPLE, Reading, right_keys, understood
from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.boxes import boxes_of
from cof_agent.data.choices import Choices, choice_columns, choices_of, split_choices, text_of
from cof_agent.data.nested import is_missing, unpacked
from cof_agent.data.questions import MARK, named_marks, parse, without_marks
from cof_agent.data.rows import Row
from cof_agent.data.understanding import RIGHT, SEVERAL
from cof_agent.data.unusable import Unusable
from cof_agent.episodes import PART_OF
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

Read = Callable[[Copy, Row], Iterable[Sample]]
"""What a row asks: one question, several, or none that belongs to the benchmark."""

LETTERS = "A, B, ..."
"""`Table.choices` of rows that have a column for each choice."""
INSIDE = "inside the question"
"""`Table.choices` of rows whose question lists them."""

_ORDER: tuple[Reading, ...] = ("letter", "text", "number from 0", "number from 1")


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout in which a benchmark is published. files: patterns, of which the first that fits any file counts. columns: those
    that each row has something in. known_by: further columns, which may be empty; the first row of a file tells by both whether
    the file has this layout."""

    files: tuple[str, ...]
    columns: tuple[str, ...]
    read: Read
    known_by: tuple[str, ...] = ()

    def lacks(self, row: Mapping[str, Any]) -> list[str]:
        """The columns that a row does not have at all."""
        return [column for column in (*self.columns, *self.known_by) if column not in row]


@dataclass(frozen=True, slots=True)
class Table:
    """Which column holds what. more_images: what the columns of further images begin with. suffix: of the image's file, where its
    column has the name without one. choices: a column, `LETTERS`,
    `INSIDE`, or none; a row without choices is open. by_text: whether an answer is the text of a choice rather than its letter.
    lists_choices: whether the question's text lists the choices of the column, too, or has a hint and a label before it.
    category, part_of: columns whose texts make it up. kinds: a column with a list of categories. boxes: corners in source
    pixels. cycle: which rotation of the options it is."""

    id: str = "index"
    image: str = "image"
    more_images: str = ""
    suffix: str = ""
    question: str = "question"
    answer: str = "answer"
    choices: str = ""
    by_text: bool = False
    lists_choices: bool = False
    category: tuple[str, ...] = ()
    kinds: str = ""
    subcategory: str = ""
    part_of: tuple[str, ...] = ()
    boxes: str = ""
    cycle: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that each row must have something in."""
        found = (self.id, self.image, self.question, self.answer, *self.category, *self.part_of, self.boxes, self.cycle)
        return tuple(dict.fromkeys(column for column in found if column))

    @property
    def known_by(self) -> tuple[str, ...]:
        """Further ones, which may be empty."""
        choices = {LETTERS: ("A", "B"), INSIDE: (), "": ()}.get(self.choices, (self.choices,))
        return (*choices, *([self.kinds] if self.kinds else []))

    def __call__(self, copy: Copy, row: Row) -> Iterable[Sample]:
        """Raises: InputError: if a part cannot be read, naming the row."""
        id = text(row, self.id)
        images = copy.pictures(self._images(row), row, id)
        try:
            question, choices = self._asked(row, len(images) > 1)
            answers, metadata = self._answers(row, choices)
        except Unusable as why:
            raise InputError(f"{row} cannot be read: {why.reason}{f' ({why.detail})' if why.detail else ''}.") from None
        sample = Sample(
            id=id or str(row.number),
            image=images[0],
            question=question,
            answers=answers,
            choices=tuple(choices.values()),
            boxes=boxes_of(unpacked(row.values[self.boxes]), str(row)) if self.boxes else (),
            metadata=self._told(row) | metadata,
        )
        return [sample.with_images(images)]

    def _images(self, row: Row) -> Any:
        first = row.values[self.image]
        if self.suffix:
            return f"{first}{self.suffix}"
        further = sorted(name for name in row.values if self.more_images and name.startswith(self.more_images))
        others = [row.values[name] for name in further if name != self.image and not is_missing(row.values[name])]
        return [first, *others] if others else first

    def _asked(self, row: Row, several: bool) -> tuple[str, Choices]:
        """The question and its choices by key; with `hint`, where VLMEvalKit has one."""
        asked = (named_marks if several else without_marks)(text(row, self.question))
        if self.choices == INSIDE:
            found = parse(
                text(row, self.question) if MARK.search(text(row, self.question).partition("Options:")[2]) else asked
            )
            return (found.text, found.choices) if found.choices else (asked, {})
        if self.lists_choices:
            return parse(asked).text, self._choices(row)
        hint = text(row, "hint")
        return (f"{hint}\n{asked}" if hint else asked), self._choices(row)

    def _choices(self, row: Row) -> Choices:
        if self.choices == LETTERS:
            columns = choice_columns(tuple(row.values))
            return {key: text(row, name) for key, name in columns.items() if not is_missing(row.values[name])}
        found = unpacked(row.values.get(self.choices)) if self.choices else None
        if isinstance(found, str) and (split := split_choices(f"?\n{found}")):
            return split.choices  # without an instruction behind them
        return {} if is_missing(found) else choices_of(found)

    def _answers(self, row: Row, choices: Choices) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The accepted texts, and what of the answer belongs to the metadata. A right choice that is not there, which published
        sets have here and there, leaves the question unscored."""
        raw = row.values[self.answer]
        if not choices:
            return open_answers(raw), {}
        try:
            truth = understood(raw, choices)
        except Unusable:
            return (), {"unscored": f"the right option {str(raw)[:40]} is not among {', '.join(choices)}"}
        keys = right_keys(truth, sorted(_ORDER, key=lambda one: one != "text") if self.by_text else _ORDER)
        texts = [choices[key] for key in keys]
        several = {"scoring": SEVERAL, RIGHT: texts} if len(texts) > 1 else {}
        return ("; ".join(texts),), several

    def _told(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.category or self.kinds:
            found["category"] = "/".join(_said(row, column) for column in self.category or (self.kinds,))
        for key, column in (("subcategory", self.subcategory), ("cycle", self.cycle)):
            if column and column in row.values and (said := _said(row, column)):
                found[key] = said
        if self.part_of:
            found[PART_OF] = [text(row, column) for column in self.part_of]
        return found


def _said(row: Row, column: str) -> str:
    """The text of a column; a question may be of several kinds, and of none."""
    value = row.values[column]
    if isinstance(value, list) or value is None:
        return ", ".join(sorted(map(str, value or []))) or "none"
    return text(row, column)


def open_answers(raw: Any) -> tuple[str, ...]:
    """The accepted texts of an open question, letter for letter: one, or a list, which VLMEvalKit writes as a text. Each counts
    once, but for those of VQA's ten people."""
    held = unpacked(raw) if isinstance(raw, str) and raw.lstrip()[:2] in ("['", '["') else raw
    found = held if isinstance(held, list) else [held]
    if len(found) == PEOPLE:
        return tuple("" if is_missing(one) else text_of(one) for one in found)
    return tuple(dict.fromkeys(text_of(one) for one in found if not is_missing(one)))


def table(*files: str, **columns: Any) -> Layout:
    """The layout of rows with a column each, in files of these patterns. columns: as `Table`."""
    read = Table(**columns)
    return Layout(files, read.columns, read, read.known_by)


def vlmevalkit(*files: str, **columns: Any) -> Layout:
    """VLMEvalKit's TSV (https://github.com/open-compass/VLMEvalKit, `vlmeval/dataset/image_base.py`, `image_mcq.py`): index,
    image (base64, a list of these, or the index of another row), question, hint, A, B, ..., answer, category."""
    read = Table(**{"choices": LETTERS, "subcategory": "l2-category", **columns})
    return Layout(files, read.columns, read)
