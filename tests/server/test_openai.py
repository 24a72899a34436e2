"""OpenAI's door, driven by OpenAI's own client, LangChain, and requests as other clients write them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.errors import InputError
from cof_agent.policy import PolicyError, ScriptedPolicy
from cof_agent.server import openai_request
from cof_agent.server.gone import ended
from cof_agent.server.openai_request import EARLIER
from cof_agent.server.places import Places
from cof_agent.server.refusals import Refusal
from cof_agent.server.service import Service
from cof_agent.trajectory import Sample
from tests.server.conftest import data_url
from tests.server.running import running

openai = pytest.importorskip("openai", reason="the door is tried with OpenAI's client where it is installed")

Served = tuple[str, Service]


def about(scene: Sample, *parts: Any, text: str | None = None) -> list[dict[str, Any]]:
    """A message as OpenAI's clients write it."""
    asked = scene.question + "\n" + "\n".join(f"{'ABCDEFGH'[n]}. {one}" for n, one in enumerate(scene.choices))
    image = {"type": "image_url", "image_url": {"url": data_url(scene.image), "detail": "high"}}
    return [{"role": "user", "content": [*(parts or [image]), {"type": "text", "text": text or asked}]}]


def body(scene: Sample, **fields: Any) -> dict[str, Any]:
    return {"model": "nano", "messages": about(scene), **fields}


def post(url: str, sent: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=sent, headers=headers, timeout=60)


def settled(service: Service) -> None:
    """Waits until nobody is served and no image is in use: both end just after the last byte of a reply."""
    end = time.monotonic() + 60
    while service.places.inside or service.incoming.pictures.in_use:
        assert time.monotonic() < end, "a conversation does not end"
        time.sleep(0.01)


def test_the_openai_client_gets_the_agents_answer_and_its_zooms(served: Served, scene: Sample) -> None:
    url, service = served
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["nano"]
    done = client.chat.completions.create(model="nano", messages=about(scene), temperature=0, max_tokens=16)
    text = about(scene)[0]["content"][-1]["text"]
    alone = Agent("nano").ask(scene.image, text)
    assert done.choices[0].message.content == alone.answer
    assert done.choices[0].finish_reason == "stop"
    zooms = done.choices[0].message.zooms
    assert [tuple(one["box"]) for one in zooms] == [view.region.pixels() for view in alone.crops] != []
    assert done.usage.prompt_tokens == sum(turn.tokens.prompt or 0 for turn in alone.turns)
    assert done.usage.completion_tokens == sum(turn.tokens.completion or 0 for turn in alone.turns)

    stream = client.chat.completions.create(
        model="nano", messages=about(scene), stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    assert "".join(delta.content or "" for delta in deltas) == alone.answer
    thoughts = [delta.reasoning_content for delta in deltas if hasattr(delta, "reasoning_content")]
    assert "".join(thoughts).rstrip("\n") == done.choices[0].message.reasoning_content
    assert len(thoughts) >= 3 and "Zoom to [" in "".join(thoughts)
    streamed = [zoom for delta in deltas for zoom in getattr(delta, "zooms", [])]
    assert streamed == [{"index": number, **zoom} for number, zoom in enumerate(zooms)]
    assert pieces[-1].usage == done.usage
    if hasattr(client.chat.completions, "stream"):  # which puts the pieces together
        with client.chat.completions.stream(model="nano", messages=about(scene)) as events:
            *_, last = events
        assert last.type == "content.done" or last.chunk
        whole = events.get_final_completion().choices[0].message
        assert whole.content == alone.answer and [one["number"] for one in whole.zooms] == [
            one["number"] for one in zooms
        ]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        client.models.retrieve("other")
    settled(service)  # what was sent may go


def test_langchain_asks_it_like_any_model(served: Served, scene: Sample) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI(model="nano", base_url=f"{served[0]}/v1", api_key="none")
    whole = chat.invoke(about(scene))
    assert whole.content and whole.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in chat.stream(about(scene))) == whole.content


