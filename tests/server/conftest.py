"""One server with nano for the tests that change nothing in it, and a scene to ask about."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cof_agent.commands.serve import NEEDED
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Size
from cof_agent.trajectory import Sample
from tests.scenes.shared import Scenes

if TYPE_CHECKING:
    from cof_agent.server.service import Service

# The tests of the server are skipped where the extra `serve` is missing.
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ["test_*.py"]


@pytest.fixture(scope="session")
def scenes(drawn: Scenes) -> Path:
    """A folder with three scenes."""
    return drawn(3, seed=1, size=Size(1920, 1080))


@pytest.fixture(scope="session")
def scene(scenes: Path) -> Sample:
    """A question for which nano zooms twice."""
    return read_samples(scenes)[2]


@pytest.fixture(scope="session")
def served(scenes: Path) -> Iterator[tuple[str, Service]]:
    """The address of a server that may open the scenes, and its service."""
    from tests.server.running import running

    with running(scenes) as found:
        yield found


def data_url(path: str | Path) -> str:
    """A picture as clients send it."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()
