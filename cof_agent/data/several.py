"""A row for each question of a row that has several: in a list of objects, in parallel lists, or as expressions for its box."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from cof_agent.data.boxes import holds_boxes, written
from cof_agent.data.columns import Columns, is_named, words
from cof_agent.data.conversations import is_conversation
from cof_agent.data.unusable import Unusable

Values = dict[str, Any]


def lifted(values: Values) -> Values:
    """The row, with what stands in its one object that holds a conversation or, in an object of its own, a question."""
    if any(is_named(name, "question") or is_conversation(value) for name, value in values.items()):
        return values
    objects = [name for name, value in values.items() if isinstance(value, dict) and _holds_question(value)]
    if len(objects) != 1:
        return values
    inside: Values = values[objects[0]]
    return {name: value for name, value in values.items() if name != objects[0]} | inside


def _holds_question(inside: Values) -> bool:
    return any(
        is_conversation(value) or (isinstance(value, dict) and any(is_named(name, "question") for name in value))
        for value in inside.values()
    )


def each_question(values: Values, columns: Columns) -> Iterator[Values]:
    """The row for each of its questions, where one column lists several with their answers, or two columns do so in parallel;
    but not where the row asks one itself and answers it: the others are a history, steps, or words that can be read."""
    lists = {name: found for name, value in values.items() if (found := _as_list(value))}
    listed = {
        name: value for name, value in lists.items() if not columns.holds_choices(name) and _is_list_of_questions(value)
    }
    if listed and not _asks_itself(values, columns):
        name, rows = next(iter(listed.items()))
        rest = {key: other for key, other in values.items() if key != name}
        yield from (rest | one for one in rows)
        return
    question = next((name for name in lists if _names(name, "question") and _are_texts(lists[name])), None)
    answer = next(
        (name for name in lists if is_named(name.removesuffix("s"), "answer") or is_named(name, "answer")), None
    )
    if question and answer and len(lists[question]) == len(lists[answer]):
        pairs = zip(lists[question], lists[answer], strict=True)
        yield from (values | {question: None, answer: None, "question": q, "answer": a} for q, a in pairs)
        return
    said = [text for name, value in lists.items() if is_named(name, "expressions") for text in _said(value)]
    yield from (values | {"expression": one} for one in said) if said and _names_a_box(values, columns) else [values]


def _said(expressions: list[Any]) -> list[str]:
    """The texts of a list of referring expressions, which may be objects."""
    texts = [
        next((one[name] for name in ("sent", "raw", "text") if name in one), None) if isinstance(one, dict) else one
        for one in expressions
    ]
    return [text for text in texts if isinstance(text, str)]


def _names_a_box(values: Values, columns: Columns) -> bool:
    """Whether a row has no question, and one box."""
    fields = Columns(columns.given).of(values)
    try:
        boxes = written(fields.find("boxes", holds_boxes) or [])
    except Unusable:
        return False
    return len(boxes) == 1 and fields.find("question", _is_text) is None


def _asks_itself(values: Values, columns: Columns) -> bool:
    """Whether a row has a question beside the lists in it, with an answer."""
    fields = Columns(columns.given).of(values)  # of a row that is not read as it stands, nothing is told
    asked = any(
        "question" in columns.given or _says_question(path, text)
        for path, text in fields.candidates("question", _is_text)
    )
    return asked and fields.find("answer", lambda value: not is_conversation(value)) is not None


def _as_list(value: Any) -> list[Any]:
    """A list, also one of questions whose columns are lists in an object; empty for any other value."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value or not _has_question(tuple(value)):
        return []
    columns = list(value.values())
    if not all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns):
        return []
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_list_of_questions(value: list[Any]) -> bool:
    if not all(isinstance(one, dict) and _has_question(tuple(one)) for one in value):
        return False
    return any(_says_question(name, text) for one in value for name, text in one.items() if isinstance(text, str))


def _says_question(path: str, text: str) -> bool:
    """Whether a column holds a question, and no text of another kind, such as a choice or a word that can be read."""
    name = path.rpartition(".")[2]
    return is_named(name, "question") and (words(name) != ("text",) or "?" in text)


@cache
def _has_question(names: tuple[str, ...]) -> bool:
    return all(any(is_named(name, field) for name in names) for field in ("question", "answer"))


def _names(name: str, field: str) -> bool:
    return is_named(name, field) or is_named(name.removesuffix("s"), field)


def _are_texts(value: list[Any]) -> bool:
    return all(isinstance(one, str) for one in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
