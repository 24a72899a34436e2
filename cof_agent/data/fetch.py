"""Fetches an image from a public address, and from no other: neither the client of a server nor a row of somebody's data set must
reach into the network that this machine stands in."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from cof_agent.errors import InputError, said

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_BYTES = 500 << 20
"""Of one image that comes from outside."""

MOST_SECONDS = 120.0
"""From the first look-up of a host to the last byte, redirects included."""

_SECONDS = 20.0  # for each step of one transfer: a host that says nothing at all
_MOST_REDIRECTS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL, _DOCUMENTS = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("3fff::/20")
_HEADERS = {"user-agent": "chain-of-focus", "accept-encoding": "identity"}


def is_public(address: Address) -> bool:
    """Whether an address is on the open internet: not this machine, a private network, or one wrapped in another."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = (address.ipv4_mapped, address.sixtofour, address.teredo)
        if (
            any(one is not None for one in wrapped)
            or address in _NAT64
            or address not in _GLOBAL
            or address in _DOCUMENTS
        ):
            return False
    return address.is_global and not address.is_multicast


class TooLarge(InputError):
    """There is an image, but it has too many bytes."""


@dataclass(frozen=True)
class Fetcher:
    """Fetches at most `most_bytes` of an http(s) address whose host is at `allowed` addresses only.

    The address that is checked is the one that is connected to, so that a name that changes its address in between gains
    nothing. Redirects are checked alike. A proxy is not used: it would look up the host itself. Whatever the host sends,
    and however slowly, it is over after `most_seconds`.
    """

    most_bytes: int = MOST_BYTES
    allowed: Callable[[Address], bool] = is_public
    most_seconds: float = MOST_SECONDS

    def get(self, url: str) -> bytes:
        """The content.

        Raises:
            TooLarge: if it has more than `most_bytes`.
            InputError: if it cannot be had in time, is cut off, or lies at an address that is not allowed.
        """
        until = time.monotonic() + self.most_seconds
        for _ in range(_MOST_REDIRECTS + 1):
            content, url = self._once(url, until)
            if content is not None:
                return content
        raise InputError("the address of the image leads on too often.")

    def _once(self, url: str, until: float) -> tuple[bytes | None, str]:
        """The content, or None and where it is to be had. until: by the clock of `time.monotonic`."""
        parts = _parts(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        addresses = self._addresses(host, port)
        connection = http.client.HTTPConnection(host, port)
        late = threading.Event()
        try:
            connection.sock = _connected(addresses, port, until)
            with _ended(connection.sock, until, late):
                if parts.scheme == "https":
                    connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
                path = parts._replace(scheme="", netloc="", fragment="").geturl()
                connection.request("GET", path or "/", headers=_HEADERS)
                answer = self._answer(connection.getresponse(), url)
            if late.is_set():  # what has no announced length seems to end here
                raise OSError
            return answer
        except (InputError, OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set() or time.monotonic() >= until:
                raise InputError(
                    f"the image cannot be fetched: it takes longer than {self.most_seconds:g} s."
                ) from None
            if isinstance(error, InputError):
                raise
            raise InputError(f"the image cannot be fetched: {said(error)}.") from None
        finally:
            connection.close()

    def _answer(self, reply: http.client.HTTPResponse, url: str) -> tuple[bytes | None, str]:
        if reply.status in (301, 302, 303, 307, 308):
            return None, urljoin(url, reply.getheader("location") or "")
        if reply.status != 200:
            raise InputError(f"the image cannot be fetched: its server answers {reply.status}.")
        return self._content(reply), url

    def _content(self, reply: http.client.HTTPResponse) -> bytes:
        content = reply.read(self.most_bytes + 1)
        if len(content) > self.most_bytes:
            raise TooLarge(f"the image is larger than {self.most_bytes:,} bytes.")
        if reply.length:  # what is missing of as many bytes as were announced
            raise InputError("the image cannot be fetched: the reply was cut off.")
        return content

    def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise InputError(f"the image cannot be fetched: there is no host {host[:100]!r}.") from None
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not addresses or not all(map(self.allowed, addresses)):
            raise InputError(f"the image is not fetched: {host[:100]!r} is no public address.")
        return addresses


@contextmanager
def _ended(connected: socket.socket, until: float, late: threading.Event) -> Iterator[None]:
    """Shuts the connection down at that moment and says so by `late`, whatever is being read: a host that sends a byte now and
    then is within the time of each step for ever."""
    handle = connected.dup()  # TLS takes the socket itself over

    def end() -> None:
        late.set()
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        handle.close()


def _connected(addresses: Iterable[Address], port: int, until: float) -> socket.socket:
    """A connection to the first of the addresses of a host that takes one: a machine may have no way to those of IPv6."""
    error: OSError | None = None
    for address in addresses:
        if (left := until - time.monotonic()) <= 0:
            break
        try:
            made = socket.create_connection((str(address), port), min(_SECONDS, left))
            made.settimeout(_SECONDS)
            return made
        except OSError as refused:
            error = error or refused
    raise error or OSError("no address")


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.username and (parts.port or 1) > 0:
            return parts
    except ValueError:  # a port that is no number, half a bracket
        pass
    raise InputError("the address of the image is no plain http or https address.")
