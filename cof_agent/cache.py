"""A bounded memory of values that are dear to make."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """The most recently used values, as many as `budget` holds of what they cost, and always the last one. Thread-safe.

    dropped: called with each value that has to go.
    """

    def __init__(self, budget: int, dropped: Callable[[Value], None] = lambda _: None) -> None:
        self._budget, self._dropped = budget, dropped
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._held = 0  # what all values cost

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, key: Hashable) -> Value | None:
        """The value under `key`, if it is there; that does not count as a use."""
        with self._lock:
            entry = self._values.get(key)
            return None if entry is None else entry[0]

    def get(self, key: Hashable, make: Callable[[], Value], cost: Callable[[Value], int]) -> Value:
        """The value under `key`; made outside the lock, and of two made at the same time the first one stays."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        made = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = (made, cost(made))
                self._held += self._values[key][1]
            self._values.move_to_end(key)
            kept = self._values[key][0]
            while len(self._values) > 1 and self._held > self._budget:
                value, held = self._values.popitem(last=False)[1]
                self._held -= held
                self._dropped(value)
            return kept
