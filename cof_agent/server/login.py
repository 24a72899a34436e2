"""The page on which a browser gives the key, once: a cookie remembers it until the server ends."""

from __future__ import annotations

import re
from asyncio import timeout
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cof_agent.server.guard import COOKIE, LOGIN, NEXT, Guard
from cof_agent.server.refusals import Refusal

_SECONDS = 10.0  # for a key to arrive
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>Chain-of-Focus</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:24rem;margin:20vh auto;padding:0 1rem}
input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.25rem 0}</style>
<h1>Chain-of-Focus</h1><form method="post"><label>Key of this server
<input name="key" type="password" autofocus required autocomplete="current-password"></label>
<button>Open</button></form>"""


def routes(guard: Guard) -> APIRouter:
    """The page, and where it sends the key."""
    router = APIRouter()

    @router.get(LOGIN)
    async def page() -> Response:
        return HTMLResponse(_PAGE)

    @router.post(LOGIN)
    async def enter(request: Request) -> Response:
        try:
            async with timeout(_SECONDS):
                body = await request.body()
        except TimeoutError:
            raise Refusal(408, f"the key did not arrive within {_SECONDS:g} seconds.") from None
        given = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0]
        if not guard.accepts(given):
            return HTMLResponse(_PAGE + "<p role=alert>This is not the key.</p>", 401)
        reply = RedirectResponse(_next(request), 303)
        # With "strict" a link from a page of `cof view` would ask for the key again.
        reply.set_cookie(COOKIE, guard.session, httponly=True, samesite="lax")
        return reply

    return router


def _next(request: Request) -> str:
    """What was asked for before the key was: a path of this server, and nothing else."""
    wanted = request.query_params.get(NEXT, "/")
    return wanted if re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", wanted) else "/"
