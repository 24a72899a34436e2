"""Who is served now, who waits, and who is sent away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cof_agent.server.refusals import Refusal


class Places:
    """So many conversations at once, and so many requests that wait for a place. For one event loop."""

    def __init__(self, concurrency: int, waiting: int) -> None:
        self._most = concurrency + waiting
        self._free = asyncio.Semaphore(concurrency)
        self.inside = 0  # served or waiting

    @property
    def is_full(self) -> bool:
        """Whether nobody more may wait."""
        return self.inside >= self._most

    @staticmethod
    def refusal() -> Refusal:
        """What those hear who may not even wait."""
        return Refusal(503, "the server is busy: all places are taken; try again in a moment.", code="overloaded")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, as soon as there is one; a caller that is cancelled meanwhile leaves the queue.

        Raises:
            Refusal: 503, if too many wait already.
        """
        if self.is_full:
            raise self.refusal()
        self.inside += 1
        try:
            async with self._free:
                yield
        finally:
            self.inside -= 1
