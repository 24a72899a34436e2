"""How much a model is asked to think before it answers: a word, or a number of tokens."""

from __future__ import annotations

NO_REASONING = "none"
REASONING = (NO_REASONING, "low", "medium", "high")


def is_reasoning(value: str) -> bool:
    """Whether it is one of the words, or a number of tokens."""
    return value in REASONING or (value.isdecimal() and 0 < int(value) < 10**9)
