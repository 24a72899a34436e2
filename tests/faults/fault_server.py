"""A server of OpenAI's kind on loopback that does everything wrong: a question that holds `MODE=name` meets that fault.

`MODES` says of each what a run has to make of it. As a program, `python -m tests.faults.fault_server` prints its base URL and
serves until it is interrupted.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cof_agent.geometry import Box
from cof_agent.protocol import write_answer, write_zoom
from cof_agent.trajectory import StopReason

OK = "ok"
GOOD = write_answer("I see it.", OK)
LATE = "in time|no answer within"  # what is said of a server that hangs
ENDLESS = 60.0  # seconds after which a server that hangs lets go, should a client not
ANSWERED, ERROR = StopReason.ANSWERED, StopReason.ERROR


@dataclass(frozen=True)
class Request:
    """What the server was asked. number: how often this mode was asked for, this time included."""

    mode: str
    headers: Mapping[str, str]
    number: int
    elsewhere: str

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


Piece = bytes | float
"""What is sent, or seconds of silence."""


@dataclass(frozen=True)
class Mode:
    """pieces: what is sent. ends, says: how the run of a question ends, and a pattern of its answer or error. then: what
    becomes of the connection: keep, close, reset."""

    pieces: Callable[[Request], Iterator[Piece]]
    ends: StopReason = ERROR
    says: str = ""
    then: str = "keep"

    def matches(self, said: str | None) -> bool:
        """Whether an answer or an error is the one that is right here."""
        return re.search(self.says, said or "") is not None


def message(content: Any = GOOD, finish: Any = "stop", **others: Any) -> dict[str, Any]:
    """A chat completion; `others` are further fields of its message."""
    told = {"role": "assistant", "content": content, **others}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": told, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }


def response(body: Any, status: int = 200, kind: str = "application/json", **headers: Any) -> bytes:
    """One whole HTTP response; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"content-type": kind, "content-length": len(raw), **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value is not None)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + raw


MODES: dict[str, Mode] = {}


def add(name: str, sent: Any, says: str = "", ends: StopReason = ERROR, then: str = "keep") -> None:
    """A mode that sends this: bytes, a body as JSON, or what a function of the request returns or yields."""

    def pieces(request: Request) -> Iterator[Piece]:
        made = sent(request) if callable(sent) else sent
        if isinstance(made, Iterator):
            yield from made
        else:
            yield made if isinstance(made, bytes) else response(made)

    MODES[name] = Mode(pieces, ends, says, then)


def with_field(**fields: Any) -> dict[str, Any]:
    return {**message(), **fields}


def with_choice(**fields: Any) -> dict[str, Any]:
    return with_field(choices=[{**message()["choices"][0], **fields}])


def failing(status: int, words: str | None = None, **error: Any) -> Callable[[Request], bytes]:
    """`{key}` in the words is the key that the client sent."""

    def made(request: Request) -> bytes:
        told = (words or f"status {status} from the server").replace("{key}", request.authorization)
        return response({"error": {"message": told, "type": "t", **error}}, status)

    return made


NOT_READ, NO_ANSWER = "gave no answer that can be read: ", "cannot reach|gave no answer that can be read"


