"""Served chat models, asked over a real OpenAI-compatible server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from cof_agent.backends.chat import ChatPolicy, connect
from cof_agent.backends.checkpoint import load
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context
from cof_agent.nano.build import OVERVIEW_PIXELS
from cof_agent.policy import GREEDY, PolicyError, Retries, Sampling
from cof_agent.protocol import Message
from cof_agent.trajectory import Sample, StopReason
from tests.ports import free_port

SHORT = Sampling(max_tokens=12)
QUESTION: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]


@pytest.fixture(scope="module")
def server(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` with a tiny checkpoint; its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "cof_agent.backends.serve", str(checkpoint("qwen2_5_vl"))]
    command += ["--port", str(port), "--host", "127.0.0.1", "--device=cpu"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/health"):
            running = process.poll() is None and time.monotonic() < deadline
            assert running, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()  # it would finish its running requests first
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def served(checkpoint: Callable[[str], Path], server: str) -> ChatPolicy:
    model = str(checkpoint("qwen2_5_vl"))
    return connect(model, base_url=server, coordinates=CoordinateSystem.ABSOLUTE, max_pixels=OVERVIEW_PIXELS)


@pytest.mark.slow
def test_the_agent_gets_the_same_from_the_server_as_in_process(
    served: ChatPolicy, checkpoint: Callable[[str], Path], picture: Path
) -> None:
    local = load(checkpoint("qwen2_5_vl"), device="cpu")
    assert served.limits == local.limits
    environment = ZoomEnvironment(ZoomSettings(local.coordinates, local.limits))
    sample = Sample("shapes", str(picture), "What is there?")
    # Two runs of the event loop: the connections of the first must not trouble the second.
    remote = [asyncio.run(focus.run(sample, Context(served, environment, sampling=SHORT))) for _ in range(2)]
    here = asyncio.run(focus.run(sample, Context(local, environment, sampling=SHORT)))
    for trajectory in remote:
        assert [turn.text for turn in trajectory.turns] == [turn.text for turn in here.turns]
        assert [turn.tokens for turn in trajectory.turns] == [turn.tokens for turn in here.turns]
        assert trajectory.stop is here.stop


@pytest.mark.slow
def test_concurrent_requests_and_seeds(served: ChatPolicy) -> None:
    async def both() -> list[str]:
        sampling = Sampling(max_tokens=8, temperature=1.0, top_p=0.9, seed=5)
        return [completion.text for completion in [await served.generate(QUESTION, [], sampling) for _ in range(2)]]

    first, second = asyncio.run(both())
    assert first == second


@pytest.mark.slow
def test_what_a_server_refuses(server: str) -> None:
    with pytest.raises(PolicyError, match="status 400") as refused:
        asyncio.run(connect("another/model", base_url=server, boxes=False).generate(QUESTION, [], SHORT))
    assert not refused.value.transient
    with pytest.raises(InputError, match="no interface of OpenAI.s at .* ends in .v1"):
        asyncio.run(connect("x", base_url=f"{server}/nothing", boxes=False).generate(QUESTION, [], SHORT))


@pytest.mark.slow
def test_a_server_that_does_not_answer_in_time(checkpoint: Callable[[str], Path], server: str) -> None:
    policy = connect(str(checkpoint("qwen2_5_vl")), base_url=server, timeout=0.05)
    with pytest.raises(PolicyError, match="did not answer in time") as late:
        asyncio.run(policy.generate(QUESTION, [], Sampling(max_tokens=100)))
    assert late.value.transient


def test_a_dead_server_is_recorded_in_a_sentence(picture: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    policy = connect("Qwen/Qwen2.5-VL-7B-Instruct", base_url=url)
    environment = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    context = Context(policy, environment, sampling=GREEDY, retries=Retries(seconds=0))
    trajectory = asyncio.run(focus.run(Sample("shapes", str(picture), "?"), context))
    assert trajectory.stop is StopReason.ERROR
    assert trajectory.error == f"cannot reach {url}: Connection refused. Is the server running?"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (b"", "cannot reach {url}: Server disconnected. Is the server running?"),
        (b"garbage\r\n\r\n", "{url} gave no answer that can be read: "),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\ncontent-type: application/json\r\n\r\n{",
            "{url} gave no answer that can be read: the reply is cut off",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}",
            "{url} gave no answer that can be read: ",
        ),
    ],
)
def test_what_is_no_reply_is_one_sentence(reply: bytes, sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):  # when the test is over
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        policy = connect("m", base_url=url, timeout=10, boxes=False)
        with pytest.raises(PolicyError) as found:
            asyncio.run(policy.generate(QUESTION, [], GREEDY))
    said = str(found.value)
    assert said.startswith(sentence.format(url=url)) and "\n" not in said


class Continuing(BaseHTTPRequestHandler):
    """Goes on from the beginning of a reply, as vLLM does, or begins a new one, and keeps what it was asked."""

    asked: ClassVar[list[dict[str, Any]]] = []
    replies: ClassVar[dict[str, str]] = {"knows": "7</answer>", "new": "<think>7</think>"}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        told: dict[str, Any] = {
            "content": [{"token": "a", "logprob": value, "bytes": None, "top_logprobs": []} for value in (-1, -2)]
        }
        message = {"role": "assistant", "content": self.replies[body["model"]]}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": told}
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        sent = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_served_model_goes_on_from_a_beginning_and_tells_probabilities() -> None:
    beginning = "<think>I see.</think>\n<answer>"
    begun = [*QUESTION, {"role": "assistant", "content": [{"type": "text", "text": beginning}]}]
    with ThreadingHTTPServer(("127.0.0.1", 0), Continuing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        found = asyncio.run(connect("knows", base_url=url, boxes=False).generate(begun, [], Sampling(logprobs=True)))
        assert (found.text, found.logprob) == (f"{beginning}7</answer>", -1.5)
        with pytest.raises(InputError, match="begins a new reply"):
            asyncio.run(connect("new", base_url=url, boxes=False).generate(begun, [], GREEDY))
        asyncio.run(connect("knows", base_url=url, boxes=False).generate(QUESTION, [], GREEDY))
        server.shutdown()
    flags = [
        [body.get(name) for name in ("add_generation_prompt", "continue_final_message")] for body in Continuing.asked
    ]
    assert flags == [[False, True], [False, True], [None, None]]
    assert [body.get("logprobs") for body in Continuing.asked] == [True, None, None]
    assert Continuing.asked[0]["messages"][-1] == {"role": "assistant", "content": beginning}


def test_a_provider_that_is_no_own_server_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    begun = [*QUESTION, {"role": "assistant", "content": [{"type": "text", "text": "<think>"}]}]
    with pytest.raises(InputError, match="openai cannot go on from the beginning of a reply"):
        asyncio.run(connect("gpt-5", provider="openai", boxes=False).generate(begun, [], GREEDY))


def test_what_is_sent_to_an_own_server() -> None:
    """Each parameter of sampling, so that no default of the checkpoint changes the answer."""
    seen = len(Continuing.asked)
    with ThreadingHTTPServer(("127.0.0.1", 0), Continuing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
        for sampling in (GREEDY, Sampling(7, 0.5, 0.9, 3, stop="</call>")):
            asyncio.run(connect("new", base_url=url, boxes=False).generate(QUESTION, [], sampling))
        server.shutdown()
    neutral = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "frequency_penalty": 0.0}
    asked = {"model": "new", "stream": False, "messages": [{"role": "user", "content": "Hello?"}], **neutral}
    stop = {"stop": ["</call>"], "include_stop_str_in_output": True}
    assert Continuing.asked[seen:] == [
        {**asked, "max_completion_tokens": 512, "max_tokens": 512, "temperature": 0.0},
        {**asked, **stop, "max_completion_tokens": 7, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3},
    ]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "localhost", "ftp://x/v1", "http://", "http://[::1", "http://x:99999/"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match="is no address of a server; write it as in http"):
        connect("m", base_url=address)


def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\N{EN DASH}1234567")
    with pytest.raises(InputError, match="OPENAI_API_KEY") as found:
        connect("m", base_url="http://127.0.0.1:1/v1")
    assert "1234567" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "coordinates", "grid"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", CoordinateSystem.ABSOLUTE, 28),
        ("qwen2_5_vl-finetuned", CoordinateSystem.ABSOLUTE, 28),
        ("Qwen/Qwen3-VL-8B-Instruct", CoordinateSystem.THOUSAND, 32),
        ("qwen/qwen2-vl-2b", CoordinateSystem.THOUSAND, 28),
        ("outputs/DeepEyes-7B", CoordinateSystem.ABSOLUTE, 28),
        ("me/Qwen3-VL-DeepEyes", CoordinateSystem.THOUSAND, 32),
    ],
)
def test_coordinates_follow_the_name(name: str, coordinates: CoordinateSystem, grid: int) -> None:
    policy = connect(name, base_url="http://127.0.0.1:1/v1")
    assert policy.coordinates is coordinates
    assert policy.limits.grid == grid
    assert policy.limits.max_pixels == 1280 * grid**2


def test_coordinates_and_limits_can_be_given() -> None:
    url = "http://127.0.0.1:1/v1"
    policy = connect("m", base_url=url, coordinates=CoordinateSystem.UNIT, max_pixels=40_000, zoom_pixels=10_000)
    assert policy.coordinates is CoordinateSystem.UNIT
    assert (policy.limits.max_pixels, policy.limits.zoom_pixels) == (40_000, 10_000)
    with pytest.raises(InputError, match="at least 784"):
        connect("m", base_url=url, max_pixels=700, boxes=False)


def test_a_missing_key_and_unknown_providers_are_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="credentials"):
        connect("gpt-5")
    with pytest.raises(InputError, match="there is no provider openia; did you mean openai?"):
        connect("m", provider="openia")
    with pytest.raises(InputError, match="Unable to infer"):
        connect("m")


def test_missing_packages_are_named() -> None:
    code = (
        "import sys; sys.modules['langchain'] = sys.modules['langchain.chat_models'] = sys.modules['aiohttp'] = None\n"
        "from cof_agent.backends.chat import connect\n"
        "from cof_agent.errors import InputError\n"
        "for where in {'base_url': 'http://127.0.0.1:1'}, {'provider': 'anthropic'}:\n"
        "    try: connect('m', **where)\n"
        "    except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.count("pip install '") == 2


def test_images_travel_as_png_at_the_size_we_gave_them() -> None:
    import base64
    import io

    from cof_agent.backends.chat.images import Inside
    from cof_agent.backends.chat.messages import image_part, rendered

    image = Image.effect_noise((56, 84), 50).convert("RGB")
    message: Message = {"role": "user", "content": [{"type": "image", "view": 0}, {"type": "text", "text": "?"}]}
    block = rendered(message, [image_part(Inside().url(image, "key"))])["content"][0]
    head, _, data = block["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.size == image.size
    assert sent.tobytes() == image.tobytes()
