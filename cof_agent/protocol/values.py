"""Values as models write them: JSON with the slips that they make, Python literals, boxes in strings and in box tokens."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

LONGEST = 4_000
"""Characters of a call that are read; a real one has about 100."""


def objects_in(raw: str) -> list[Any]:
    """The JSON objects that stand one behind the other in `raw`, or in one list, with None for a rest that cannot be read; empty
    where nothing can.

    Comments, trailing commas, single quotes, keys and words without quotes, boxes in box tokens, Python's words for true, false
    and null, line breaks in strings, a closing bracket too many and up to three too few are forgiven.
    """
    raw = raw.strip()
    if len(raw) > LONGEST:
        return []
    start = min((at for at in (raw.find("{"), raw.find("[")) if at >= 0), default=-1)
    if start < 0:
        return []
    found: list[Any] = []
    while start >= 0:
        value, end = _first(raw, start)
        if end == 0:
            return [*found, None] if found else []
        found += value if isinstance(value, list) else [value]
        start = raw.find("{", end)
    return found


def value_in(raw: str, brackets: str = "{}") -> Any:
    """The object, or list, from the first of the opening `brackets` on, read as leniently; None if unreadable.

    What stands between the first opening and the last closing bracket is tried first, as one value. Of two values with words
    between them none is taken.
    """
    raw = raw.strip()
    if len(raw) > LONGEST:
        return None
    start, end = raw.find(brackets[0]), raw.rfind(brackets[1])
    if start < 0:
        return None
    whole = _loaded(raw[start : end + 1]) if end > start else None
    if whole is not None:
        return whole
    value, end = _first(raw, start)
    return value if end and brackets[0] not in raw[end:] else None


def value_at(text: str, start: int) -> Any:
    """The object that begins at `start`, read as leniently; None if unreadable. What follows it is not looked at."""
    return _first(text[start : start + LONGEST], 0)[0]


def objects_around(text: str, place: int) -> Iterator[dict[str, Any]]:
    """The objects that can be read around a place, from the innermost on, of those that begin up to `LONGEST` before it."""
    start = place
    for _ in range(_MOST_TRIED):
        start = text.rfind("{", max(0, place - LONGEST), start)
        if start < 0:
            return
        value, length = _beginning(text[start : start + LONGEST])
        if isinstance(value, dict) and start + length > place:
            yield value


_MOST_TRIED = 64


@lru_cache(maxsize=4 * _MOST_TRIED)
def _beginning(text: str) -> tuple[Any, int]:
    """`_first` of a text, remembered: the boxes of a list ask for the same objects before them."""
    return _first(text, 0)


def _first(raw: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, and where it ends; (None, 0) if it cannot be read."""
    text, length = _closed(raw[start:])
    value = _loaded(text) if length else None
    return (None, 0) if value is None else (value, start + length)


_MISSING = 3
"""Closing brackets that a value may lack."""


_CLOSING = {"{": "}", "[": "]", "(": ")"}
_STRINGS = re.compile(r""""(?:\\.?|[^"\\])*(?:"|\Z)|'(?:\\.?|[^'\\])*(?:'|\Z)|[{}\[\]()]""", re.DOTALL)


def _closed(text: str) -> tuple[str, int]:
    """The value that a text begins with, up to where its first bracket is closed, with the closing brackets that it lacks; and
    its length without these, 0 if it lacks too many."""
    open: list[str] = []
    pieces, place, missing = [], 0, 0
    for match in _STRINGS.finditer(text):
        mark = match[0]
        if mark in _CLOSING:
            open.append(_CLOSING[mark])
        elif mark in _CLOSING.values():
            if mark not in open:
                return "", 0
            while open[-1] != mark:  # as in {"bbox_2d": [1, 2, 3, 4}
                pieces += [text[place : match.start()], open.pop()]
                place, missing = match.start(), missing + 1
            open.pop()
            if not open:
                return ("".join([*pieces, text[place : match.end()]]), match.end()) if missing <= _MISSING else ("", 0)
    lacking = missing + len(open)
    return ("".join([*pieces, text[place:], *reversed(open)]), len(text)) if lacking <= _MISSING else ("", 0)


