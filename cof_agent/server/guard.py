"""Who gets in: checks Host, Origin, the key and the size of each request before anything else reads it.

A page of another site that a browser on this machine has open can send requests here. Its Origin gives it away; and where it
calls itself by a name that leads to this machine (DNS rebinding), the Host does.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse

from cof_agent.server.refusals import Refusal
from cof_agent.server.settings import ServerSettings, is_loopback

_log = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

COOKIE = "cof_session"
LOGIN = "/login"
NEXT = "next"
"""What follows the login, in its address."""

_KEY_BYTES = 4_000
_MOST_HELD = 16  # times the largest request, of the bodies of all open requests together

# The page's library compiles its templates in the browser, hence 'unsafe-eval'; whatever runs can reach this server only.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """The outermost layer of the application (ASGI). session: what the cookie of a browser holds that has given the key."""

    def __init__(self, app: Callable[..., Awaitable[None]], settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self.most_bytes = settings.most_bytes
        self.held = 0  # bytes of the bodies of all open requests
        self.session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await self._refuse(refusal, scope, receive, send)
            return
        body = _Body(self, receive, self._most(scope))
        try:
            await self._app(scope, body.receive, _with_headers(send))
        except Exception:
            if not body.is_gone:
                raise
            # The libraries below fail in many ways when a client leaves.
            _log.debug("the client of %s left", scope["path"], exc_info=True)
        finally:
            self.held -= body.seen

    def accepts(self, key: str) -> bool:
        """Whether this is the key."""
        return self._settings.key is None or secrets.compare_digest(key.encode(), self._settings.key.encode())

    def _check(self, scope: Any) -> None:
        headers = Headers(scope=scope)
        _check_site(headers, local=self._settings.is_local)
        if not (self._knows_key(headers) or scope["path"] == LOGIN):
            if headers.get("authorization"):
                raise Refusal(401, "this is not the key of this server.", code="invalid_api_key")
            raise Refusal(401, "this server needs a key: send it as the header `Authorization: Bearer KEY`.")
        length, most = headers.get("content-length", "0"), self._most(scope)
        if not length.isdecimal() or int(length) > most:
            raise _too_large(most)

    def _most(self, scope: Any) -> int:
        """The largest body: a key alone, where none has been given yet."""
        return _KEY_BYTES if scope["path"] == LOGIN else self.most_bytes

    def _knows_key(self, headers: Headers) -> bool:
        if self._settings.key is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.accepts(given.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), self.session.encode())

    async def _refuse(self, refusal: Refusal, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        asked_for_page = "text/html" in Headers(scope=scope).get("accept", "")
        if refusal.status == 401 and scope["method"] == "GET" and asked_for_page:
            wanted = f"{scope['path']}?{scope['query_string'].decode('latin-1')}".removesuffix("?")
            await RedirectResponse(f"{LOGIN}?{urlencode({NEXT: wanted})}", 303)(scope, receive, send)
            return
        reply = JSONResponse(refusal.body(), refusal.status, {**refusal.headers, **HEADERS, "connection": "close"})
        await reply(scope, receive, send)


class _Body:
    """The body of one request, counted as it comes: a client need not say how large it is, and many large ones may come at
    once."""

    def __init__(self, guard: Guard, receive: Receive, most: int) -> None:
        self._guard, self._receive, self._most = guard, receive, most
        self.seen = 0
        self.is_gone = False  # whether the client has closed the connection

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Refusal: 413 if this body is too large, 503 if all together are.
        """
        message: Message = await self._receive()
        self.is_gone = message["type"] in ("http.disconnect", "websocket.disconnect")
        if message["type"] == "http.request":
            self.seen += (size := len(message.get("body", b"")))
            self._guard.held += size
            if self.seen > self._most:
                raise _too_large(self._most)
            if self._guard.held > _MOST_HELD * self._guard.most_bytes:
                raise Refusal(
                    503, "the server is busy: too much is sent at once; try again in a moment.", code="overloaded"
                )
        return message


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the request is larger than {most:,} bytes; make the image smaller, or raise --max-upload.")


def _check_site(headers: Headers, *, local: bool) -> None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if local and not is_loopback(_name(f"//{host}")):
        raise Refusal(403, "this server answers to 127.0.0.1 and localhost only; start it with --host.", code="host")
    # A picture in another site's page comes without an Origin.
    if origin is None and headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        raise Refusal(403, "requests of other sites' pages are not answered.", code="origin")
    if origin is not None and not _same_site(origin, host, local=local):
        raise Refusal(403, "requests of other sites' pages are not answered.", code="origin")


def _same_site(origin: str, host: str, *, local: bool) -> bool:
    """Whether a page is this server's own. `localhost` and `127.0.0.1` are the same server, if their port is the same."""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        if theirs.scheme not in ("http", "https"):
            return False
        if theirs.netloc == ours.netloc:
            return True
        return local and is_loopback(_name(origin)) and theirs.port == ours.port
    except ValueError:  # a port that is no number, half a bracket
        return False


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