def _good_answers() -> None:
    """One odd thing beside a good answer costs nothing."""
    usages: dict[str, Any] = {
        "null": None,
        "str": {"prompt_tokens": "many", "completion_tokens": None},
        "neg": {"prompt_tokens": -5, "completion_tokens": 10**30},
        "float": {"prompt_tokens": 1.5, "completion_tokens": 2.5},
        "list": [1],
        "text": "twelve",
        "bool": {"prompt_tokens": True, "completion_tokens": False},
        "deep": {"prompt_tokens": {"a": {"b": [[[]]]}}},
    }
    odd: dict[str, Any] = {
        "good": message(),
        "wrongtype": response(message(), kind="text/html"),
        "notype": response(message(), kind="\t"),
        "clist": message([{"type": "text", "text": GOOD}]),
        "clistodd": message([{"type": "image"}, None, 5, {"type": "text", "text": GOOD}, {"text": 5}]),
        "wrongmodel": with_field(model="another"),
        "finishodd": message(finish=["stop"]),
        "nofinish": message(finish=None),
        "reasoning": message(f"\n\n<answer>{OK}</answer>", reasoning_content="I looked."),
        "reasoningodd": message(reasoning_content=["what"]),
        "refusalempty": message(refusal=""),
        "logprobs": with_choice(logprobs={"content": [{"token": "a", "logprob": "x"}]}),
        "logprobstext": with_choice(logprobs="high"),
        "logprobsnan": response(json.dumps(with_choice(logprobs={"content": [{"logprob": float("nan")}, 3]})).encode()),
        "hugenumber": response(json.dumps(message()).replace(": 7", ": 1" + "0" * 5000).encode()),
        "hundred": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + response(message()),
        "bom": response(b"\xef\xbb\xbf" + json.dumps(message()).encode()),
        "gzip": response(gzip.compress(json.dumps(message()).encode()), content_encoding="gzip"),
        **{f"usage{name}": with_field(usage=usage) for name, usage in usages.items()},
    }
    for name, sent in odd.items():
        add(name, sent, OK, ANSWERED)
    add("surr", response(json.dumps(message()).replace(">ok<", ">\\ud800 ok<").encode()), r"\? ok", ANSWERED)
    add("nul", message("<answer>a\x00b\x1b[31m\u202e</answer>"), "a", ANSWERED)
    add("keyechobody", lambda r: response(message(f"<answer>{r.authorization}</answer>")), r"Bearer \*\*\*", ANSWERED)
    for times in (1, 2):
        add(f"flaky{times}", _flaky(times), OK, ANSWERED)
    add("flaky500", lambda r: failing(500)(r) if r.number == 1 else response(message()), OK, ANSWERED)
    add(
        "s429ra",
        lambda r: response({"error": "slow down"}, 429, retry_after=0.2) if r.number == 1 else response(message()),
        OK,
        ANSWERED,
    )


def _flaky(times: int) -> Callable[[Request], bytes]:
    return lambda request: failing(503, "busy")(request) if request.number <= times else response(message())