def _loaded(text: str) -> Any:
    """The value of a text that holds nothing else, None if unreadable."""
    for candidate in (text, _repaired(text)):
        try:
            return json.loads(candidate, strict=False)  # line breaks in strings are allowed
        except (ValueError, RecursionError):
            continue
    try:
        return _as_json(ast.literal_eval(text.strip()))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _as_json(value: Any) -> Any:
    """A value of Python as JSON has it.

    Raises:
        ValueError: if JSON has no such thing, or a whole number has more digits than Python would print.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    raise ValueError(f"JSON has no {type(value).__name__}")


# What is never closed runs to the end, so that no part of the text is scanned twice.
_PIECES = re.compile(
    r"""("(?:\\.?|[^"\\])*(?:"|\Z))|'((?:\\.?|[^'\\])*)(?:'|\Z)|(//[^\n]*|/\*.*?(?:\*/|\Z)|\#[^\n]*)|,(?=\s*[}\]])|\b(None|True|False)\b"""
    r"""|(<\|box_start\|>[^<"']*<\|box_end\|>)|(?<=[{\[,:\s])([A-Za-z_]\w*)(?=\s*[:,}\]])""",
    re.DOTALL,
)
_WORDS = {"None": "null", "True": "true", "False": "false"}
_JSON_WORDS = ("true", "false", "null", "NaN", "Infinity")


def _repaired(text: str) -> str:
    """Single-quoted strings become double-quoted, words and boxes in tokens get quotes, Python's words become JSON's; comments
    and trailing commas go. Strings are left as they are."""

    def fix(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        if match[4] is not None:
            return _WORDS[match[4]]
        if word := match[5] or match[6]:
            return word if word in _JSON_WORDS else json.dumps(word)
        return json.dumps(match[2].replace("\\'", "'")) if match[2] is not None else ""

    without_comments = _PIECES.sub(fix, text)
    return _PIECES.sub(fix, without_comments)  # a comma can become trailing once a comment behind it is gone


_BOX_TEXT = re.compile(r"[\s\d.,;+\-()\[\]eE]*")
_BOX_TOKENS = re.compile(r"<\|(?:box_start|box_end|begin_of_box|end_of_box)\|>|</?(?:box|bbox|bbox_2d)>")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?")


def box_of(value: Any) -> list[Any] | None:
    """The four values of a box that was written as a list, a list in a list, or a string, with box tokens or without.

    None where it is none; a list of another length comes back as it is, for the reason why it is refused.
    """
    if isinstance(value, str):
        plain = _BOX_TOKENS.sub(" ", value)
        if len(value) > LONGEST or not _BOX_TEXT.fullmatch(plain):
            return None
        numbers: list[Any] = [float(number) for number in _NUMBER.findall(plain)]
        return numbers or None
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        return None
    if len(value) == 1 and isinstance(value[0], list | tuple | str):
        return box_of(value[0])
    if len(value) == 2 and all(isinstance(corner, list | tuple) and len(corner) == 2 for corner in value):
        return [*value[0], *value[1]]
    if len(value) == 4 and value and all(isinstance(part, list | tuple) for part in value):
        return None
    return value


_IMAGE_NAMED = re.compile(
    r"(?:target|source)?(?:image|img)s?(?:ids?|idx|index|indices|no|num|number|nr|ref|path|url|name)?"
)


def spelt(key: object) -> str:
    """A key in one spelling: that of `imageIndex` is that of `image_index`."""
    return re.sub(r"[^a-z0-9]", "", str(key).lower())


def names_image(key: object) -> bool:
    """Whether a key says by its name that its value is the number of an image, or another name of it."""
    return _IMAGE_NAMED.fullmatch(spelt(key)) is not None


def arguments_at(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """The arguments in the brackets that begin at `start`, as an object or in Python's words, `(a=1)`, and where these end; None
    if they cannot be read. Nothing is executed."""
    inside, length = _closed(text[start : start + LONGEST])
    if text[start] == "{":
        value = _loaded(inside) if length else None
        return (value if isinstance(value, dict) else None), start + length
    try:
        call = ast.parse(f"f{inside}", mode="eval").body
        given = call.keywords if isinstance(call, ast.Call) else []
        return {str(one.arg): _as_json(ast.literal_eval(one.value)) for one in given}, start + length
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None, start


def whole_number(value: Any) -> int | None:
    """A number without a fraction, also as a string or a float; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,5}\s*", value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**31:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
