"""A server on loopback that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Reply = tuple[int, Any]


@contextmanager
def serving(answer: Callable[[str, Body | None], Reply]) -> Iterator[tuple[str, list[Body]]]:
    """A server that answers a path and a body (None of a GET) with a status and JSON, or bytes as they are: its address, and the
    bodies that it gets."""
    asked: list[Body] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*answer(self.path, None))

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._send(*answer(self.path, asked[-1]))

        def _send(self, status: int, body: Any) -> None:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def saying(text: str, **choice: Any) -> Reply:
    """A chat completion that says this."""
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop", **choice}]}
