"""What the columns of a set may be called. A name is compared by its words: `Question_id` and `questionId` are one.

Columns are looked for at the top of a row first, then one level down (`extra_info.question`). A name that the user gives with
`--column` replaces all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from cof_agent.data.nested import at_path, is_missing
from cof_agent.errors import InputError

Words = tuple[str, ...]
Shape = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
"""The names of a row's columns; and of each object in it, its own name and those of its fields."""
Place = tuple[str | None, str]
"""The object that a field stands in, None for the row itself, and its name there."""

_NEARLY = 0.8  # of a name's letters, from which another one is taken for a slip
FIELDS = ("id", "image", "question", "answer", "choices", "boxes", "category")
"""What `--column NAME=COLUMN` can name."""


def _words(*names: str) -> tuple[Words, ...]:
    return tuple(tuple(name.split()) for name in names)


NAMES: dict[str, tuple[Words, ...]] = {
    "id": _words("id", "question id", "qid", "index", "idx", "pid", "doc id", "sample id", "uid"),
    "question": _words(
        *(
            "question",
            "problem",
            "query",
            "question text",
            "text",
            "q",
            "prompt",
            "instruction",
            "input",
            "user prompt",
            "question string",
        ),
        *("stem", "questiontext", "user", "human"),
    ),
    "answer": _words(
        "correct answer",
        "correct option",
        "correct choice",
        "correct choice idx",
        "gt answer",
        "answer gt",
        "final answer",
        "answers",
        "answer",
        "ground truth",
        "groundtruth",
        "gt",
        "solution",
        "label",
        "response",
        "a",
        "target",
        "output",
        "reference answer",
        "answer text",
        "answer idx",
        "answer index",
        "groundtruth complete",
        "completion",
        "chosen",
        "gold",
        "gold answer",
        "expected answer",
        *("answer letter", "answer label", "answer key", "correct", "correct letter", "correct index", "correctanswer"),
        "assistant",
    ),
    "flags": _words("labels", "is correct"),
    "choices": _words("choices", "options", "multi choice options", "answer choices", "candidates", "option"),
    "boxes": _words("boxes", "bboxs", "bboxes", "bbox", "box", "bbox 2 d", "target instances", "gt bbox", "gt boxes"),
    "category": _words("category", "sub task", "task"),
    "subcategory": _words("subcategory", "sub category", "l 2 category"),
    "dataset": _words("dataset", "data source"),
    "hint": _words("hint"),
    "expression": _words("expression", "referring expression", "sentence", "phrase", "ref"),
    "expressions": _words("expressions", "referring expressions", "sentences", "phrases", "captions", "refs"),
    "wrong choices": _words(
        *("distractors", "distractor", "incorrect answers", "incorrect answer", "wrong answers", "wrong answer"),
        *("incorrect options", "wrong options", "incorrect choices", "wrong choices", "multiple choices"),
    ),
    "outline": _words("polygon", "polygons", "segmentation", "segmentations", "points"),
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
    "ocr",
}
"""Words of columns that hold something else than the question that is asked and its truth."""


