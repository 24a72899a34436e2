"""MCP's door, driven by the official client over both transports."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.policy import Completion, ScriptedPolicy
from cof_agent.server.service import Service
from cof_agent.trajectory import Sample
from tests.server.conftest import data_url
from tests.server.running import running

pytest.importorskip("mcp", reason="the door is tried with the official client where it is installed")

from mcp import Client, StdioServerParameters

Served = tuple[str, Service]
BOX = (1300, 690, 1400, 760)


def pixels_of(content: Any) -> Image.Image:
    """The picture of a reply or a resource."""
    data = content.data if hasattr(content, "data") else content.blob
    return Image.open(io.BytesIO(base64.b64decode(data)))


def is_crop(content: Any, scene: Sample, box: tuple[int, ...]) -> bool:
    """Whether a picture has the pixels of the file."""
    left, top, right, bottom = box
    with Image.open(scene.image) as source:
        wanted = source.convert("RGB").crop((left, top, right, bottom))
    return ImageChops.difference(pixels_of(content), wanted).getbbox() is None


async def tour(client: Client, scene: Sample) -> None:
    """Everything that a client of the server can do, over one connection."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"ask", "overview", "zoom"}
    assert "full resolution" in (tools["zoom"].description or "")

    shown = await client.call_tool("overview", {"image": scene.image})
    assert shown.content[0].type == "image" and pixels_of(shown.content[0]).size == (1568, 882)
    (whole,) = shown.structured_content["regions"]
    assert whole["source_size"] == [1920, 1080] and not whole["full_resolution"] and "resource" not in whole

    for coordinates, box in (
        ("source", BOX),
        ("unit", [1300 / 1920, 690 / 1080, 1400 / 1920, 760 / 1080]),
        ("thousand", [1300 / 1.92, 690 / 1.08, 1400 / 1.92, 760 / 1.08]),
        ("overview", [edge * 1568 / 1920 for edge in BOX]),
    ):
        arguments = {"image": scene.image, "box": box, "coordinates": coordinates}
        zoomed = await client.call_tool("zoom", arguments)
        (place,) = zoomed.structured_content["regions"]
        assert (tuple(place["region"]), place["full_resolution"]) == (BOX, True), coordinates
        assert is_crop(zoomed.content[0], scene, BOX)
    read = (await client.read_resource(place["resource"])).contents[0]
    assert read.mime_type == "image/png" and is_crop(read, scene, BOX)
    sent = await client.call_tool("zoom", {"image": data_url(scene.image), "box": list(BOX)})
    assert is_crop(sent.content[0], scene, BOX)

    text = scene.question
    alone = Agent("nano").ask(scene.image, text)
    told: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    asked = await client.call_tool("ask", {"image": scene.image, "question": text}, progress_callback=hear)
    regions = [tuple(one["region"]) for one in asked.structured_content["regions"]]
    assert asked.structured_content["answer"] == alone.answer
    assert regions == [view.region.pixels() for view in alone.crops] != []
    assert any(line.startswith("Zoom to [") for line in told)
    described = await client.call_tool("zoom", {"image": scene.image, "description": text})
    assert [tuple(one["region"]) for one in described.structured_content["regions"]] == regions[-1:]


async def refusals(client: Client, scene: Sample) -> None:
    for tool, arguments, sentence in (
        ("overview", {"image": "/etc/passwd"}, "there is no file '/etc/passwd' in the folders"),
        ("overview", {"image": "http://localhost/a.png"}, "--allow-urls"),
        ("overview", {"image": "data:image/png;base64,aGVsbG8="}, "cannot be read"),
        ("zoom", {"image": scene.image}, "either a box or a description"),
        ("zoom", {"image": scene.image, "box": [1, 2, 3]}, "a list of four numbers"),
        ("zoom", {"image": scene.image, "box": [5_000, 0, 6_000, 9]}, "lies outside the image"),
        ("ask", {"image": scene.image, "question": " "}, "the question is empty"),
    ):
        result: Any = await client.call_tool(tool, arguments)
        assert result.is_error and sentence in result.content[0].text, result.content
    with pytest.raises(Exception, match="there is no such crop any more"):
        await client.read_resource("crop://0123")


@pytest.mark.slow
def test_the_client_over_http(served: Served, scene: Sample) -> None:
    async def run() -> None:
        async with Client(f"{served[0]}/mcp") as client:
            await tour(client, scene)
            await refusals(client, scene)

    asyncio.run(run())


@pytest.mark.slow
def test_the_client_over_stdio(scenes: Path, scene: Sample) -> None:
    command = ["-m", "cof_agent.cli", "mcp", "--allow-images-from", str(scenes)]
    started = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))

    async def run() -> None:
        async with Client(started) as client:
            await tour(client, scene)
            await refusals(client, scene)

    asyncio.run(run())


class Waiting(ScriptedPolicy):
    """Answers after a minute. at_work: how many calls are under way."""

    at_work = 0

    async def generate(self, messages: Any, images: Any, sampling: Any) -> Completion:
        self.at_work += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.at_work -= 1
        return await super().generate(messages, images, sampling)


def test_a_client_that_leaves_ends_its_call_of_the_model(scenes: Path, scene: Sample) -> None:
    policy = Waiting([])
    call = {"name": "ask", "arguments": {"image": scene.image, "question": scene.question}}
    sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accepted = {"accept": "application/json, text/event-stream"}
    with running(scenes, agent=Agent(AgentConfig(), policy=policy), concurrency=1) as (url, service):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/mcp", json=sent, headers=accepted, timeout=2)
        for _ in range(200):
            if service.places.inside == 0:
                break
            time.sleep(0.05)
        assert (service.places.inside, policy.at_work) == (0, 0)
