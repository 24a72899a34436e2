"""An OpenAI-compatible server whose replies are scripted from what it is shown: it finds and names a red patch.

Run as a program it prints its base URL: python tests/scripted_teacher.py [--latency S] [--faults]. With faults, each
request meets one of them the first time it is made: status 429, status 500, a reply that is cut off, or one that comes
too late; and some questions get a first reply that is no move. A question with the word "forbidden" is refused always.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

MODEL = "qwen2.5-vl-scripted"  # the name says that boxes are in pixels of the image shown
LEAST = 900  # red pixels that the colour can be told from
LATE = 3.0  # seconds; the tests' clients wait for one


def reply_to(messages: list[dict[str, Any]]) -> str:
    """What the model says."""
    system = _text(messages[0]) if messages[0]["role"] == "system" else ""
    asked = _text(messages[-1])
    if system.startswith("You answer a question about a large image"):
        return _plan(messages, asked)
    if asked.startswith("Find the following"):
        box = _red_box(_last_image(messages))
        return json.dumps({"bbox_2d": box})
    if system.startswith("You are shown parts"):
        red = _red(_last_image(messages))
        return f"<answer>{'red' if red.sum() >= LEAST else 'unclear'}</answer>"
    if system.startswith("You compare"):
        return "<answer>tighten</answer>"
    if system.startswith("You judge"):
        return _judge(json.loads(asked))
    count = int(re.findall(r"exactly (\d+) sentences", asked)[-1])
    return json.dumps({"thoughts": [*["It is too small to tell."] * (count - 1), "Now it is clear."]})


SYNONYMS = {"crimson": "red", "navy": "blue"}


def _judge(case: dict[str, Any]) -> str:
    """Knows some words, and says neither yes nor no of what is mumbled."""
    if "mumble" in case["answer"]:
        return "It depends."
    return "Yes." if SYNONYMS.get(case["answer"]) in case["accepted_answers"] else "no"


def _plan(messages: list[dict[str, Any]], asked: str) -> str:
    question = _text(messages[1])
    said = sum(message["role"] == "assistant" for message in messages)
    odd = hashlib.sha256(question.encode()).digest()[0] % 4
    if said == 0 and odd == 0:
        return 'I shall look. <tool_call>{"name": "locate", "arguments": {</tool_call>'
    if said == 0 and odd == 1:
        return "I'm sorry, but I can't help with that."
    if found := re.search(r"Seen there: (\w+)", asked):
        return f"<think>It is {found[1]}.</think><answer>{found[1]}</answer>"
    if found := re.match(r"\[(.*)\] in image (\d+)", asked):
        box = [float(value) for value in found[1].split(",")]
        return _call("describe", bbox_2d=box, image=int(found[2]))
    if found := re.match(r"Image (\d+)\. It is unclear", asked):
        return _call("locate", object="the patch", image=int(found[1]))
    if asked.startswith("It was not found"):
        return "<answer>none</answer>"
    return _call("locate", object="the patch", image=0)


def _call(name: str, **arguments: Any) -> str:
    return f"<think>Step by step.</think>\n<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _last_image(messages: list[dict[str, Any]]) -> Image.Image:
    urls = [
        part["image_url"]["url"]
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    return Image.open(io.BytesIO(base64.b64decode(urls[-1].partition(",")[2]))).convert("RGB")


def _red(image: Image.Image) -> Any:
    pixels = np.asarray(image)
    return (pixels[..., 0] > 110) & (pixels[..., 1] < 80)


def _red_box(image: Image.Image) -> list[int] | None:
    rows, columns = np.nonzero(_red(image))
    if not len(rows):
        return None
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0, *, latency: float = 0.0, faults: bool = False) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.latency, self.faults = latency, faults
        self.seen: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a reply goes out in two writes, and the second would wait
    server: Server

    def do_POST(self) -> None:
        started = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            digest = hashlib.sha256(body).hexdigest()
            self.server.seen[digest] += 1
            first = self.server.seen[digest] == 1
        messages = json.loads(body)["messages"]
        reply = reply_to(messages)
        time.sleep(max(0.0, started + self.server.latency - time.monotonic()))  # its own work is part of the latency
        if "forbidden" in _text(messages[-1]):
            return self._send(400, {"error": {"message": "content policy", "type": "invalid_request_error"}})
        fault = int(digest[:8], 16) % 6 if self.server.faults and first else None
        if fault == 0:
            return self._send(429, {"error": {"message": "slow down", "type": "rate_limit"}})
        if fault == 1:
            return self._send(500, {"error": {"message": "out of order", "type": "server_error"}})
        if fault == 2:
            time.sleep(LATE)
        self._send(200, _completion(reply, _prompt_tokens(body)), cut=fault == 3)

    def _send(self, status: int, content: dict[str, Any], *, cut: bool = False) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _prompt_tokens(body: bytes) -> int:
    """About as a Qwen2.5-VL server counts: a token for each cell of an image, and one for four characters of text."""
    tokens = 0
    messages: list[dict[str, Any]] = json.loads(body)["messages"]
    for message in messages:
        content: Any = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                tokens += 6 + len(part["text"]) // 4
            else:
                image = Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))
                tokens += image.width * image.height // 28**2 + 2
    return tokens


def _completion(text: str, prompt: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4, "total_tokens": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    server = Server(latency=options.latency, faults=options.faults)
    print(server.url, flush=True)

    def ended_with_its_parent() -> None:
        sys.stdin.read()
        server.shutdown()

    threading.Thread(target=ended_with_its_parent, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
