"""Where images are fetched from, how much of them, and what is said where that fails."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from cof_agent.data.fetch import Fetcher, is_public
from cof_agent.errors import InputError


def test_only_public_addresses_are_fetched() -> None:
    private = "127.0.0.1 10.1.2.3 192.168.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 ::1 fe80::1 fc00::1"
    wrapped = "::ffff:10.0.0.1 2002:a00:1:: 64:ff9b::a00:1 64:ff9b:1::7f00:1 ::7f00:1 fec0::1 5f00::1 3fff::1"
    assert not any(is_public(ipaddress.ip_address(one)) for one in (private + " " + wrapped).split())
    assert is_public(ipaddress.ip_address("1.1.1.1")) and is_public(ipaddress.ip_address("2606:4700::1111"))
    for url in (
        "http://127.0.0.1/a.png",
        "http://localhost:80/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
    ):
        with pytest.raises(InputError, match="no public address|no host"):
            Fetcher(1_000).get(url)
    for url in ("http://user:word@host/", "http://host:99999/", "gopher://host/", "http://"):
        with pytest.raises(InputError, match="no plain http"):
            Fetcher(1_000).get(url)


def test_a_redirect_is_checked_like_the_first_address() -> None:
    class Hosts(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = {"/on": "/image", "/away": "http://127.0.0.2/", "/round": "/round"}.get(self.path)
            self.send_response(302 if where else 200)
            if where:
                self.send_header("location", where)
            self.end_headers()
            self.wfile.write(b"x" * 50)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hosts) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        fetcher = Fetcher(50, allowed=lambda address: str(address) == "127.0.0.1")
        assert fetcher.get(f"{url}/on") == b"x" * 50
        for path, sentence in (("/away", "no public address"), ("/round", "leads on too often")):
            with pytest.raises(InputError, match=sentence):
                fetcher.get(url + path)
        with pytest.raises(InputError, match="larger than 49 bytes"):
            Fetcher(49, fetcher.allowed).get(url)
        server.shutdown()


def test_a_host_that_sends_a_byte_now_and_then_is_left() -> None:
    """In the head of its answer, in the image, in one of no known length, and in answers that lead on and on."""
    over = Event()

    class Drips(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/on"):
                over.wait(0.1)
                self.wfile.write(f"HTTP/1.0 302 Found\r\nLocation: {self.path}n\r\n\r\n".encode())
                return
            head = {"/head": b"", "/image": b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n"}
            with suppress(OSError):  # once the client has gone
                self.wfile.write(head.get(self.path, b"HTTP/1.0 200 OK\r\n\r\n"))
                while not over.wait(0.02):
                    self.wfile.write(b"H")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Drips) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        fetcher = Fetcher(allowed=lambda address: address.is_loopback, most_seconds=0.15)
        for path in ("/head", "/image", "/endless", "/on"):
            with pytest.raises(InputError, match="cannot be fetched: it takes longer than 0.15 s"):
                fetcher.get(f"http://127.0.0.1:{server.server_address[1]}{path}")
        over.set()
        server.shutdown()


def test_a_host_that_takes_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for scheme in ("http", "https"):
        with pytest.raises(InputError, match="cannot be fetched: .*refused"):
            Fetcher(allowed=lambda address: address.is_loopback).get(f"{scheme}://127.0.0.1:{port}/a.png")
