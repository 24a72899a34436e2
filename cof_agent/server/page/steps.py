"""What the agent does, step by step beside the image: the thought, the crops it brought, the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from cof_agent.geometry import View
from cof_agent.graphs.steps import Event, Looked, Saw, Spoke
from cof_agent.protocol import thought
from cof_agent.server.looks import Looks
from cof_agent.server.words import ENDED
from cof_agent.trajectory import Observation, StopReason, Trajectory
from cof_agent.viewer.picture import PALETTE, altered


class Steps:
    """The steps of one conversation. on_zoom: called with each crop and its number; on_look: when the reader chooses one."""

    def __init__(
        self, looks: Looks, on_zoom: Callable[[View, int], None], on_look: Callable[[View], Awaitable[None]]
    ) -> None:
        self._looks, self._on_zoom, self._on_look = looks, on_zoom, on_look
        self._images: Sequence[str] = ()
        self._count = 0
        self._column = ui.column().classes("w-full gap-2 cof-steps").props('aria-live="polite" role="log"')

    def begin(self, images: Sequence[str]) -> None:
        """Empties the list for a conversation about these images."""
        self._column.clear()
        self._images, self._count = images, len(images) - 1  # crops are numbered after the images

    def follow(self, event: Event) -> None:
        """Adds what has just happened, and moves to it."""
        self._add(event)
        self._move(f"const steps = getHtmlElement({self._column.id}); steps.scrollTop = steps.scrollHeight")

    def replay(self, trajectory: Trajectory) -> None:
        """Shows a conversation that is over."""
        self.begin(trajectory.sample.images)
        if trajectory.overviews:
            self._add(Looked(trajectory.sample, trajectory.overviews))
        for number, turn in enumerate(trajectory.turns):
            self._add(Spoke(number, turn, thought(turn.text)))
            self._add(Saw(number, turn.actions, turn.observations))
        self._end(trajectory)

    def close(self, trajectory: Trajectory) -> None:
        """Adds the answer, or why there is none, and moves to it."""
        self._end(trajectory)
        self._move(f"getHtmlElement({self._column.id}).lastElementChild.scrollIntoView({{block: 'nearest'}})")

    def say(self, sentence: str) -> None:
        """Adds a sentence that says what went wrong."""
        with self._column, ui.row().classes("w-full items-start no-wrap"):
            ui.icon("warning", color="warning").classes("text-xl")
            ui.label(sentence).classes("cof-text")

    def _move(self, script: str) -> None:
        """Scrolls once the browser has drawn what was added."""
        ui.run_javascript(f"setTimeout(() => {{ {script} }}, 50)")

    def _end(self, trajectory: Trajectory) -> None:
        with self._column:
            if trajectory.answer is not None:
                ui.label(trajectory.answer).classes("cof-text cof-answer").props('data-testid="answer"')
            else:
                failed = trajectory.stop is StopReason.ERROR
                self.say(trajectory.error or "The conversation failed." if failed else ENDED[trajectory.stop])
            if trajectory.sample.answers:
                _quiet(f"Known answer: {' or '.join(trajectory.sample.answers)}")
            if trajectory.warning is not None:
                _quiet(f"Unreliable: {trajectory.warning}")
            for note in trajectory.notes:
                _quiet(note)
            if (sentence := altered(trajectory)) is not None:
                _quiet(f"{sentence}.")
            _quiet(_spent(trajectory))

    def _add(self, event: Event) -> None:
        with self._column:
            match event:
                case Looked(overviews=overviews):
                    sizes = "; ".join(f"{view.source_size} pixels, shown at {view.shown_size}" for view in overviews)
                    _quiet(f"Overview: {sizes}")
                case Spoke(number=number, thought=text):
                    self._spoke(number, text)
                case Saw(observations=observations):
                    self._saw(observations)

    def _spoke(self, number: int, text: str) -> None:
        with ui.element("div").classes("cof-step"):
            _quiet(f"Turn {number + 1}")
            if text:
                ui.label(text).classes("cof-text")

    def _saw(self, observations: Sequence[Observation]) -> None:
        for one in observations:
            if one.view is not None:
                self._crop(one.view)
            else:
                _quiet(one.text or f"Refused: {one.error}")
            if one.note:
                _quiet(one.note)

    def _crop(self, view: View) -> None:
        self._count += 1
        number, colour = self._count, PALETTE[(self._count - 1) % len(PALETTE)]
        look = self._looks.of(self._images[view.source], view.region, view.source_size)
        x0, y0, x1, y1 = view.region.pixels()
        of = f" of image {view.source}" if len(self._images) > 1 else ""
        words = f"{number}: {x1 - x0} × {y1 - y0} pixels at ({x0}, {y0}){of}"
        with ui.element("div").classes("cof-step").style(f"border-color: {colour}").props('data-testid="crop"'):
            ui.button(words, on_click=lambda: self._on_look(view)).props("flat dense no-caps icon=center_focus_strong")
            if view.tool is None:
                ui.element("img").props(f'src="/crops/{look.id}" alt="crop {number}"').classes("cof-crop")
        self._on_zoom(view, number)


def _quiet(text: str) -> None:
    ui.label(text).classes("cof-text cof-quiet text-sm")


def _spent(trajectory: Trajectory) -> str:
    known = [one.tokens.completion for one in trajectory.turns if one.tokens.completion is not None]
    tokens = f", {sum(known):,} tokens written" if known else ""
    zooms = "1 zoom" if trajectory.zooms == 1 else f"{trajectory.zooms} zooms"
    return f"{zooms}, {trajectory.seconds:.1f} s{tokens}; {trajectory.policy}"
