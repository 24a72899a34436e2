"""A clock for tests of waiting: an event loop that sleeps goes on at once, and time has passed."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Clock:
    """Stands in for `time.monotonic`. Time passes only while every task of `run` sleeps, and by what they sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As `asyncio.run`, without its waits."""
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Selector(self))) as runner:
            return runner.run(coroutine)


class _Selector(selectors.SelectSelector):
    """Of a loop that waits for nothing but time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += timeout or 0.0
        return super().select(0)
