"""Rows of like length stand together, so that little of a micro-batch is padding."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd


def by_length(lengths: Sequence[int], window: int) -> list[int]:
    """The places of rows in an order in which each window of so many rows holds the same rows as before, the longest first.

    What an optimiser step is made of stays, where a step is a number of windows. The longest rows come first, so that a run
    whose memory does not suffice fails at once.
    """
    places = list(range(len(lengths)))
    windows = (places[start : start + window] for start in range(0, len(places), window))
    return [place for part in windows for place in sorted(part, key=lambda place: -lengths[place])]


def window_of(micro_batches: int, accumulated: int, rows: int) -> int:
    """How many rows may be put in another order, where so many micro-batches of `rows` rows are made at a time, and so many are
    accumulated for a step: none of them leaves its step, wherever in a step they begin to be used."""
    return gcd(micro_batches, accumulated) * rows
