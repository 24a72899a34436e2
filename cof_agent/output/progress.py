"""The progress of long work, on stderr: a bar on a terminal; elsewhere, as in the log of a job, a line a minute."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

EVERY = 60.0
"""Seconds between two lines."""
_LAST = 10
"""Lines over which the pace is taken: what an earlier run has done is skipped in no time, and says nothing about the rest."""

T = TypeVar("T")


Tell = Callable[[int, int | None], None]
"""Called with the number of things done and the number of all, or None if that is not known."""


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Tell]:
    """Shows progress while the block runs, unless `quiet`. The block calls what it gets with the numbers."""
    if quiet:
        yield lambda done, total: None
        return
    from cof_agent.output.terminal import console  # `cof --help` need not pay the tenth of a second

    screen = console(stderr=True)
    if screen.is_terminal:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        left = (TextColumn("left"), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *left)
        with Progress(*columns, console=screen) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield Lines(title).tell


def track(items: Iterable[T], title: str, total: int | None = None, *, quiet: bool = False) -> Iterator[T]:
    """The items, with progress. total: how many there are, where their `len` does not say it."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    done = 0
    with progress(title, quiet=quiet) as tell:
        tell(done, total)
        for item in items:
            yield item
            done += 1
            tell(done, total)


class Lines:
    """Such as "Reading pictures: 40 of 200, about 1:05:00 left". write: where to; now: in seconds."""

    def __init__(
        self,
        title: str,
        write: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._write, self._now = title, write, now
        self._told = deque([(now(), 0)], maxlen=_LAST)

    def tell(self, done: int, total: int | None) -> None:
        """Writes a line, if the last one was long ago."""
        now = self._now()
        if now - self._told[-1][0] < EVERY:
            return
        began, before = self._told[0]
        self._told.append((now, done))
        line = f"{self._title}: {done:,}" + (f" of {total:,}" if total is not None else "")
        if total is not None and done > before:
            line += f", about {clock((now - began) / (done - before) * (total - done))} left"
        self._write(line)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03, or 2:03 for less than an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
