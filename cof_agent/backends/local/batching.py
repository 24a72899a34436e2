"""Lets many callers share one model: their requests are worked on together, step by step, in one worker thread."""

from __future__ import annotations

import asyncio
import atexit
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

LAST_STEP = 20.0  # seconds that the end of the interpreter waits for a step

Request = TypeVar("Request")
Result = TypeVar("Result")
Request_contra = TypeVar("Request_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Engine(Protocol[Request_contra, Result_co]):
    """What works on a batch whose members come and go. Called from one thread only."""

    capacity: int

    def admit(self, request: Request_contra) -> int:
        """Starts on a request and returns its key; what it raises reaches the caller of that request."""

    def step(self) -> Mapping[int, Result_co]:
        """Goes one step on with everything admitted; returns what is finished, and forgets it."""

    def drop(self, key: int) -> None:
        """Forgets a request whose caller has gone."""

    def reset(self) -> None:
        """Forgets everything, after an error in `step`."""


IDLE = 1.0
"""Seconds after which a worker without work ends: it holds the engine, which could not be freed else."""


class Batcher(Generic[Request, Result]):
    """Feeds an engine from any number of callers, in any thread and any event loop.

    Requests join the running batch as soon as there is room and leave it when they are done, so that nobody waits
    for the slowest. An error in one request's admission reaches its caller alone, an error in a step, or anywhere else
    in the engine, everybody in the batch; whoever asks after that is answered. A caller that is cancelled is dropped
    without touching the others. When the interpreter ends, the worker finishes its step and stops: a thread that were still
    inside the engine's native code would abort the process.
    """

    def __init__(self, engine: Engine[Request, Result]) -> None:
        self._engine = engine
        self._waiting: deque[tuple[Request, Future[Result]]] = deque()
        self._active: dict[int, Future[Result]] = {}
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._ending = False
        _all.add(self)

    async def submit(self, request: Request) -> Result:
        """The engine's result for `request`."""
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((request, future))
            if self._worker is None or not self._worker.is_alive():
                # A daemon, so that Ctrl-C need not wait for answers nobody wants any more.
                self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._worker.start()
            self._changed.notify()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _work(self) -> None:
        while True:
            with self._changed:
                idle = not self._changed.wait_for(lambda: self._ending or self._waiting or self._active, timeout=IDLE)
                if self._ending or idle:
                    self._worker = None  # the next request starts another one
                    return
            try:
                self._drop_cancelled()
                self._admit()
                if self._active:
                    self._step()
            except BaseException as error:  # of the engine's; the callers hear of it, and the worker lives on
                self._give_up(error)

    def end(self, timeout: float) -> None:
        """Stops the worker, for which it waits up to `timeout` seconds."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            worker = self._worker
        if worker is not None:
            worker.join(timeout)

    def _drop_cancelled(self) -> None:
        for key in [key for key, future in self._active.items() if future.cancelled()]:
            del self._active[key]
            self._engine.drop(key)

    def _admit(self) -> None:
        while len(self._active) < self._engine.capacity:
            with self._changed:
                if not self._waiting:
                    return
                request, future = self._waiting.popleft()
            if future.cancelled():
                continue
            try:
                self._active[self._engine.admit(request)] = future
            except BaseException as error:
                _fail(future, error)

    def _give_up(self, error: BaseException) -> None:
        """Fails everybody in the batch, and begins anew."""
        failed, self._active = list(self._active.values()), {}
        for future in failed:
            _fail(future, error)
        self._engine.reset()

    def _step(self) -> None:
        finished = self._engine.step()
        for key, result in finished.items():
            future = self._active.pop(key)
            if future.set_running_or_notify_cancel():
                future.set_result(result)


def _fail(future: Future[Result], error: BaseException) -> None:
    """Tells a caller; what the frames of the error held, such as the tensors of a prompt, goes with it."""
    traceback.clear_frames(error.__traceback__)
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


_all: WeakSet[Batcher[Any, Any]] = WeakSet()


@atexit.register
def _end_all() -> None:
    for batcher in list(_all):
        batcher.end(LAST_STEP)
