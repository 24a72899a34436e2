"""Lets conversations of one process ask together, a round at a time, so that processes can keep in step.

The event loop of the conversations has a thread of its own. Rounds are answered in the thread that calls `play`, which may
then take part in collectives and use a device as it would without any event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")
T = TypeVar("T")


class Rounds(Generic[Request, Reply]):
    """The conversations of this process and what they wait for: a round begins when all that have not ended wait.

    order: sorts the requests of a round, so that it does not matter who came first.
    """

    def __init__(self, conversations: int, order: Callable[[Request], Any]) -> None:
        self._going, self._order = conversations, order
        self._waiting: list[tuple[Request, Future[Reply]]] = []
        self._changed = threading.Condition()
        self._failed: BaseException | None = None

    async def ask(self, request: Request) -> Reply:
        """The reply to a conversation's request; from any thread."""
        future: Future[Reply] = Future()
        with self._changed:
            if self._failed is not None:
                raise RuntimeError("there are no more rounds") from self._failed
            self._waiting.append((request, future))
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def leave(self) -> None:
        """A conversation has ended; from any thread."""
        with self._changed:
            self._going -= 1
            self._changed.notify()

    def play(
        self,
        conversations: Callable[[], Coroutine[Any, Any, T]],
        answer: Callable[[Sequence[Request]], Sequence[Reply] | None],
    ) -> T:
        """What the conversations come to.

        answer: the replies to a round's requests. It is called with none once all conversations have ended, until it
        says None: nobody anywhere has any. What it raises ends the conversations and is raised here, as is what they raise.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="conversations") as pool:
            played = pool.submit(lambda: asyncio.run(conversations()))
            played.add_done_callback(lambda _: self._wake())
            try:
                while self._ready(played):
                    asked = sorted(self._waiting, key=lambda one: self._order(one[0]))
                    replies = answer([request for request, _ in asked])
                    if replies is None:
                        break
                    self._waiting = []  # nobody else is left who could ask
                    for (_, future), reply in zip(asked, replies, strict=True):
                        if future.set_running_or_notify_cancel():
                            future.set_result(reply)
            except BaseException as error:
                self._break_off(error)
                raise
        return played.result()

    def _ready(self, played: Future[T]) -> bool:
        """Waits until a round can begin; False if none can, since a conversation broke off with an error."""
        with self._changed:
            self._changed.wait_for(lambda: played.done() or len(self._waiting) == self._going > 0)
        return not played.done() or played.exception() is None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _break_off(self, error: BaseException) -> None:
        with self._changed:
            self._failed = error
        for _, future in self._waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(RuntimeError("there are no more rounds"))
