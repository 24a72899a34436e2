"""Values inside values: fields inside fields, lists inside texts."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_LARGEST = 10**4000
_OF_NUMPY = re.compile(r"array\((\[.*\])(?:,\s*dtype=['\"]?[\w<>=|]+['\"]?)?\)", re.DOTALL)
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
_ROW_OF_NUMPY = re.compile(rf"\[\s*(?:{_QUOTED.pattern})(?:\s+(?:{_QUOTED.pattern}))+\s*\]")
"""An array of texts as numpy prints it, without commas: Python would join them."""


def is_missing(value: Any) -> bool:
    """Whether there is nothing in a field: null, NaN, an empty text or an empty list."""
    if isinstance(value, str):
        return not value or value.isspace()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, list | tuple | dict | bytes) and not value


def is_nan(value: Any) -> bool:
    """Whether a text is what pandas writes for nothing. It may also be an answer."""
    return isinstance(value, str) and value.strip().lower() == "nan"


def at_path(values: Any, path: str) -> Any:
    """The value under a name, or inside other values, as in `extra_info.question` or `images.0`; None where there is none."""
    if isinstance(values, Mapping) and path in values:
        return values[path]
    head, dot, rest = path.partition(".")
    if isinstance(values, list) and head.isdecimal() and int(head) < len(values):
        found = values[int(head)]
    elif isinstance(values, Mapping) and head in values:
        found = values[head]
    else:
        return None
    return at_path(unpacked(found), rest) if dot else found


def with_objects(values: dict[str, Any], keep: Callable[[str], bool]) -> dict[str, Any]:
    """A row whose columns hold objects, or lists of them, where they held them as texts; but for columns that `keep` names."""
    opened = {
        name: found
        for name, text in values.items()
        if isinstance(text, str) and text.startswith(("{", "[{")) and not keep(name)
        if isinstance(found := unpacked(text), dict | list)
    }
    return values | opened if opened else values


def unpacked(value: Any) -> Any:
    """The list or object that a text holds, as JSON or as Python writes it; every other value as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if found := _OF_NUMPY.fullmatch(text):
        text = found[1]
    if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
        return value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _ROW_OF_NUMPY.fullmatch(text):
        return [one[1:-1] for one in _QUOTED.findall(text)]
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return found if isinstance(found, list | dict) and _is_printable(found) else value


def _is_printable(value: Any) -> bool:
    """Whether no whole number has more digits than Python would print."""
    if isinstance(value, dict):
        return all(map(_is_printable, [*value, *value.values()]))
    if isinstance(value, list | tuple | set):
        return all(map(_is_printable, value))
    return not isinstance(value, int) or abs(value) < _LARGEST