def _statuses() -> None:
    for status in (400, 402, 405, 409, 413, 422, 429, 451, 500, 501, 502, 503, 504, 505, 529, 599):
        says = "asks for a payment" if status == 402 else f"status {status}"
        add(f"s{status}", failing(status), says)
    for status in (401, 403):
        add(f"s{status}", failing(status), "refuses the API key")
        add(f"html{status}", response(b"<html>" + b"x" * 5000, status, "text/html"), "refuses the API key")
    add("s404", failing(404), "there is no interface of OpenAI")
    for status in (400, 500, 502):
        add(f"html{status}", response(b"<html>nginx" + b"x" * 5000, status, "text/html"), f"status {status}: <html>")
    add("s101", response(b"", 101), "status 101|gave no answer")
    add("s304", response(b"", 304), "status 304")
    add("s429huge", lambda _: response({"error": "slow down"}, 429, retry_after=86400), "asks to wait 86400 seconds")
    add("s503date", lambda _: response(b"", 503, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"), "asks to wait")
    add("s503odd", lambda _: response(b"", 503, retry_after="soon"), "status 503: it does not say why")
    add("quota", failing(429, "You exceeded your quota", code="insufficient_quota"), "asks for a payment")
    for name, status in {"keyecho": 400, "keyecho500": 500, "keyecho401": 401}.items():
        add(name, failing(status, "Incorrect API key provided: {key}"), r"provided: Bearer \*\*\*")
    for status in (301, 302, 303, 307, 308):
        add(f"redir{status}", lambda r, s=status: response(b"", s, location=r.elsewhere), "redirects to http://127")
    add("redirloop", response(b"", 307, location="/v1/chat/completions"), "redirects to /v1")
    add("redirfile", response(b"", 307, location="file:///etc/passwd"), "redirects to file:")
    add("errbody", {"error": {"message": "no", "code": 500}}, "status 500: no")
    add("errbody429", {"error": {"message": "slow", "code": 429}}, "status 429: slow")
    add("errbodytext", {"error": "it broke"}, "it broke")
    add("filter400", failing(400, "The response was filtered", code="content_filter"), "^content filter: ")


def _bodies() -> None:
    """Replies that are no message."""
    add("empty", response(b""), NOT_READ + "it is empty")
    add("s204", b"HTTP/1.1 204 No Content\r\n\r\n", NOT_READ + "it is empty")
    add("wrongtype2", response(b"<html>login</html>", kind="text/html"), NOT_READ + "it is no JSON.*<html>login")
    add("truncjson", response(json.dumps(message()).encode()[:80]), NOT_READ + "it is no JSON")
    add("badutf8", response(json.dumps(message()).encode().replace(b"ok", b"\xff\xfe")), NOT_READ + "it is no JSON")
    add("sse", response(b'data: {"choices":[]}\n\ndata: [DONE]\n\n', kind="text/event-stream"), NOT_READ)
    add("deepjson", response(b"[" * 100_000), NOT_READ + "its JSON is nested too deeply")
    add("deepobject", response(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), NOT_READ + "its JSON is nested")
    for name, body in {"list": [1, 2], "str": "hello", "null": None, "true": True}.items():
        add(f"json{name}", response(json.dumps(body).encode()), NOT_READ + "it is no object")
    add("jsonnum", response(b"NaN"), NOT_READ + "it is no object")
    add("other", {"foo": 1}, NOT_READ + "it holds no choices")
    add("nochoices", {k: v for k, v in message().items() if k != "choices"}, NOT_READ + "it holds no choices")
    no_choices: dict[str, Any] = {"empty": [], "null": None, "str": "x", "dict": {}}
    for name, choices in no_choices.items():
        add(f"ch{name}", with_field(choices=choices), NOT_READ + "it holds no choices")
    odd_choices: dict[str, Any] = {"num": [1], "nulls": [None], "lists": [[]]}
    for name, choices in odd_choices.items():
        add(f"ch{name}", with_field(choices=choices), NOT_READ + "its first choice is no object")
    add("nomsg", with_field(choices=[{"index": 0, "finish_reason": "stop"}]), NOT_READ + "its first choice holds no")
    no_messages: dict[str, Any] = {"null": None, "str": "hi", "list": []}
    for name, told in no_messages.items():
        add(f"msg{name}", with_choice(message=told), NOT_READ + "its first choice holds no message")
    no_texts: dict[str, Any] = {"null": None, "num": 42, "dict": {"a": 1}, "list2": [{"type": "weird"}, 5, None]}
    for name, content in no_texts.items():
        add(f"c{name}", message(content), NOT_READ + "its message holds no text")


def _ends() -> None:
    """Replies that say how they end, and what the model itself does wrong."""
    add("ffilter", message(None, "content_filter"), "^content filter: ")
    add("ffilterpart", message("<think>a", "content_filter"), "^content filter: ")
    add("refusal", message(None, refusal="I cannot"), "^refused: I cannot")
    add("flength", message("<think>abc", "length"), ends=StopReason.TRUNCATED)
    add("flengthanswer", message("<think>abc</think>\n<answer>o", "length"), ends=StopReason.TRUNCATED)
    add("flengthwhole", message(f"{GOOD} It", "length"), OK, ANSWERED)
    add("reasoningall", message(None, reasoning_content="It is ok."), "without --reasoning-parser")
    add("reasoningcut", message(None, "length", reasoning="I look and"), ends=StopReason.TRUNCATED)
    add("cempty", message(""), ends=StopReason.MALFORMED)
    for arguments, name in (("{", "toolcalls"), ('{"bbox_2d": [10, 10, 40, 40]}', "toolcallsgood")):
        call = {"id": "a", "type": "function", "function": {"name": "image_zoom_in_tool", "arguments": arguments}}
        ends = StopReason.MALFORMED if name == "toolcalls" else StopReason.MAX_ZOOMS
        add(name, message(None, "tool_calls", tool_calls=[call]), ends=ends)
    add("zoomforever", message(write_zoom("closer", Box(10, 10, 40, 40))), ends=StopReason.MAX_ZOOMS)
    for name, text in {
        "": "<think>" + "x" * 10**7,
        "calls": "<tool_call>" * 900_000,
        "ans": "<answer>" * 10**6,
    }.items():
        add(f"c10mb{name}", message(text), "characters, more than any turn has")


def _wires() -> None:
    """Faults of the connection."""
    whole = response(message())
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    add("resetnow", b"", "cannot reach", then="reset")
    add("closenow", b"", "cannot reach", then="close")
    add("resetmid", lambda _: iter([whole[:-60], 0.05]), NO_ANSWER, then="reset")
    add("closemid", lambda _: iter([whole[:-60], 0.05]), NO_ANSWER, then="close")
    add("halfclose", lambda _: iter([whole[:-60], 0.05]), NO_ANSWER, then="half")
    add("stall", lambda _: iter([ENDLESS]), LATE, then="close")
    add("stallhead", lambda _: iter([whole.split(b"\r\n\r\n")[0] + b"\r\n\r\n", ENDLESS]), LATE, then="close")
    add("loris", lambda _: (piece for byte in whole for piece in (bytes([byte]), 0.2)), LATE)
    add("lorishead", lambda _: _headers_without_end(), LATE)
    add("chunkgarb", lambda _: iter([chunked + b"ZZZ\r\nhello\r\n", 0.05]), NO_ANSWER, then="close")
    add("chunktrunc", lambda _: iter([chunked + b'5\r\n{"id"\r\n', 0.05]), NO_ANSWER, then="close")
    add("chunkhuge", lambda _: iter([chunked + b"f" * 16 + b"\r\nhello\r\n", 0.05]), NO_ANSWER, then="close")
    add("badgzip", response(b"notgzip", content_encoding="gzip"), NOT_READ + "the reply is not compressed as it says")
    cut = gzip.compress(json.dumps(message()).encode())[:-20]
    add("gzcut", response(cut, content_encoding="gzip"), NOT_READ + "the compressed reply is cut off")
    add("brotli", response(b"\x8b", content_encoding="br"), NOT_READ + "the reply is compressed in a way")
    add("gzbomb", lambda _: response(_bomb(), content_encoding="gzip"), NOT_READ + ".*MiB once it is decompressed")
    add("endless", lambda _: _without_end(chunked), NOT_READ + "the reply is larger than 64 MiB")
    add("bighead", b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\n", NO_ANSWER, then="close")
    add("garbage", b"\x00\x01\x02 not http at all\r\n\r\n", NO_ANSWER, then="close")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: "
    body = b"\r\n\r\n" + json.dumps(message()).encode()
    add("clneg", head + b"-5" + body, NO_ANSWER, then="close")
    add("clbig", lambda _: iter([head + b"99999999999" + body, 0.05]), NO_ANSWER, then="close")


def _headers_without_end() -> Iterator[Piece]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-a: b\r\n"
        yield 0.2


def _without_end(head: bytes) -> Iterator[Piece]:
    yield head
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    while True:
        yield chunk


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * (65 * 2**20), 1)


for _family in (_good_answers, _statuses, _bodies, _ends, _wires):
    _family()


@dataclass
class FaultServer:
    """asked: how often each mode was met. elsewhere: where it redirects to."""

    elsewhere: str = "http://127.0.0.1:1/v1/chat/completions"
    asked: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await self._read(reader)
                if isinstance(request, bytes):
                    writer.write(request)
                    continue
                mode = MODES[request.mode]
                async for piece in _paced(mode.pieces(request)):
                    writer.write(piece)
                    await writer.drain()
                if mode.then != "keep":
                    await _end(writer, mode.then)
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | bytes:
        """The next request, or what it is answered with at once: there is no list of models."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.startswith("GET"):
            return response(b"", 404)
        pairs = (line.partition(": ") for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        found = re.search(r"MODE=(\w+)", body)
        mode = found[1] if found else "good"
        self.asked[mode] += 1
        return Request(mode, headers, self.asked[mode], self.elsewhere)

    @contextmanager
    def running(self) -> Iterator[FaultServer]:
        """Serves in a thread of its own."""
        _bomb()
        ready, ends = threading.Event(), asyncio.Event()
        loop: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            async with await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**26) as made:
                self.port = made.sockets[0].getsockname()[1]
                loop.append(asyncio.get_running_loop())
                ready.set()
                await ends.wait()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop[0].call_soon_threadsafe(ends.set)
            thread.join(10)


async def _paced(pieces: Iterator[Piece]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            await asyncio.sleep(piece)


async def _end(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "half":
        writer.write_eof()
        await asyncio.sleep(0.2)
    if how == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


if __name__ == "__main__":
    with FaultServer().running() as started:
        print(started.url, flush=True)
        threading.Event().wait()
