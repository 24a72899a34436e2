"""How long something computes: the least of a few tries, so that neither a busy machine nor a garbage collection makes a reader
look slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 3


def timed(act: Callable[[], T], limit: float, clock: Callable[[], float] = time.thread_time) -> tuple[T, float]:
    """What `act` returns, and its seconds of computing; more than the `limit` counts only if it comes again.

    clock: of this thread alone; `time.process_time` where other threads do the work.
    """
    least = float("inf")
    for _ in range(TRIES):
        started = clock()
        result = act()
        least = min(least, clock() - started)
        if least <= limit:
            break
    return result, least
