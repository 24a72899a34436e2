"""Text of models, data and files, made harmless for where it is written: a terminal, a cell of CSV, Markdown."""

from __future__ import annotations

import re
from typing import TypeVar

Cell = TypeVar("Cell")

# Control characters (ESC begins a terminal's commands), other line breaks, what reverses the order of the letters around it,
# and halves of surrogate pairs, which no terminal can be sent.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# An underscore inside a word, and a `<` before a blank or a number, mean nothing in Markdown.
_MARKDOWN = re.compile(r"[\\`*\[\]|#~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])")


def for_terminal(text: object, *, lines: bool = False) -> str:
    """The text with control characters, bidirectional overrides and half surrogates as `\\u001b`, and so on.

    lines: line breaks and tabs stay as they are. JSON remains the same JSON.
    """

    def escaped(found: re.Match[str]) -> str:
        return found[0] if lines and found[0] in "\n\t" else f"\\u{ord(found[0]):04x}"

    return _UNSAFE.sub(escaped, str(text))


def for_csv(cell: Cell) -> Cell | str:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe. Numbers stay."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def for_markdown(text: str) -> str:
    """One line of text that Markdown shows as it is, in a table too."""
    return _MARKDOWN.sub(r"\\\g<0>", for_terminal(" ".join(text.split())))
