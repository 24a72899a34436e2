"""`cof rollout` on published layouts, with a server that knows the answers: every play is right."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cof_agent.cli import main
from cof_agent.protocol import write_answer
from tests.data import layouts

pytest.importorskip("pyarrow")
pytest.importorskip("langchain_openai")

PLAYED = ("verl", "vlmevalkit")


class Knowing(BaseHTTPRequestHandler):
    """Answers a chat by what is asked in it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        (answer,) = (a for q, a in zip(layouts.QUESTIONS, layouts.ANSWERS, strict=True) if q in asked)
        message = {"role": "assistant", "content": write_answer("I know.", answer)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "knowing", "choices": [choice]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Knowing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_every_play_is_right(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for name in PLAYED:
        (tmp_path / name).mkdir()
        spec, output = layouts.LAYOUTS[name](tmp_path / name), tmp_path / "out" / name
        model = ["--model", "openai:knowing", "--base-url", url, "--coordinates", "absolute"]
        assert main(["rollout", "--data", str(spec), "-o", str(output), "--plays", "2", "--quiet", *model]) == 0
        summary = json.loads((output / "summary.json").read_text("utf-8"))
        assert (summary["n"], summary["right"]) == (3, {"2": 3}), name
