"""The page on which a browser gives the key, once: a cookie remembers it until the server ends."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cof_agent.server.guard import COOKIE, LOGIN, NEXT, Guard

_MOST_BYTES = 4_000
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
        given = parse_qs((await request.body())[:_MOST_BYTES].decode("utf-8", "replace")).get("key", [""])[0]
        if not guard.accepts(given):
            return HTMLResponse(_PAGE + "<p role=alert>This is not the key.</p>", 401)
        reply = RedirectResponse(_next(request), 303)
        reply.set_cookie(COOKIE, guard.session, httponly=True, samesite="strict")
        return reply

    return router


def _next(request: Request) -> str:
    """What was asked for before the key was: a path of this server, and nothing else."""
    wanted = request.query_params.get(NEXT, "/")
    return wanted if re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", wanted) else "/"
