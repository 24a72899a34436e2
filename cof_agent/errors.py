"""The one exception a user's mistake raises; the command line prints it as one sentence and exits with 2."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

_log = logging.getLogger(__name__)


class InputError(ValueError):
    """Bad input: what was wrong, where, and what to do, in one sentence that a person reads."""


def check_text(text: object, what: str) -> None:
    """Raises: InputError: if it is no text, says nothing, or holds bytes of another encoding than UTF-8."""
    if not isinstance(text, str):
        raise InputError(f"{what} is no text, but {type(text).__name__}.")
    if not text.strip():
        raise InputError(f"{what} is empty.")
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise InputError(f"{what} is no UTF-8 text.")


def said(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 300 characters, for the sentence that is made of it; where it
    came from goes to the debug log."""
    _log.debug("told in a sentence", exc_info=error)
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_sentence(error: BaseException) -> str:
    """As `said`, but only the first sentence, without its full stop."""
    return said(error).split(". ")[0].rstrip(".")


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """The sentence about a name that nobody knows; the nearest known one is named."""
    name = name.partition("=")[0]
    close = difflib.get_close_matches(name, known, 1)
    return f"there is no {kind} {name}" + (f"; did you mean {close[0]}?" if close else ".")
