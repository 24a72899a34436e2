"""The next batch is looked up, and played in a thread of its own, while the present one is trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lookahead:
    """What an epoch's iterator gives, an update's worth at a time, read one update ahead. Ends with the epoch."""

    def __init__(self) -> None:
        self._iterator: Iterator[Any] | None = None
        self._next: tuple[list[Any], Any] = ([], None)

    def batches(self, iterator: Iterator[Any], read: Callable[[], tuple[list[Any], Any]]) -> tuple[list[Any], Any]:
        """The batches of this update, and the number of their items; as `read` gives them."""
        found = self._next if iterator is self._iterator else read()
        self._iterator, self._next = iterator, read()
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the next update; none at the end of an epoch."""
        batches, _ = self._next
        return batches[0] if batches else []


class Begun(Generic[T]):
    """What is played in the background: one thing at a time."""

    def __init__(self) -> None:
        self._future: Future[T] | None = None
        self._step = 0

    def start(self, play: Callable[[], T], step: int) -> None:
        """Plays from now on. step: at which the weights are that play."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(play())
            except BaseException as error:
                future.set_exception(error)

        # A daemon: a run that fails need not wait for it.
        threading.Thread(target=run, name="next batch", daemon=True).start()
        self._future, self._step = future, step

    def taken(self) -> tuple[T, int] | None:
        """What was begun, once it is done, and its step; None if nothing was."""
        future, self._future = self._future, None
        return None if future is None else (future.result(), self._step)
