"""The drawn image; pages that nano's trajectories are written to, and the browser that opens them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cof_agent.agent import Agent
from cof_agent.data.samples import read_samples
from cof_agent.evaluation.compare import compare
from cof_agent.evaluation.gain import gains
from cof_agent.evaluation.runs import Run
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.plots import plots_of
from cof_agent.viewer.report import write_page
from tests.scenes.shared import Scenes
from tests.viewer.drawn import draw_field
from tests.viewer.pages import answered, fetches, run_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = shutil.which("chromium")
LONGEST = 60_000  # milliseconds for what takes less than one second on an idle machine


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw_field(tmp_path / "scene.png")


@pytest.fixture(scope="session")
def played(drawn: Scenes) -> list[Trajectory]:
    """What nano does with three questions; it zooms once at least."""
    found = Agent("nano").ask_many(read_samples(drawn(3)), progress=False)
    assert any(one.zooms for one in found)
    return found


@pytest.fixture(scope="session")
def trained(played: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an RL run: the trajectories with what training adds. See `run_of`."""
    path = tmp_path_factory.mktemp("page") / "run.html"
    write_page(run_of(played), path, title="run", score=accuracy)
    return path


@pytest.fixture(scope="session")
def compared(played: list[Trajectory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs of eight questions. `before` is right on the first four, `after` on the even ones, and `part` was
    asked six. The options of one question stand in another order."""
    folder = tmp_path_factory.mktemp("compared")
    runs = [
        Run("before", answered(played, [k < 4 for k in range(8)], max_zooms=0)),
        Run("after", answered(played, [k % 2 == 0 for k in range(8)], max_zooms=6)),
        Run("part", answered(played, [True] * 6, max_zooms=6)),
    ]
    moved = runs[1].trajectories[7]
    assert isinstance(runs[1].trajectories, list)
    choices = moved.sample.choices[::-1]
    runs[1].trajectories[7] = replace(moved, sample=replace(moved.sample, choices=choices), shuffle_seed=1)
    found = {run.name: compare(runs[0].trajectories, run.trajectories) for run in runs[1:]}
    gained, plots = gains(runs), plots_of(runs) if find_spec("matplotlib") else None
    write_comparison(runs, found, plots, folder / "report.html", gained=gained)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("the pages are tried in a browser only where there is chromium")
    reason = "the pages are tried in a browser only with playwright: pip install playwright"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    api.expect.set_options(timeout=LONGEST)
    with api.sync_playwright() as playwright:
        # Without its own sandbox Chromium runs in containers, too; it only opens files that these tests have written.
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Path], Page]]:
    """Opens a written page. At the end of the test: nothing was said on the console, asked for, or popped up."""
    faults: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    context = browser.new_context(viewport={"width": 1300, "height": 900})
    context.set_default_timeout(LONGEST)
    context.on("console", lambda message: faults.append(f"console: {message.text}"))
    context.on("weberror", lambda error: faults.append(f"error: {error.error}"))
    context.on("dialog", dismiss)
    context.on("request", lambda request: faults.append(f"request: {request.url}") if fetches(request.url) else None)

    def go(path: Path) -> Page:
        page = context.new_page()
        page.goto(path.as_uri())
        return page

    yield go
    context.close()
    assert faults == []
