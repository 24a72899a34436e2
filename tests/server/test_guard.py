"""Who gets in, how much they may send, and what addresses and files they can reach."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cof_agent import cli
from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.policy import ScriptedPolicy
from cof_agent.server.folders import Folders, path_of
from cof_agent.server.gone import ended
from cof_agent.server.guard import Guard
from cof_agent.server.pictures import Pictures
from cof_agent.server.settings import ServerSettings
from tests.server.running import running

KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """The address of a server with a key that takes 2,000 bytes."""
    agent = Agent(AgentConfig(), policy=ScriptedPolicy(["<answer>red</answer>"]))
    with running(agent=agent, key=KEY, most_bytes=2_000) as (url, _):
        yield url


def test_no_key_no_entry(locked: str) -> None:
    models, entered = f"{locked}/v1/models", {"authorization": f"Bearer {KEY}"}
    assert httpx.get(models).status_code == 401
    assert (
        httpx.get(models, headers={"authorization": "Bearer another"}).json()["error"]["type"] == "authentication_error"
    )
    assert httpx.get(models, headers=entered).status_code == 200
    for path in ("/", "/mcp", "/tiles/x/0/0/0", "/_nicegui/x"):
        assert httpx.get(locked + path).status_code == 401
    with httpx.Client(base_url=locked) as browser:
        first = browser.get("/", headers={"accept": "text/html"})
        assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2F")
        linked = browser.get("/?run=a%20b&number=1", headers={"accept": "text/html"})
        assert linked.headers["location"] == "/login?next=%2F%3Frun%3Da%2520b%26number%3D1"
        assert browser.post("/login", data={"key": "another"}).status_code == 401
        assert browser.get("/v1/models").status_code == 401
        entering = browser.post("/login", data={"key": KEY})
        assert "HttpOnly" in entering.headers["set-cookie"] and KEY not in entering.headers["set-cookie"]
        assert browser.get("/v1/models").status_code == 200
        for wanted, led in (
            ("/?run=a%20b&number=1", "/?run=a%20b&number=1"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/x\r\nset-cookie: a=b", "/"),
        ):
            entering = browser.post("/login", params={"next": wanted}, data={"key": KEY})
            assert (entering.status_code, entering.headers["location"]) == (303, led), wanted


def test_pages_of_other_sites_and_other_names_are_refused(locked: str) -> None:
    entered, port = {"authorization": f"Bearer {KEY}"}, locked.rsplit(":", 1)[1]
    for host, origin, status in (
        (f"localhost:{port}", None, 200),
        (f"127.0.0.1:{port}", f"http://localhost:{port}", 200),
        (f"[::1]:{port}", None, 200),
        (f"evil.example:{port}", None, 403),
        (f"127.0.0.1.evil.example:{port}", None, 403),
        (f"127.0.0.1:{port}", "https://evil.example", 403),
        (f"127.0.0.1:{port}", "http://localhost:1", 403),
        (f"127.0.0.1:{port}", "null", 403),
        (f"127.0.0.1:{port}", "http://[", 403),
    ):
        headers = {**entered, "host": host} | ({} if origin is None else {"origin": origin})
        assert httpx.get(f"{locked}/v1/models", headers=headers).status_code == status, (host, origin)


def test_pictures_in_pages_of_other_sites_bring_nothing(locked: str) -> None:
    entered = {"authorization": f"Bearer {KEY}"}
    for site, mode, status in (
        ("cross-site", "no-cors", 403),
        ("cross-site", "navigate", 200),  # a link to here
        ("same-origin", "cors", 200),
    ):
        headers = {**entered, "sec-fetch-site": site, "sec-fetch-mode": mode}
        assert httpx.get(f"{locked}/v1/models", headers=headers).status_code == status, (site, mode)


def test_what_is_too_large_is_refused_said_or_not(locked: str) -> None:
    entered = {"authorization": f"Bearer {KEY}"}
    for content in (b"x" * 2_001, iter([b"x" * 1_500, b"x" * 1_500])):
        reply = httpx.post(f"{locked}/v1/chat/completions", content=content, headers=entered)
        assert reply.status_code == 413
        assert "larger than 2,000 bytes" in reply.json()["error"]["message"]


def test_many_large_bodies_at_once_are_told_to_come_back(locked: str) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: 2000\r\n\r\n"

    async def run() -> bytes:
        opened = [await asyncio.open_connection("127.0.0.1", int(locked.rsplit(":", 1)[1])) for _ in range(18)]
        for _, writer in opened:
            writer.write(head.encode() + b"x" * 1_900)  # and the rest never comes
        replies = [asyncio.create_task(reader.readline()) for reader, _ in opened]
        done, waiting = await asyncio.wait(replies, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        await ended(*waiting)
        for _, writer in opened:
            writer.transport.abort()
        return done.pop().result()

    assert asyncio.run(run()).startswith(b"HTTP/1.1 503")
    assert httpx.get(f"{locked}/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_login_holds_a_key_and_no_more(locked: str) -> None:
    """Whoever has none must not be able to fill the memory for requests."""
    assert httpx.post(f"{locked}/login", content=b"key=" + b"x" * 5_000).status_code == 413
    entering = httpx.post(f"{locked}/login", data={"key": KEY})
    assert "samesite=lax" in entering.headers["set-cookie"].lower()  # so that links from pages of `cof view` lead in


def test_every_reply_keeps_the_browser_to_this_server(locked: str) -> None:
    for path in ("/login", "/v1/models"):
        policy = httpx.get(locked + path).headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy


def test_a_server_that_others_reach_needs_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["--host", "0.0.0.0"], "a key is needed: set COF_API_KEY"),
        (["--api-key", "a b"], "printable ASCII"),
        (["--allow-images-from", str(tmp_path / "none")], "is no folder"),
        (["--model", "no/such/folder/here"], "no/such/folder/here"),
    ):
        assert cli.main(["serve", "--api-key-env", "UNSET", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert not ServerSettings(host="::", key="k").is_local and ServerSettings(host="::1").is_local


def test_links_lead_out_of_no_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    for file in (
        inside / "a.png",
        inside / "a.pdf",
        outside / "b.png",
        inside / "trajectories.jsonl",
        inside / "samples.jsonl",
    ):
        file.touch()
    (inside / "link.png").symlink_to(outside / "b.png")
    (inside / "far").symlink_to(outside)
    (inside / "near.png").symlink_to(inside / "a.png")
    folders = Folders([inside])
    assert folders.file("a.png") == folders.file(str(inside / "near.png")) == str(inside / "a.png")
    (inside / "near.pdf").symlink_to(inside / "a.pdf")
    assert folders.file(path_of(f"file://{inside}/near.pdf#page=3")) == f"{inside / 'a.pdf'}#page=3"
    for name in (
        "link.png",
        "far/b.png",
        "far/b.pdf#page=1",
        "../out/b.png",
        str(outside / "b.png"),
        ".",
        "a\0.png",
        "x" * 5_000,
        "",
    ):
        with pytest.raises(InputError):
            folders.file(name)
    assert folders.images() == [str(inside / name) for name in ("a.pdf", "a.png", "near.pdf", "near.png")]
    assert folders.runs() == [str(inside / "trajectories.jsonl")]


def test_pictures_in_use_stay_and_the_oldest_others_go() -> None:
    def image(number: int) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + bytes([number]) * 1_000

    pictures = Pictures(most_bytes=3_000)
    held, again, *others = (pictures.add(image(number)) for number in (0, 0, 1, 2, 3))
    assert held == again and pictures.in_use == 5 and all(map(os.path.exists, others))  # more than the limit, but used
    pictures.release(held)
    for path in others:
        pictures.release(path)
    assert [os.path.exists(path) for path in (held, *others)] == [True, False, False, True]
    with pytest.raises(InputError, match="holds an image that cannot be read"):
        pictures.add(b"text")
    pictures.close()
    assert not os.path.exists(held)


def test_what_fails_because_its_client_left_is_no_fault() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != scope["until"]:
            pass
        raise KeyError("REQUEST_METHOD")  # as the page's library does without a body

    async def call(until: str) -> None:
        messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            raise AssertionError(message)

        headers = [(b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "until": until}
        await Guard(app, ServerSettings())(scope, receive, send)

    asyncio.run(call("http.disconnect"))
    with pytest.raises(KeyError):
        asyncio.run(call("http.request"))