def test_what_is_wrong_has_openais_form_and_names_the_field(served: Served, scene: Sample) -> None:
    url, _ = served
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    cases: list[tuple[int, str, Any]] = [
        (400, "no JSON object", []),
        (400, "the field model of the request: Field required", {"messages": about(scene)}),
        (404, "the model 'gpt' does not exist here", body(scene, model="gpt")),
        (400, "no image in the conversation", body(scene, messages=[{"role": "user", "content": "Hi"}])),
        (400, "no question beside the image", body(scene, messages=about(scene, text=" "))),
        (400, "the field n of the request is not supported", body(scene, n=2)),
        (400, "the field tools of the request is not supported", body(scene, tools=[{"type": "function"}])),
        (400, "the field zoom_more of the request is not known", body(scene, zoom_more=True)),
        (400, "the field temperature of the request: Input should be", body(scene, temperature=7)),
        (400, "holds an image that cannot be read", body(scene, messages=about(scene, image, text="What?"))),
        (400, "'input_audio', but only text", body(scene, messages=about(scene, {"type": "input_audio"}, text="x"))),
        (400, "region 1 of", body(scene, regions=[[5, 5, 1, 1]], messages=about(scene, text="What is <region1>?"))),
    ]
    for status, sentence, sent in cases:
        reply = post(url, sent)
        error = reply.json()["error"]
        assert (reply.status_code, sentence in error["message"]) == (status, True), error
        assert error["type"] == "invalid_request_error" and "Traceback" not in reply.text
        streamed = post(url, {**sent, "stream": True}) if isinstance(sent, dict) else reply
        assert streamed.status_code == status  # known before the stream begins
    assert httpx.get(f"{url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert httpx.post(f"{url}/v1/chat/completions", content=b"{").status_code == 400


def test_images_by_name_come_from_the_allowed_folders_only(served: Served, scene: Sample, picture: Any) -> None:
    url, _ = served
    for name in (scene.image, f"file://{scene.image}"):
        part = {"type": "image_url", "image_url": {"url": name}}
        assert post(url, body(scene, messages=about(scene, part))).status_code == 200
    for name in (str(picture), "/etc/passwd", "../../etc/passwd", f"file://elsewhere{scene.image}", "ftp://a/b.png"):
        part = {"type": "image_url", "image_url": {"url": name}}
        assert post(url, body(scene, messages=about(scene, part))).status_code == 400
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}
    refused = post(url, body(scene, messages=about(scene, part)))
    assert "--allow-urls" in refused.json()["error"]["message"]


@pytest.mark.slow
def test_several_images_and_a_chat_that_goes_on(served: Served, scene: Sample) -> None:
    url, _ = served
    image = {"type": "image_url", "image_url": {"url": data_url(scene.image)}}
    both = post(url, body(scene, messages=about(scene, image, image, text="Which is larger?")))
    assert both.status_code == 200
    assert both.json()["choices"][0]["message"]["reasoning_content"].count("Overview: ") == 2
    chat = [*about(scene), {"role": "assistant", "content": "red"}, {"role": "user", "content": "And the other?"}]
    message = post(url, body(scene, messages=chat)).json()["choices"][0]["message"]
    assert message["notes"][0].startswith("Each question is answered by itself")
    image_first = {"role": "user", "content": [image]}
    opened: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": "Be brief."}, image_first],
        [{"role": "user", "content": "It is from Spain."}, image_first],
    ]
    for before in opened:  # messages of a user that follow each other are one
        chat = [*before, {"role": "user", "content": "Which is larger?"}]
        message = post(url, body(scene, messages=chat)).json()["choices"][0]["message"]
        assert EARLIER not in message["notes"], before  # beside nano's own
    one_by_one = [image_first, image_first, {"role": "user", "content": "Which is larger?"}]
    joined = openai_request.read(json.dumps({"model": "nano", "messages": one_by_one}).encode())
    assert (len(joined.images), joined.text, joined.earlier) == (2, "Which is larger?", False)


def test_only_pictures_are_numbered_and_words_stay() -> None:
    def image(name: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": name}}

    def said(text: str) -> dict[str, str]:
        return {"type": "text", "text": text}

    content = [image("a"), said("and"), image("b"), said("What does <image> or <image_1> mean?")]
    messages = [{"role": "system", "content": "Use <image> marks."}, {"role": "user", "content": content}]
    read = openai_request.read(json.dumps({"model": "nano", "messages": messages}).encode())
    assert read.text == "Use <image> marks.\npicture 1\nand\npicture 2\nWhat does <image> or <image_1> mean?"


def test_more_words_than_the_model_reads(served: Served, scene: Sample) -> None:
    url, service = served
    for stream in (False, True):
        told = post(url, body(scene, messages=about(scene, text="word " * 9000), stream=stream)).text
        error = json.loads(told.split("data: ")[-2] if stream else told)["error"]
        assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
        assert "nano reads at most 8,192" in error["message"]
    settled(service)


def test_fields_and_methods_as_openai_has_them(served: Served, scene: Sample) -> None:
    url, _ = served
    nothing = {"stream": None, "choices": None, "regions": None, "function_call": "none", "tool_choice": "none"}
    assert post(url, body(scene, **nothing, tools=[{"type": "function"}])).status_code == 200
    for name, value in (
        ("n", True),
        ("temperature", "0.5"),
        ("max_tokens", "10"),
        ("stream", "true"),
        ("tools", [{"type": "function"}]),
        ("reasoning_effort", "low"),
    ):
        refused = post(url, body(scene, **{name: value}))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name), name
    refused = post(url, body(scene, choices=["red", " "]))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "choices")
    typo = [{"role": "System", "content": "Be brief."}, *about(scene)]
    assert "'System', which is none" in post(url, body(scene, messages=typo)).json()["error"]["message"]
    cut = json.dumps(body(scene, choices=["a\ud83d", "b"]))
    assert (
        httpx.post(f"{url}/v1/chat/completions", content=cut)
        .json()["error"]["message"]
        .startswith("the request holds a text")
    )
    for method, path, status in (("GET", "chat/completions", 405), ("DELETE", "models", 405), ("PUT", "x", 404)):
        reply = httpx.request(method, f"{url}/v1/{path}")
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")


