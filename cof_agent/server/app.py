"""The application: the doors, the guard before them, and what an error becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from mcp.server import MCPServer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cof_agent.server import login, openai_door
from cof_agent.server.guard import Guard
from cof_agent.server.looks import Looks
from cof_agent.server.mcp_door import http_app, mcp_server
from cof_agent.server.refusals import FAULT, Refusal
from cof_agent.server.service import Service
from cof_agent.server.tiles import Tiles
from cof_agent.server.tiles import routes as tiles_and_crops


def make_app(service: Service, *, page: bool = True) -> Guard:
    """The whole server as an ASGI application. page: whether it has one; only one of a process can."""
    mcp = mcp_server(service)
    mcp_app = http_app(mcp, service)  # which makes the session manager
    lifespan = _lifespan(service, mcp)
    app = FastAPI(title="Chain-of-Focus", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    guard = Guard(app, service.settings)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_there)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(Exception, _failed)
    app.include_router(login.routes(guard))
    app.include_router(openai_door.routes(service))
    app.router.routes.extend(mcp_app.routes)
    tiles, looks = Tiles(service), Looks(service)
    app.include_router(tiles_and_crops(tiles, looks))
    if page:
        from cof_agent.server.page import add_page  # which takes the process for itself

        add_page(app, service, tiles, looks)
    return guard


def _lifespan(service: Service, mcp: MCPServer) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mcp.session_manager.run():
            yield
        service.close()

    return lifespan


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body(), error.status, error.headers)


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    return JSONResponse(refusal.body(), error.status_code, error.headers)


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the program: the client hears that there was one, the terminal shows it."""
    return JSONResponse(FAULT.body(), FAULT.status, {"connection": "close"})  # as Starlette lets it end
