"""The page at `/`: drop a picture, ask, watch the agent look. NiceGUI draws it; text of models is text there, never markup."""

from __future__ import annotations

import asyncio
import warnings

from fastapi import FastAPI
from nicegui import ui

from cof_agent.server.looks import Looks
from cof_agent.server.page.desk import Desk
from cof_agent.server.page.history import Histories
from cof_agent.server.page.style import STYLE
from cof_agent.server.service import Service
from cof_agent.server.tiles import Tiles

_RECONNECT = 30.0  # seconds that a page which lost its connection may take to come back: a phone that was put away
_LISTED = 60.0  # seconds that the names of the server's files may take: disks of a network are slow


def add_page(app: FastAPI, service: Service, tiles: Tiles, looks: Looks) -> None:
    """Adds the page to the application, behind all other routes. NiceGUI knows one application a process."""

    histories = Histories()

    @ui.page("/", title="Chain-of-Focus", dark=None, response_timeout=_LISTED)
    async def page(run: str = "", number: int = 0, id: str = "") -> None:
        ui.add_css(STYLE)
        desk = Desk(service, tiles, looks, histories)
        folders = service.incoming.folders
        desk.build(await asyncio.to_thread(folders.images), await asyncio.to_thread(folders.runs))
        if run:  # a link of a page of `cof view`, see `viewer.full_resolution`
            ui.timer(0, lambda: desk.open_recorded(run, number, id), once=True)

    # NiceGUI looks at every object of the process as it starts, and torch warns that one of its own is old.
    warnings.filterwarnings("ignore", message=".*torch.distributed.reduce_op", category=FutureWarning)
    ui.run_with(app, show_welcome_message=False, reconnect_timeout=_RECONNECT, binding_refresh_interval=None)
