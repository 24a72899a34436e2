"""The page of one reader: the images on the left, the question and the steps on the right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nicegui import background_tasks, ui

from cof_agent.errors import InputError
from cof_agent.geometry import Box, View
from cof_agent.region_refs import read_region
from cof_agent.server.gone import ended
from cof_agent.server.looks import Looks
from cof_agent.server.page.history import Asked, Histories, History
from cof_agent.server.page.runs import Runs, trajectory_at
from cof_agent.server.page.sources import MOST, Sources
from cof_agent.server.page.steps import Steps
from cof_agent.server.page.strip import Strip
from cof_agent.server.page.viewer import Viewer
from cof_agent.server.refusals import Refusal
from cof_agent.server.service import Question, Service
from cof_agent.server.tiles import Tiles
from cof_agent.trajectory import Trajectory, to_json


class Desk:
    """Everything on the page of one reader. It ends with the page: its images go, a conversation under way is cancelled."""

    def __init__(self, service: Service, tiles: Tiles, looks: Looks, histories: Histories) -> None:
        self._service, self._tiles, self._looks, self._histories = service, tiles, looks, histories
        self._images: list[str] = []  # paths of what is asked about
        self._regions: list[Box] = []
        self._zooms_seen: list[tuple[View, int]] = []  # of the conversation that is shown, with their numbers
        self._source = 0  # which of the images is shown
        self._last: Trajectory | None = None
        self._task: asyncio.Task[None] | None = None
        self._left = False  # whether the reader has closed the page

    def build(self, images: Sequence[str], runs: Sequence[str]) -> None:
        """Draws the page. images, runs: paths of the server's files that a reader may choose, see `Folders`."""
        self._client = ui.context.client
        self._client.on_delete(self._leave)
        self._head()
        with ui.element("main").classes("cof-columns"):
            with ui.column().classes("w-full gap-2 cof-images"):
                self._sources = Sources(self._service, images, self._take)
                self._strip = Strip(self._show, self._take_away)
                self._viewer = Viewer(self._drawn)
            with ui.column().classes("w-full gap-2 cof-panel"):
                with ui.tabs().classes("w-full").props("dense no-caps") as tabs:
                    ask, recorded, history = ui.tab("Ask"), ui.tab("Runs"), ui.tab("History")
                with ui.tab_panels(tabs, value=ask, animated=False).classes("w-full bg-transparent"):
                    with ui.tab_panel(ask).classes("p-0"):
                        self._question_form()
                    with ui.tab_panel(recorded).classes("p-0"):
                        Runs(self._service.incoming.folders, runs, self._open_run)
                    with ui.tab_panel(history).classes("p-0"):
                        self._history = History(self._histories, self._ask_again)
                self._steps = Steps(self._looks, self._zoomed, self._look_at)
                self._save = ui.button("Download the trajectory", on_click=self._download, icon="download")
                self._save.props("flat no-caps").set_visibility(False)

    def _head(self) -> None:
        dark = ui.dark_mode(None)
        with ui.row().classes("w-full items-center no-wrap"):
            ui.label("Chain-of-Focus").classes("text-xl font-bold").props('role="heading" aria-level="1"')
            ui.label(self._service.name).classes("cof-quiet ellipsis")
            ui.space()
            with ui.button(icon="contrast").props('flat round aria-label="Light or dark"'), ui.menu():
                for words, value in (("As the system", None), ("Light", False), ("Dark", True)):
                    ui.menu_item(words, on_click=lambda value=value: dark.set_value(value))

    def _question_form(self) -> None:
        with ui.row().classes("w-full items-center no-wrap gap-2"):
            self._text = ui.input("Question").classes("grow").on("keydown.enter", self._ask)
            self._button = ui.button("Ask", on_click=self._ask, icon="search").props("no-caps text-color=on-primary")
            self._stop = ui.button("Stop", on_click=self._stopped, icon="stop").props("no-caps outline")
            self._stop.set_visibility(False)
        with ui.expansion("Settings", icon="tune").classes("w-full").props("dense"):
            self._choices = ui.textarea("Possible answers, one per line").classes("w-full").props("autogrow dense")
            self._boxes = ui.input("Boxes X0,Y0,X1,Y1 for <region1> <region2> …", on_change=self._boxes_written)
            self._boxes.classes("w-full").props("dense clearable")
            self._zooms = ui.number("Zooms at most", value=self._service.config.zooms, min=0, max=50, precision=0)
            self._warmth = ui.number(
                "Temperature", value=self._service.config.sampling.temperature, min=0, max=2, step=0.1
            )
            for number in (self._zooms, self._warmth):
                number.classes("w-full").props("dense")

    async def _take(self, paths: list[str], joins: bool) -> None:
        """Images that the reader chose, to ask about; they may join those that are there."""
        before = self._images if joins else []
        if len(before) + len(paths) > MOST:
            ui.notify(f"A question has at most {MOST} images.", type="negative")
            return
        await self._open([*before, *paths], len(before))

    async def _take_away(self, number: int) -> None:
        rest = [path for place, path in enumerate(self._images) if place != number]
        await self._open(rest, min(self._source, len(rest) - 1))

    async def _open(self, paths: Sequence[str], shown: int = 0) -> bool:
        """Begins anew with these images; whether they can be opened."""
        await self._stopped()
        try:
            opened = [self._sources.real(path) for path in paths]
            for path in opened:
                await self._service.size(path)
        except InputError as error:
            ui.notify(self._service.incoming.without_folders(str(error)), type="negative")
            return False
        self._images, self._regions, self._zooms_seen = opened, [], []
        self._boxes.set_value("")
        self._steps.begin(opened)
        self._save.set_visibility(False)
        await self._show(shown)
        return True

    async def _show(self, number: int) -> None:
        """Shows one of the images, with the boxes that lie in it."""
        self._source = number
        with self._client:  # in place of the button of the strip that was clicked, which goes now
            self._strip.show([self._sources.name_of(path) for path in self._images], number)
            await self._viewer.show(await self._tiles.show(self._images[number]))
            self._draw_regions()
            for view, place in self._zooms_seen:
                self._draw(view, place)

    def _drawn(self, box: Box) -> None:
        """A box that was drawn becomes the next region of the question."""
        self._regions.append(box)
        number = len(self._regions)
        self._boxes.set_value(_written(self._regions))
        if f"<region{number}>" not in self._text.value:
            self._text.set_value(f"{self._text.value.rstrip()} <region{number}>".strip())

    def _boxes_written(self) -> None:
        """The boxes as they stand in the settings, which a drawn one is added to."""
        try:
            self._regions = [read_region(word) for word in (self._boxes.value or "").split()]
        except InputError:
            return  # while it is being written; `_ask` says what is wrong
        if self._images:
            self._viewer.clear_regions()
            self._draw_regions()

    def _draw_regions(self) -> None:
        """The regions of the question lie in the first image."""
        for number, box in enumerate(self._regions if self._source == 0 else [], 1):
            self._viewer.box(box, f"region {number}")

    def _question(self) -> Question:
        """What is asked.

        Raises:
            InputError: if there is no image, or a box cannot be read.
        """
        if not self._images:
            raise InputError("First drop a picture, or choose one of the server's.")
        regions = tuple(read_region(word) for word in (self._boxes.value or "").split())
        choices = tuple(line.strip() for line in (self._choices.value or "").splitlines() if line.strip())
        changes: dict[str, Any] = {}
        if self._zooms.value is not None and int(self._zooms.value) != self._service.config.zooms:
            changes["max_zooms"] = int(self._zooms.value)
        if self._warmth.value not in (None, self._service.config.sampling.temperature):
            changes["temperature"] = float(self._warmth.value)
        return Question(tuple(self._images), self._text.value or "", choices, regions, changes)

    async def _ask(self) -> None:
        if self._task is not None:
            return
        try:
            question = self._question()
            await self._service.check(question)
        except InputError as error:
            ui.notify(self._service.incoming.without_folders(str(error)), type="negative", multi_line=True)
            return
        if self._task is not None:  # begun while this one was looked at
            return
        self._steps.begin(question.images)
        self._zooms_seen, self._regions = [], list(question.regions)
        self._viewer.clear()
        self._draw_regions()
        self._busy(True)
        self._task = background_tasks.create(self._play(question), name="ask")

    async def _play(self, question: Question) -> None:
        try:
            with self._client:
                trajectory = await self._service.ask(question, self._steps.follow)
                self._close(trajectory)
        except (InputError, Refusal) as error:
            self._steps.say(self._service.incoming.without_folders(str(error)))
        except asyncio.CancelledError:
            if not self._left:
                self._steps.say("Stopped.")
            raise
        finally:
            self._task = None
            if not self._left:
                self._busy(False)

    def _close(self, trajectory: Trajectory) -> None:
        self._steps.close(trajectory)
        self._keep(trajectory)
        self._history.add(Asked(trajectory, self._sources.sent(trajectory.sample.images)))

    def _keep(self, trajectory: Trajectory) -> None:
        self._last = trajectory
        self._save.set_visibility(True)

    async def open_recorded(self, file: str, number: int, id: str) -> None:
        """Shows the trajectory at this place of a file, if it is the one of this sample."""
        try:
            found = await asyncio.to_thread(trajectory_at, self._service.incoming.folders, file, number, id)
        except InputError as error:
            ui.notify(self._service.incoming.without_folders(str(error)), type="negative", multi_line=True)
            return
        await self._open_run(found)

    async def _open_run(self, trajectory: Trajectory) -> None:
        """Shows a trajectory of a file, if its images lie in the folders."""
        if not all(map(self._service.incoming.folders.contains, trajectory.sample.images)):
            ui.notify("The image of this trajectory is in none of the server's folders.", type="negative")
            return
        await self._again(trajectory)

    async def _ask_again(self, asked: Asked) -> None:
        self._sources.hold(asked.sent)
        await self._again(asked.trajectory)

    async def _again(self, trajectory: Trajectory) -> None:
        shown = next((view.source for view in trajectory.crops), 0)  # of several images the one that was looked into
        if not await self._open(trajectory.sample.images, shown):
            return
        self._text.set_value(trajectory.sample.question)
        self._boxes.set_value(_written(trajectory.sample.regions))
        self._choices.set_value("\n".join(trajectory.sample.choices))
        self._zooms.set_value(trajectory.settings.get("max_zooms", self._service.config.zooms))
        sampling = trajectory.settings.get("sampling") or {}
        self._warmth.set_value(sampling.get("temperature", self._service.config.sampling.temperature))
        self._steps.replay(trajectory)
        self._keep(trajectory)

    def _zoomed(self, view: View, number: int) -> None:
        self._zooms_seen.append((view, number))
        self._draw(view, number)

    def _draw(self, view: View, number: int) -> None:
        if view.source == self._source:
            self._viewer.box(view.region, str(number), number)

    async def _look_at(self, view: View) -> None:
        if view.source != self._source:
            await self._show(view.source)
        self._viewer.look_at(view.region)

    def _download(self) -> None:
        if self._last is not None:
            sample = self._last.sample
            named = sample.with_images(map(self._sources.file_name, sample.images))
            if sample.id == Path(sample.image).name:  # as `Question.sample` calls it
                named = replace(named, id=named.image)
            ui.download.content(to_json(replace(self._last, sample=named)) + "\n", "trajectory.jsonl")

    def _busy(self, busy: bool) -> None:
        self._stop.set_visibility(busy)
        self._button.set_visibility(not busy)

    async def _stopped(self) -> None:
        """Ends the conversation that is under way, if there is one."""
        if self._task is not None:
            await ended(self._task)

    def _leave(self) -> None:
        self._left = True
        if self._task is not None:
            self._task.cancel()
        self._sources.close()


def _written(boxes: Sequence[Box]) -> str:
    return " ".join(",".join(f"{edge:.10g}" for edge in box) for box in boxes)
