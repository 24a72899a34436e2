"""The answers that a set keeps in a file of their own, as VQA does, and which file that is (https://visualqa.org/download.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

QUESTION_ID = "question_id"

_QUESTIONS = re.compile(r"questions(?=[._-]|\Z)", re.IGNORECASE)
_ONLY_QUESTIONS = re.compile(r"(?:OpenEnded|MultipleChoice)_")
_FOLDERS = ("Annotations", "annotations")
_HEAD = 1 << 14  # bytes of a file that show its form
_HAS_IDS = re.compile(r"\A\s*\{.*\"question_id\"", re.DOTALL)
_HAS_ANSWER, _HAS_QUESTION = re.compile(r"\"(?:answers?|multiple_choice_answer)\"\s*:"), re.compile(r"\"question\"\s*:")


def truths_of(questions: Path) -> Path | None:
    """The file of the answers to a file of questions, in the same folder or in `Annotations` beside it: the one named
    `v2_mscoco_val2014_annotations.json` for `v2_OpenEnded_mscoco_val2014_questions.json`. None where there is none, where it has
    another form, or where the questions have their own answers."""
    name = _QUESTIONS.sub("annotations", _ONLY_QUESTIONS.sub("", questions.name))
    if name == questions.name or questions.suffix.lower() != ".json":
        return None
    places = [questions.parent / name, *(questions.parent.parent / folder / name for folder in _FOLDERS)]
    found = next((path for path in places if path.is_file()), None)
    if found is None or not all(_HAS_IDS.search(head) for head in (_head(questions), _head(found))):
        return None
    return None if _HAS_ANSWER.search(_head(questions)) or _HAS_QUESTION.search(_head(found)) else found


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_HEAD).decode("utf-8", "replace")


def without_truths(files: Iterable[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files that are read for their rows, and those that hold the answers to the questions of another."""
    every = tuple(files)
    truths = {found.resolve() for path in every if (found := truths_of(path)) is not None}
    return (
        tuple(path for path in every if path.resolve() not in truths),
        tuple(path for path in every if path.resolve() in truths),
    )


def joined(questions: Iterable[Any], truths: Iterable[Any]) -> list[Any]:
    """Rows of questions, each with what the row of the same id says of its answer."""
    by_id = {row[QUESTION_ID]: row for row in truths if isinstance(row, dict) and QUESTION_ID in row}
    return [by_id.get(row.get(QUESTION_ID), {}) | row for row in questions if isinstance(row, dict)]
