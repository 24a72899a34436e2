"""Questions about text whose answers follow from where its lines stand: each relation is asked, and solved from lines.

The same `solve` finds the answer in the full image when a question is made, and in a crop when it is answered, so that a crop
answers a question only if the text can be read there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cof_agent.geometry import Box, around
from cof_agent.ocr.lines import Line
from cof_agent.scoring.normalise import folded

RULES = 2
"""The version of these rules, for the record. Raise it when the same lines will give other questions."""

WORDS = 4  # of a line by which it is named
LONGEST = 48  # characters of that
LETTERS = 6  # that it must have at least
SIGN = 4  # lines of a picture that is asked for all of its text

_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,]*(\.\d+)?\s?%?", re.ASCII)
_ANSWER = re.compile(r"[A-Za-z][A-Za-z'’-]*[A-Za-z]|\d[\d,.]*\d", re.ASCII)
_HYPHENS = ("-", "\u2010", "\u00ad")
_AROUND = ".,;:!?\"'“”‘’()[]{}<>"
_QUOTES = re.compile(r"[“”\"<>`|\\]")  # a name with these could not be quoted, or would be read as markup


class Relation(StrEnum):
    """What is asked about a line that the question names."""

    AFTER = "after"
    UNDER = "under"
    ROW = "row"
    WHOLE = "whole"


QUESTIONS = {
    Relation.AFTER: "Which word comes right after “{name}”?",
    Relation.UNDER: "With which word does the line right under “{name}” begin?",
    Relation.ROW: "Which number comes first to the right of “{name}”?",
    Relation.WHOLE: "What is written in this picture?",
}


@dataclass(frozen=True, slots=True)
class Found:
    """An answer and the lines that it was read from. box: around these lines, in the pixels of the lines."""

    answer: str
    lines: tuple[Line, ...]

    @property
    def box(self) -> Box:
        return around([line.box for line in self.lines])


def asked(lines: Sequence[Line]) -> Iterator[tuple[Relation, str, Found]]:
    """Every question that all of its lines answer surely: the relation, the name of its line, and what it leads to."""
    if (found := solve(Relation.WHOLE, "", lines)) is not None and _is_sure(found):
        yield Relation.WHOLE, "", found
    for line in lines:
        for relation, name in _names(line):
            found = solve(relation, name, lines)
            if found is not None and _is_sure(found):
                yield relation, name, found


def solve(relation: Relation, name: str, lines: Sequence[Line]) -> Found | None:
    """What `lines` say of the only one that is named; None if they do not."""
    if relation is Relation.WHOLE:
        return _whole(lines)
    line = named(name, lines)
    return _SOLVERS[relation](name, line, lines) if line is not None else None


def named(name: str, lines: Sequence[Line]) -> Line | None:
    """The line with the words of `name`, in this order; None if none has them, or more than one."""
    those = [line for line in lines if _place(name, line) is not None]
    return those[0] if len(those) == 1 else None


def _is_sure(found: Found) -> bool:
    return all(line.sure for line in found.lines)


def _names(line: Line) -> Iterator[tuple[Relation, str]]:
    """The names under which a line can be asked about."""
    words = line.text.split()
    start = " ".join(words[:WORDS])
    if not line.sure or len(start) > LONGEST or _QUOTES.search(start) or sum(map(str.isalpha, start)) < LETTERS:
        return
    if len(words) > WORDS:
        yield Relation.AFTER, start
    yield Relation.UNDER, start
    if len(words) <= WORDS:
        yield Relation.ROW, start


def _place(name: str, line: Line) -> int | None:
    """The number of the word of a line at which `name` begins; None if it is not there."""
    wanted = tuple(folded(name).split())
    starts = range(len(line.words) - len(wanted) + 1)
    return next((start for start in starts if line.words[start : start + len(wanted)] == wanted), None)


def _after(name: str, line: Line, lines: Sequence[Line]) -> Found | None:
    start = _place(name, line)
    assert start is not None
    words = line.text.split()
    position = start + len(name.split())
    return _answered(words[position], line) if position < len(words) == len(line.words) else None


def _under(name: str, line: Line, lines: Sequence[Line]) -> Found | None:
    """From the line below: it shares half of the shorter one's width, and begins within one height. None after a line
    that ends in a hyphen: there the next one begins with half a word."""
    below = [
        other
        for other in lines
        if other.box.center[1] - line.box.center[1] > 0 and _shared_width(line.box, other.box) > 0.5
    ]
    if not below or _place(name, line) != 0 or line.text.endswith(_HYPHENS):
        return None
    nearest = min(below, key=lambda other: other.box.y0)
    near = nearest.box.y0 - line.box.y1 < line.box.height and nearest.box.y0 > line.box.center[1]
    alike = 0.6 < nearest.box.height / line.box.height < 1.7
    return _answered(nearest.text.split()[0], line, nearest) if near and alike else None


def _row(name: str, line: Line, lines: Sequence[Line]) -> Found | None:
    """From the nearest text to the right at the same height, if that is a number."""
    right = [
        other
        for other in lines
        if other.box.x0 >= line.box.center[0] and other is not line and _shared_height(line.box, other.box) > 0.5
    ]
    if not right or len(line.words) != len(name.split()):
        return None
    nearest = min(right, key=lambda other: other.box.x0)
    return Found(nearest.text, (line, nearest)) if _NUMBER.fullmatch(nearest.text) and len(nearest.text) > 1 else None


def _whole(lines: Sequence[Line]) -> Found | None:
    text = " ".join(line.text for line in lines)
    letters = sum(map(str.isalnum, text))
    return Found(text, tuple(lines)) if 0 < len(lines) <= SIGN and len(text) <= LONGEST and letters >= 3 else None


def _answered(word: str, *lines: Line) -> Found | None:
    """The word without the marks around it, if it is one that can be asked for: a hyphen at the end of a line cuts a word."""
    word = word.strip(_AROUND)
    return Found(word, lines) if _ANSWER.fullmatch(word) else None


def _shared_width(a: Box, b: Box) -> float:
    return (min(a.x1, b.x1) - max(a.x0, b.x0)) / min(a.width, b.width)


def _shared_height(a: Box, b: Box) -> float:
    return (min(a.y1, b.y1) - max(a.y0, b.y0)) / min(a.height, b.height)


_SOLVERS: dict[Relation, Callable[[str, Line, Sequence[Line]], Found | None]] = {
    Relation.AFTER: _after,
    Relation.UNDER: _under,
    Relation.ROW: _row,
}
