"""The images of a question, where there are several: which one is shown, and which are taken away again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui


class Strip:
    """A row of names. on_show, on_remove: called with the number of an image, from 0."""

    def __init__(self, on_show: Callable[[int], Awaitable[None]], on_remove: Callable[[int], Awaitable[None]]) -> None:
        self._on_show, self._on_remove = on_show, on_remove
        self._row = ui.row().classes("w-full items-center gap-1 cof-strip").props('role="group" aria-label="Images"')

    def show(self, names: Sequence[str], current: int) -> None:
        """Writes the row anew; one image alone needs none."""
        self._row.clear()
        self._row.set_visibility(len(names) > 1)
        if len(names) < 2:
            return
        with self._row:
            for number, name in enumerate(names):
                self._image(number, name, number == current)

    def _image(self, number: int, name: str, is_shown: bool) -> None:
        with ui.button_group().props("flat"):
            shown = ui.button(f"{number}: {name}", on_click=lambda: self._on_show(number))
            shown.props("unelevated text-color=on-primary" if is_shown else "outline")
            shown.props(f'dense no-caps aria-pressed="{"true" if is_shown else "false"}"').classes("px-2 cof-text")
            away = ui.button(icon="close", on_click=lambda: self._on_remove(number)).props("flat dense")
            away.props["aria-label"] = f"Take away image {number}"