def test_a_tile_that_is_none_is_not_there(served: Served) -> None:
    url, _ = served
    for path in ("x/a/0/0", "x/-1/0/0", "x/0/0/0"):
        reply = httpx.get(f"{url}/tiles/{path}")
        assert (reply.status_code, set(reply.json())) == (404, {"error"})


def test_a_question_of_no_end_is_refused(served: Served, scene: Sample) -> None:
    url, _ = served
    image = {"type": "image_url", "image_url": {"url": scene.image}}
    for sent in (
        body(scene, messages=about(scene, *[image] * 100, text="Which?")),
        body(scene, choices=[str(number) for number in range(1000)]),
        body(scene, messages=about(scene, text="x" * 300_000)),
    ):
        refused = post(url, sent)
        assert refused.status_code == 400 and "are read" in refused.json()["error"]["message"]


def test_what_open_webui_asks_for_beside_the_chat(served: Served, scene: Sample) -> None:
    """Its request for a title has the conversation as text and no image; it falls back to the first words after a 400."""
    url, _ = served
    title = {
        "model": "nano",
        "stream": False,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "A title?"}],
    }
    assert post(url, title).status_code == 400
    assert httpx.get(f"{url}/v1/models").json()["data"][0]["object"] == "model"
    chat = body(scene, stream=True, stream_options={"include_usage": True}, user="u1", metadata={"chat_id": "1"})
    lines = [line for line in post(url, chat).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]" and json.loads(lines[0][6:])["object"] == "chat.completion.chunk"


def test_a_client_that_vanishes_ends_its_conversation(served: Served, scene: Sample) -> None:
    url, service = served

    async def leave(stream: bool) -> None:
        async with httpx.AsyncClient() as client:
            sent = client.post(f"{url}/v1/chat/completions", json=body(scene, stream=stream), timeout=60)
            asking = asyncio.create_task(sent)
            while not service.places.inside and not asking.done():
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    for stream in (False, True):
        asyncio.run(leave(stream))
        settled(service)
    assert post(url, body(scene)).status_code == 200


def test_a_model_that_fails_is_said_without_a_traceback(scenes: Path, scene: Sample) -> None:
    part = {"type": "image_url", "image_url": {"url": scene.image}}
    sent = body(scene, model="nano", messages=about(scene, part))
    for error, status, sentence in (
        (PolicyError("the model is gone", transient=False), 502, "the model is gone"),
        (InputError("the key is wrong"), 502, "the key is wrong"),
        (RuntimeError("secret inside"), 500, "the server failed at this request"),
    ):
        agent = Agent(AgentConfig(), policy=ScriptedPolicy([error]))
        with running(scenes, agent=agent) as (url, service):
            whole, streamed = post(url, sent), post(url, sent | {"stream": True})
            settled(service)
            with pytest.raises(openai.APIError, match=sentence):
                list(openai.OpenAI(base_url=f"{url}/v1", api_key="-").chat.completions.create(**sent, stream=True))
        assert (whole.status_code, streamed.status_code) == (status, 200)
        for reply in (whole, streamed):
            assert sentence in reply.text and "Traceback" not in reply.text and "secret" not in reply.text


def test_who_finds_no_place_is_told_to_come_back() -> None:
    async def run() -> None:
        places, entered = Places(concurrency=1, waiting=1), asyncio.Event()

        async def stay() -> None:
            async with places.place():
                entered.set()
                await asyncio.sleep(60)

        first, second = (asyncio.create_task(stay()) for _ in range(2))
        await entered.wait()
        assert places.is_full
        with pytest.raises(Refusal) as refusal:
            await stay()
        assert refusal.value.status == 503 and refusal.value.headers == {"retry-after": "2"}
        for task in (second, first):  # one that waits, then one that is served
            await ended(task)
        async with places.place():
            assert places.inside == 1

    asyncio.run(run())
