"""One HTTP request to a server that is not trusted: no redirects, a limit of size (decompressed too), and one of time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

LIMIT = 64 * 2**20  # bytes of a reply, as it comes and decompressed
CONNECT = 30.0  # seconds to reach a server


class Unreadable(ValueError):
    """What came is no reply; the text says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent. The names of `headers` may be written in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout: float) -> Reply:
    """Sends `body` and reads the whole reply within `timeout` seconds; a redirect is returned as it is.

    Raises:
        Unreadable: if the reply is too large, or not compressed as it says.
        aiohttp.ClientError, TimeoutError: if there is none.
    """
    return await _ask("POST", url, body, headers, timeout)


async def get(url: str, headers: Mapping[str, str], *, timeout: float) -> Reply:
    """As `post`, without a body."""
    return await _ask("GET", url, None, headers, timeout)


async def _ask(method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float) -> Reply:
    from aiohttp import ClientTimeout

    session = await _session()
    limits = ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT))
    request = session.request(
        method, url, data=body, headers=dict(headers), proxy=_proxy(url), allow_redirects=False, timeout=limits
    )
    async with request as response:
        raw = await _read(response)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raw = await asyncio.to_thread(_decompressed, raw, encoding)
    return Reply(response.status, response.headers, raw)


async def _read(response: ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > LIMIT:
            response.close()
            raise Unreadable(f"the reply is larger than {LIMIT // 2**20} MiB")
    return bytes(found)


def _decompressed(raw: bytes, encoding: str) -> bytes:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Unreadable(f"the reply is compressed in a way that was not asked for ({encoding[:40]})")
    found = bytearray()
    while raw:
        member = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its head says
        try:
            found += member.decompress(raw, LIMIT + 1 - len(found))
        except zlib.error as error:
            raise Unreadable(f"the reply is not compressed as it says ({error})") from None
        if len(found) > LIMIT:
            raise Unreadable(f"the reply is larger than {LIMIT // 2**20} MiB once it is decompressed")
        if not member.eof:
            raise Unreadable("the compressed reply is cut off")
        raw = member.unused_data
    return bytes(found)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address. aiohttp's own look would take passwords from ~/.netrc too."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


_open: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncGenerator[ClientSession, None], ClientSession]]
_open = WeakKeyDictionary()


async def _session() -> ClientSession:
    """The connections of this event loop; they are closed with it."""
    loop = asyncio.get_running_loop()
    if loop not in _open:
        keeper = _keep_open()
        _open[loop] = keeper, await anext(keeper)
    return _open[loop][1]


async def _keep_open() -> AsyncGenerator[ClientSession, None]:
    """As many connections as there are requests under way; `asyncio.run` ends this when it ends."""
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector

    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        yield session
