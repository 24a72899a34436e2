"""What the columns of a set may be called. A name is compared by its words: `Question_id` and `questionId` are one.

Columns are looked for at the top of a row first, then one level down (`extra_info.question`). A name that the user gives with
`--column` replaces all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from cof_agent.data.nested import at_path, is_missing
from cof_agent.errors import InputError

Words = tuple[str, ...]

FIELDS = ("id", "image", "question", "answer", "choices", "boxes", "category")
"""What `--column NAME=COLUMN` can name."""


def _words(*names: str) -> tuple[Words, ...]:
    return tuple(tuple(name.split()) for name in names)


NAMES: dict[str, tuple[Words, ...]] = {
    "id": _words("id", "question id", "qid", "index", "idx", "pid", "doc id", "sample id", "uid"),
    "question": _words(
        "question", "problem", "query", "question text", "text", "q", "prompt", "instruction", "input", "user prompt"
    ),
    "answer": _words(
        "answers",
        "answer",
        "ground truth",
        "groundtruth",
        "gt answer",
        "gt",
        "correct answer",
        "final answer",
        "solution",
        "label",
        "response",
        "a",
        "target",
        "output",
        "reference answer",
        "answer text",
        "correct option",
        "correct choice",
        "answer idx",
        "answer index",
        "groundtruth complete",
    ),
    "choices": _words("choices", "options", "multi choice options", "answer choices", "candidates"),
    "boxes": _words("boxes", "bboxs", "bboxes", "bbox", "box", "bbox 2 d", "target instances", "gt bbox", "gt boxes"),
    "category": _words("category", "sub task", "task"),
    "subcategory": _words("subcategory", "sub category", "l 2 category"),
    "dataset": _words("dataset", "data source"),
    "hint": _words("hint"),
    "expression": _words("expression", "referring expression", "sentence", "phrase", "ref"),
    "unit": _words("unit"),
}
"""By preference. The truth of verl's rows, `reward_model.ground_truth`, comes before all other answers."""

_ENDS = {
    "question": {"question", "q", "query", "problem"},
    "answer": {"answer", "answers", "a", "solution", "truth", "gt", "groundtruth"},
    "choices": {"choices", "options", "candidates"},
    "boxes": {"box", "boxes", "bbox", "bboxes", "bboxs"},
}
"""Last words by which a column is known whose whole name is not: `reasoning_q`, `correct_choices`."""

_OTHERWISE = {
    "model",
    "pred",
    "predicted",
    "prediction",
    "wrong",
    "incorrect",
    "negative",
    "rejected",
    "original",
    "raw",
}
"""Words of columns that hold something else than the question that is asked and its truth."""


@cache
def words(name: str) -> Words:
    """The words of a column's name, in lower case."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def is_named(name: str, field: str) -> bool:
    """Whether a column's whole name is one of a field's."""
    return words(name) in NAMES[field]


@lru_cache(maxsize=4096)
def ranked(names: tuple[str, ...], field: str) -> tuple[str, ...]:
    """Those of a row's columns that may hold a field, the likeliest first."""
    whole = [name for known in NAMES[field] for name in names if words(name) == known]
    ends = _ENDS.get(field, set())
    rest = [name for name in names if name not in whole and (found := words(name)) and found[-1] in ends]
    return (*whole, *(name for name in rest if not _OTHERWISE & set(words(name))))


def check_columns(columns: Mapping[str, str]) -> None:
    """Whether the fields that a user maps exist.

    Raises:
        InputError: if one does not.
    """
    unknown = sorted(set(columns) - set(FIELDS))
    if unknown:
        raise InputError(f"there is no column {unknown[0]!r} to map; the names are {', '.join(FIELDS)}.")


class Columns:
    """Finds the fields of rows. given: our names to the set's, where the user says them; a dot leads inside."""

    def __init__(self, given: Mapping[str, str]) -> None:
        check_columns(given)
        self.given = dict(given)

    def find(self, row: Mapping[str, Any], field: str, accept: Callable[[Any], bool] | None = None) -> Any:
        """The value of a field; None where the row has none that is not missing and that `accept` takes."""
        return next((value for _, value in self.candidates(row, field, accept)), None)

    def candidates(
        self, row: Mapping[str, Any], field: str, accept: Callable[[Any], bool] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Every value that a field may have, with its path, the likeliest first."""
        if field in self.given:
            found = [(self.given[field], at_path(row, self.given[field]))]
        else:
            found = list(_named(row, field))
        for path, value in found:
            if not is_missing(value) and (accept is None or accept(value)):
                yield path, value


def _named(row: Mapping[str, Any], field: str) -> Iterator[tuple[str, Any]]:
    if field == "answer" and isinstance(row.get("reward_model"), Mapping):
        yield "reward_model.ground_truth", row["reward_model"].get("ground_truth")
    for name in ranked(tuple(row), field):
        yield name, row[name]
    for outer, inside in row.items():
        if isinstance(inside, dict) and "bytes" not in inside:
            for name in ranked(tuple(inside), field):
                yield f"{outer}.{name}", inside[name]