@cache
def wrong_choices(names: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that hold the wrong choices of a question, numbered ones (`distractor1`) included."""
    bare = {name: tuple(word for word in words(name) if not word.isdecimal()) for name in names}
    return tuple(name for name in names if bare[name] in NAMES["wrong choices"])


@cache
def words(name: str) -> Words:
    """The words of a column's name, in lower case."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def is_named(name: str, field: str) -> bool:
    """Whether a column's whole name is one of a field's."""
    return words(name) in NAMES[field]


def ranked(names: tuple[str, ...], field: str) -> tuple[str, ...]:
    """Those of a row's columns that may hold a field, the likeliest first."""
    whole = [name for known in NAMES[field] for name in names if words(name) == known]
    ends = _ENDS.get(field, set())
    rest = [name for name in names if name not in whole and (found := words(name)) and found[-1] in ends]
    return (*whole, *(name for name in rest if is_asked(name)))


def asks(row: Mapping[str, Any]) -> bool:
    """Whether a row has a question, itself or in a list of objects."""
    inside = (value[0] for value in row.values() if isinstance(value, list) and value and isinstance(value[0], dict))
    return any(is_named(name, "question") for one in (row, *inside) for name in one)


WEAK_ANSWERS = _words(
    "label", "target", "correct", "a", "output", "response", "completion", "chosen", "assistant", "answer text"
)
"""Columns that are no truth where a reply stands beside them: a class, the name of a split, the reply itself."""

FLAGS = ("label", "kto_tag", "correct")
"""Columns that say, with a truth value, whether the reply beside them is wanted, as in sets for KTO."""


def is_unwanted(row: Mapping[str, Any]) -> bool:
    """Whether a row says that its reply is not wanted."""
    return any(row.get(name) is False for name in FLAGS)


def is_asked(name: str) -> bool:
    """Whether a column of this name may hold what is asked, and not what a model said or a person rejected."""
    return not _OTHERWISE & set(words(name))


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuses to map fields that do not exist.

    Raises:
        InputError: if one does not.
    """
    unknown = sorted(set(columns) - set(FIELDS))
    if unknown:
        raise InputError(f"there is no column {unknown[0]!r} to map; the names are {', '.join(FIELDS)}.")


class Columns:
    """What a user calls the columns of a set. given: our names to the set's; a dot leads inside."""

    def __init__(self, given: Mapping[str, str]) -> None:
        check_columns(given)
        self.given = dict(given)
        self._places: dict[Shape, dict[str, list[Place]]] = {}

    def holds_choices(self, name: str) -> bool:
        """Whether a column of this name holds the choices of a question."""
        return self.given.get("choices") == name or is_named(name, "choices")

    def misspelt(self) -> list[tuple[str, str]]:
        """Columns that nothing is read from, of all rows so far, each with the name that it nearly has and no column of its rows
        has; but for names that other sets use for something else."""
        found: dict[str, str] = {}
        for (top, _), places in self._places.items():
            for field in ("question", "answer", "choices", "boxes"):
                if field not in self.given and not places.get(field):
                    known = [name[0] for name in NAMES[field] if len(name) == 1 and len(name[0]) > 4]
                    for name in top:
                        alone = (
                            name not in self.given.values()
                            and len(words(name)) == 1
                            and not any(is_named(name, one) for one in NAMES)
                        )
                        near = get_close_matches(name.lower(), known, 1, _NEARLY) if alone else []
                        found |= {name: near[0]} if near else {}
        return list(found.items())

    def of(self, row: Mapping[str, Any]) -> Fields:
        """The fields of a row."""
        shape = tuple(row), tuple((name, *inside) for name, inside in row.items() if _has_fields(inside))
        return Fields(row, self.given, shape, self._places.setdefault(shape, {}))


class Fields:
    """Finds the fields of one row. places: where rows of its shape have each field, as far as that is known."""

    def __init__(
        self, row: Mapping[str, Any], given: Mapping[str, str], shape: Shape, places: dict[str, list[Place]]
    ) -> None:
        self.row, self.given, self._shape, self._places = row, given, shape, places

    def find(self, field: str, accept: Callable[[Any], bool] | None = None) -> Any:
        """The value of a field; None where the row has none that is not missing and that `accept` takes."""
        if field in self.given:
            return next((value for _, value in self.candidates(field, accept)), None)
        for outer, name in self._at(field):  # not by `candidates`: this runs ten times for each row
            value = self.row[name] if outer is None else self.row[outer][name]
            if not is_missing(value) and (accept is None or accept(value)):
                return value
        return None

    def candidates(self, field: str, accept: Callable[[Any], bool] | None = None) -> Iterator[tuple[str, Any]]:
        """Every value that a field may have, with its path, the likeliest first."""
        if field in self.given:
            value = at_path(self.row, self.given[field])
            if not is_missing(value) and (accept is None or accept(value)):
                yield self.given[field], value
            return
        for outer, name in self._at(field):
            value = self.row[outer][name] if outer else self.row[name]
            if not is_missing(value) and (accept is None or accept(value)):
                yield f"{outer}.{name}" if outer else name, value

    def _at(self, field: str) -> list[Place]:
        places = self._places.get(field)
        if places is None:
            places = self._places[field] = list(_places(self._shape, field))
        return places


def _has_fields(inside: Any) -> bool:
    """Whether a value is an object with columns of its own, and no image."""
    return isinstance(inside, dict) and "bytes" not in inside


def _places(shape: Shape, field: str) -> Iterator[Place]:
    top, objects = shape
    if field == "answer":
        yield from (
            (outer, "ground_truth") for outer, *inner in objects if outer == "reward_model" and "ground_truth" in inner
        )
    yield from ((None, name) for name in ranked(top, field))
    if field == "question":  # the text of an answer is none
        objects = tuple(sorted((one for one in objects if not is_named(one[0], "answer")), key=_is_no_question))
    for outer, *inner in objects:
        names = ranked(tuple(inner), field)
        english = ["en"] if field == "question" and is_named(outer, "question") and "en" in inner else []
        yield from ((outer, name) for name in (*names, *english))


def _is_no_question(inside: tuple[str, ...]) -> bool:
    return not is_named(inside[0], "question")
