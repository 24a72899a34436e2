"""The questions that were asked on a page. They outlive a reload of the tab, and end with the server."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nicegui import Client, ui

from cof_agent.trajectory import Trajectory

MOST = 50
"""Questions of one tab, the last ones."""
MOST_TABS = 100
"""Tabs that are remembered, those with the latest questions."""


@dataclass(frozen=True)
class Asked:
    """One question. sent: names of the files that the reader had sent for it, by their paths."""

    trajectory: Trajectory
    sent: dict[str, str]


class Histories:
    """The questions of all tabs, by the ids that NiceGUI gives to tabs: random, and kept by the tab itself. In memory only."""

    def __init__(self) -> None:
        self._tabs: OrderedDict[str, list[Asked]] = OrderedDict()

    def of(self, tab: str) -> list[Asked]:
        """What was asked in a tab, the first question first."""
        return list(self._tabs.get(tab, []))

    def add(self, tab: str, asked: Asked) -> None:
        """Remembers one more question."""
        self._tabs[tab] = [*self.of(tab), asked][-MOST:]
        self._tabs.move_to_end(tab)
        while len(self._tabs) > MOST_TABS:
            self._tabs.popitem(last=False)


class History:
    """The list on the page, the last question on top. on_open: called with the chosen one."""

    def __init__(self, histories: Histories, on_open: Callable[[Asked], Awaitable[None]]) -> None:
        self._histories, self._on_open = histories, on_open
        self._tab: str | None = None
        self._list = ui.column().classes("w-full gap-1")
        ui.context.client.on_connect(self._restore)

    def add(self, asked: Asked) -> None:
        """Adds a question that was just answered."""
        if self._tab is not None:
            self._histories.add(self._tab, asked)
        self._show(asked)

    def _restore(self, client: Client) -> None:
        """Shows what the tab has asked before: the browser tells only now which tab it is. It may connect again later."""
        if self._tab is None and client.tab_id is not None:
            self._tab = client.tab_id
            for asked in self._histories.of(self._tab):
                self._show(asked)

    def _show(self, asked: Asked) -> None:
        trajectory = asked.trajectory
        with self._list:
            words = f"{trajectory.sample.question} → {trajectory.answer or 'no answer'}"
            line = ui.button(words, on_click=lambda: self._on_open(asked)).props("flat no-caps align=left")
            line.classes("w-full cof-text").move(target_index=0)
        if len(held := list(self._list)) > MOST:
            held[-1].delete()
