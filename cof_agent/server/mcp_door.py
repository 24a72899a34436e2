"""MCP's door: the tools `overview`, `zoom` and `ask`, and crops as resources; over HTTP at `/mcp`, and over stdio (`cof mcp`)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent, ToolAnnotations
from starlette.applications import Starlette

from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.graphs.steps import Event
from cof_agent.server.gone import ended
from cof_agent.server.looks import Coordinates, Look, Looks
from cof_agent.server.refusals import Refusal
from cof_agent.server.service import Question, Service
from cof_agent.server.words import ENDED, lines_of
from cof_agent.trajectory import StopReason, Trajectory

ABOUT = (
    "Looks into large images at full resolution. `overview` shows a whole image, `zoom` a region of it with the pixels of the "
    "file, and `ask` has a vision-language model search the image for the answer to a question. An image is named by its path "
    "in a folder that this server may open, or sent as a data: address."
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_NO_SECOND_CHECK = TransportSecuritySettings(
    enable_dns_rebinding_protection=False
)  # the guard has checked Host and Origin


def mcp_server(service: Service) -> MCPServer:
    """The tools and resources, for any transport."""
    server: MCPServer = MCPServer(
        "chain-of-focus", instructions=ABOUT, version=version("chain-of-focus"), log_level="ERROR"
    )
    _add_looks(server, service, looks := Looks(service))
    _add_ask(server, service, looks)

    @server.resource("crop://{id}", name="crop", mime_type="image/png", description="a crop at full resolution, as PNG")
    async def crop(id: str) -> bytes:
        try:
            return await looks.whole(looks.known(id))
        except InputError as error:
            raise ResourceNotFoundError(_said(service, error)) from None

    return server


def http_app(server: MCPServer, service: Service) -> Starlette:
    """The server over streamable HTTP, at `/mcp`. Each request stands by itself, so that clients that vanish leave nothing."""
    return server.streamable_http_app(
        stateless_http=True,
        max_request_body_size=service.settings.most_bytes,
        transport_security=_NO_SECOND_CHECK,
    )


def _add_looks(server: MCPServer, service: Service, looks: Looks) -> None:
    @server.tool(annotations=_READS)
    async def overview(image: str) -> CallToolResult:
        """Shows a whole image, made smaller where it is large, and says how large the file is."""
        async with _opened(service, image) as path:
            return await _shown(looks, [await looks.overview(path)], {})

    @server.tool(annotations=_READS)
    async def zoom(
        image: str,
        box: list[float] | None = None,
        description: str | None = None,
        coordinates: Coordinates = "source",
    ) -> CallToolResult:
        """Shows a region of an image at full resolution, and its place in source pixels.

        Give the region as a box [x0, y0, x1, y1], or describe in words what to look for. coordinates: what the numbers of
        the box mean: "source" (pixels of the file), "overview" (pixels of what `overview` shows), "thousand" (0 to 1000) or
        "unit" (0 to 1).
        """
        if (box is None) == (description is None):
            raise ToolError("give either a box or a description.")
        async with _opened(service, image) as path:
            if box is not None:
                return await _shown(looks, [await looks.crop(path, box, coordinates)], {})
            trajectory = await _asked(service, Question((path,), str(description)))
            if not (found := _looks_of(trajectory, looks)):
                raise ToolError(f"the model found nothing to zoom to. {_outcome(trajectory)}")
            return await _shown(looks, found[-1:], _warning(trajectory))


def _add_ask(server: MCPServer, service: Service, looks: Looks) -> None:
    @server.tool(annotations=_READS)
    async def ask(image: str, question: str, ctx: Context) -> CallToolResult:
        """Answers a question about an image: a vision-language model zooms into the regions that it needs. Returns the answer,
        and the regions that it rests on in source pixels, as crops."""
        async with _opened(service, image) as path:
            told = _Progress(ctx)
            trajectory = await _asked(service, Question((path,), question), told)
            await told.done()
            result = {"answer": trajectory.answer, "outcome": _outcome(trajectory), **_warning(trajectory)}
            return await _shown(looks, _looks_of(trajectory, looks), result)


async def _asked(service: Service, question: Question, on_event: Callable[[Event], None] | None = None) -> Trajectory:
    """As `Service.ask`, in a task of its own: anyio cancels again and again what a client has left, and cancelled twice LangGraph
    ends without its nodes: the model would go on for nobody."""
    task = asyncio.create_task(service.ask(question, on_event))
    try:
        await asyncio.wait({task})
        return task.result()
    finally:
        with anyio.CancelScope(shield=True):
            await ended(task)


class _Progress:
    """Tells the client each step as it happens."""

    def __init__(self, ctx: Context) -> None:
        self._ctx, self._count = ctx, 0
        self._telling: list[asyncio.Task[None]] = []

    def __call__(self, event: Event) -> None:
        for line in lines_of(event):
            self._count += 1
            self._telling.append(asyncio.create_task(self._ctx.report_progress(self._count, None, line)))

    async def done(self) -> None:
        """Waits until all is told; a client that has gone hears nothing."""
        await asyncio.gather(*self._telling, return_exceptions=True)


def _outcome(trajectory: Trajectory) -> str:
    if trajectory.stop is StopReason.ERROR:
        raise ToolError(trajectory.error or "the conversation failed.")
    return ENDED.get(trajectory.stop) or f"Answer: {trajectory.answer}"


def _warning(trajectory: Trajectory) -> dict[str, str]:
    return {} if trajectory.warning is None else {"warning": trajectory.warning}


def _looks_of(trajectory: Trajectory, looks: Looks) -> list[Look]:
    images = trajectory.sample.images
    views = [view for view in trajectory.crops if view.tool is None]
    return [looks.of(images[view.source], view.region, view.source_size) for view in views]


async def _shown(looks: Looks, shown: list[Look], values: dict[str, Any]) -> CallToolResult:
    """A result of pictures, each with its place, and of plain values."""
    content: list[ContentBlock] = []
    regions = []
    for look in shown:
        kind, file = await looks.picture(look)
        content.append(ImageContent(type="image", data=base64.b64encode(file).decode(), mime_type=kind))
        regions.append(look.described() | _resource(look))
        content += [_link(look)] if "resource" in regions[-1] else []
    values = {**values, "regions": regions}
    content.append(TextContent(type="text", text=json.dumps(values, ensure_ascii=False)))
    return CallToolResult(content=content, structured_content=values)


def _resource(look: Look) -> dict[str, str]:
    whole = (
        look.view.region.width == look.view.source_size.width
        and look.view.region.height == look.view.source_size.height
    )
    return {} if whole else {"resource": f"crop://{look.id}"}


def _link(look: Look) -> ResourceLink:
    size = Size(int(look.view.region.width), int(look.view.region.height))
    # Without the type of an image: clients that hand such links on as images make addresses of them that no model can fetch.
    return ResourceLink(uri=f"crop://{look.id}", name=f"crop of {size} pixels")


@asynccontextmanager
async def _opened(service: Service, image: str) -> AsyncIterator[str]:
    """The file of an image; what is wrong with it, or with what is done with it, is a sentence that the model reads."""
    try:
        path = await asyncio.to_thread(service.incoming.path, image)
        with service.incoming.pictures.released([path]):
            yield path
    except (InputError, Refusal) as error:
        raise ToolError(_said(service, error)) from None


def _said(service: Service, error: Exception) -> str:
    return str(Refusal(400, service.incoming.without_folders(str(error))).body()["error"]["message"])
