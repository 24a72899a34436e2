"""Runs of the server's folders on the page: choose a file of trajectories, and one of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from nicegui import ui

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.server.folders import Folders
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.full_resolution import short_id
from cof_agent.viewer.located import located

MOST = 2_000
"""Trajectories of one file that are listed, the first ones."""

_FARTHEST = 1 << 31  # place in a file
_LONGEST = 90  # characters of a question in the list


class Runs:
    """Two lists: files, and the trajectories of the chosen one. on_open: called with the chosen trajectory."""

    def __init__(
        self, folders: Folders, files: Sequence[str], on_open: Callable[[Trajectory], Awaitable[None]]
    ) -> None:
        self._folders, self._on_open = folders, on_open
        self._read: list[Trajectory] = []
        if not files:
            ui.label("There are no trajectories in the folders of --allow-images-from.").classes("cof-quiet")
            return
        names = {file: "/".join(Path(file).parts[-3:]) for file in files}
        ui.select(names, label="File of trajectories", on_change=lambda event: self._open(event.value)).classes(
            "w-full"
        )
        self._list = ui.select(
            {}, label="Trajectory", with_input=True, on_change=lambda event: self._choose(event.value)
        )
        self._list.classes("w-full").set_visibility(False)

    async def _open(self, file: str) -> None:
        try:
            self._read = await asyncio.to_thread(_trajectories, self._folders, file)
        except InputError as error:
            ui.notify(str(error), type="negative")
            return
        if len(self._read) == MOST:
            ui.notify(f"Only the first {MOST:,} trajectories are listed.", type="warning")
        self._list.set_options({number: _line(one) for number, one in enumerate(self._read)}, value=None)
        self._list.set_visibility(True)

    async def _choose(self, number: int | None) -> None:
        if number is not None:
            await self._on_open(self._read[number])


def _trajectories(folders: Folders, file: str) -> list[Trajectory]:
    return list(islice(_read(folders, file), MOST))


def trajectory_at(folders: Folders, file: str, number: int, id: str) -> Trajectory:
    """The trajectory at a place of a file, from 0. id: that of its sample, as `short_id` has it.

    Raises:
        InputError: if there is no such file in the folders, or another trajectory stands there.
    """
    found = next(islice(_read(folders, file), number, None), None) if 0 <= number < _FARTHEST else None
    if found is None or short_id(found.sample.id) != id:
        raise InputError("the file of trajectories has changed since the page with this link was written.")
    return found


def _read(folders: Folders, file: str) -> Iterator[Trajectory]:
    """The trajectories of a file with absolute paths of images."""
    path = Path(folders.file(file))
    for one in read_jsonl(path, Trajectory):
        sample = located(one, path.parent).sample
        yield replace(one, sample=sample.with_images(map(os.path.abspath, sample.images)))


def _line(trajectory: Trajectory) -> str:
    mark = {True: "✓", False: "✗", None: "·"}[scoring.accuracy(trajectory)]
    question = trajectory.sample.question
    return f"{mark} {question[:_LONGEST]}{'…' if len(question) > _LONGEST else ''}"
