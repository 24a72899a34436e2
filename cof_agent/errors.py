"""The one exception a user's mistake raises; the command line prints it as one sentence and exits with 2."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class InputError(ValueError):
    """Bad input: what was wrong, where, and what to do, in one sentence that a person reads."""


def said(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 300 characters, for the sentence that is made of it; where it
    came from goes to the debug log."""
    _log.debug("told in a sentence", exc_info=error)
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_sentence(error: BaseException) -> str:
    """As `said`, but only the first sentence, without its full stop."""
    return said(error).split(". ")[0].rstrip(".")
