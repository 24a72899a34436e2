"""Scenes for whoever needs some: drawing takes half a second each, so that all tests of a run share the pictures."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes

SIZE = Size(1600, 900)


class Scenes:
    """Makes folders as `cof scenes` leaves them."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        base = factory.getbasetemp()
        self._all = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "drawn"

    def __call__(
        self, count: int, *, split: str = "test", seed: int = 3, size: Size = SIZE, into: Path | None = None
    ) -> Path:
        """A folder with the first `count` scenes, whose pictures are those of all other tests: nothing may write into them.

        into: the folder; one of its own is made without it.
        """
        drawn, folder = self._all / f"{split}-{seed}-{size.width}", into or self._factory.mktemp("scenes")
        drawn.mkdir(parents=True, exist_ok=True)
        with (drawn / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = _lines(drawn)
            if len(lines) < count:
                write_scenes(drawn, count=count, seed=seed, size=size, split=split)
                lines = _lines(drawn)
        (folder / "images").mkdir(parents=True)
        for name in (json.loads(line)["image"] for line in lines[:count]):
            os.link(drawn / name, folder / name)
        (folder / "samples.jsonl").write_text("".join(lines[:count]))
        return folder


def _lines(folder: Path) -> list[str]:
    path = folder / "samples.jsonl"
    return path.read_text().splitlines(keepends=True) if path.exists() else []
