"""OpenAI's interface: `/v1/models` and `/v1/chat/completions`, whole and as a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.graphs.steps import Event
from cof_agent.policy import PolicyRefusal
from cof_agent.server import openai_request
from cof_agent.server.gone import ended, while_there
from cof_agent.server.openai_reply import WAITING, Reply, failed
from cof_agent.server.openai_request import Asked
from cof_agent.server.refusals import FAULT, Refusal
from cof_agent.server.service import Question, Service
from cof_agent.trajectory import Trajectory

_log = logging.getLogger(__name__)

_BEAT = 10.0  # seconds between signs of life in a stream
_BODY_SECONDS = 120.0  # in which a body must be there


def routes(service: Service) -> APIRouter:
    """What there is below `/v1`."""
    router = APIRouter(prefix="/v1")
    model = {"id": service.name, "object": "model", "created": 0, "owned_by": "chain-of-focus"}

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @router.get("/models/{name:path}")
    async def one(name: str) -> dict[str, Any]:
        if not name:
            return await models()
        if name != service.name:
            raise _no_model(service, name)
        return model

    @router.post("/chat/completions")
    async def complete(request: Request) -> Response:
        return await _complete(service, request)

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
    async def other(request: Request, path: str) -> Response:
        if path in ("models", "chat/completions"):
            raise Refusal(405, f"/v1/{path} is not for {request.method}; send POST to chat/completions, GET to models.")
        raise Refusal(404, f"there is no /v1/{path[:100]} here, only /v1/models and /v1/chat/completions.")

    return router


async def _complete(service: Service, request: Request) -> Response:
    asked = await asyncio.to_thread(openai_request.read, await _body(request))
    if asked.model != service.name:
        raise _no_model(service, asked.model)
    question = await _question(service, asked)
    reply = Reply(asked)
    if asked.stream:
        return await _stream(service, question, reply)
    with service.incoming.pictures.released(question.images), _refused(service):
        trajectory = await while_there(request, service.ask(question, reply.note))
        return JSONResponse(reply.whole(trajectory))


def _no_model(service: Service, name: str) -> Refusal:
    sentence = f"the model {name[:100]!r} does not exist here; this server has {service.name!r}."
    return Refusal(404, sentence, code="model_not_found", param="model")


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {_BODY_SECONDS:g} seconds.") from None


async def _question(service: Service, asked: Asked) -> Question:
    """The question, its images found; those that were sent are in use."""
    changes = dict(asked.sampling)
    if asked.tokens is not None and asked.tokens > service.config.turn_tokens:
        # A client's limit is measured for a bare answer, in which neither a thought nor a zoom has room: it only raises ours.
        changes["max_tokens"] = asked.tokens
    images: list[str] = []
    try:
        for reference in asked.images:
            images.append(await asyncio.to_thread(service.incoming.path, reference))
    except InputError as error:
        for path in images:
            service.incoming.pictures.release(path)
        raise Refusal(400, service.incoming.without_folders(str(error)), param="messages") from None
    regions = tuple(Box(*region) for region in asked.regions)
    return Question(tuple(images), asked.text, asked.choices, regions, changes)


@contextmanager
def _refused(service: Service) -> Iterator[None]:
    """What is wrong with the question is a refusal; so is what a served model refuses, which is no fault of the client."""
    try:
        yield
    except PolicyRefusal as error:
        raise Refusal(502, str(error)) from None
    except InputError as error:
        raise Refusal(400, service.incoming.without_folders(str(error))) from None
    except Refusal as refusal:
        said = service.incoming.without_folders(str(refusal))
        raise Refusal(refusal.status, said, code=refusal.code, param=refusal.param) from None


class _Stream(StreamingResponse):
    """A stream that ends what it was made for at once when the client goes away: without this, `pieces` would only be closed
    when they are garbage."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], closed: AbstractContextManager[None]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._pieces, self._closed = pieces, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._closed:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._pieces.aclose()


async def _stream(service: Service, question: Question, reply: Reply) -> Response:
    """What can be known before the model is asked has a status of its own; what comes later stands in the stream."""
    released = service.incoming.pictures.released(question.images)
    try:
        with _refused(service):
            await service.check(question)
        if service.places.is_full:
            raise service.places.refusal()
    except BaseException:
        with released:
            raise
    return _Stream(_streamed(service, question, reply), released)


async def _streamed(service: Service, question: Question, reply: Reply) -> AsyncGenerator[bytes, None]:
    steps: asyncio.Queue[Event] = asyncio.Queue()
    task = asyncio.create_task(service.ask(question, steps.put_nowait))
    try:
        yield reply.opening()
        async for piece in _steps(task, steps, reply.step):
            yield piece
        with _refused(service):
            for piece in reply.close(task.result()):
                yield piece
    except Refusal as refusal:
        yield failed(refusal)
    except Exception:  # a fault of the program; raised here it would only break the stream off
        _log.exception("a conversation failed")
        yield failed(FAULT)
    finally:
        await ended(task)


async def _steps(
    task: asyncio.Task[Trajectory], steps: asyncio.Queue[Event], piece_of: Callable[[Event], bytes]
) -> AsyncIterator[bytes]:
    """A piece for each event until the task is over, and a sign of life where none comes for long."""
    while not (task.done() and steps.empty()):
        next_step = asyncio.create_task(steps.get())
        try:
            await asyncio.wait({task, next_step}, timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not next_step.done():
                await ended(next_step)
        if next_step.cancelled():
            if not task.done():
                yield WAITING
        elif piece := piece_of(next_step.result()):
            yield piece
