"""Conversations on several servers: images travel once, and a server that goes, or comes back with other weights, is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from PIL import Image

from cof_agent.backends.vllm.requests import Reply, Request
from cof_agent.errors import InputError
from rl.engines.servers import TRIES, Gone, Servers
from tests.rl.engines.canned_vllm import CELLS, IMAGE_TOKEN, CannedVLLM


@pytest.fixture
def one() -> Iterator[CannedVLLM]:
    with CannedVLLM("a").up() as server:
        yield server


@pytest.fixture
def two() -> Iterator[list[CannedVLLM]]:
    with ExitStack() as stack:
        yield [stack.enter_context(CannedVLLM(name).up()) for name in "ab"]


def request(*images: int, word: int = 1) -> Request:
    """A turn after so many images, each named by its colour."""
    ids = [word, *(token for colour in images for token in [IMAGE_TOKEN] * CELLS + [2])]
    pictures = [Image.new("RGB", (28, 28), (colour, 0, 0)) for colour in images]
    return Request(ids, pictures, tuple(bytes([colour]) for colour in images), {"max_tokens": 8, "seed": 0})


def asked(servers: list[CannedVLLM], *requests: Request, first: int = 0) -> tuple[list[Reply], bool]:
    """The replies, one after the other, and whether all came from the weights that were sent."""

    async def ask() -> tuple[list[Reply], bool]:
        everyone = Servers([server.url for server in servers], "as sent", IMAGE_TOKEN, first)
        return [await everyone.ask(one) for one in requests], await everyone.unchanged()

    return asyncio.run(ask())


def test_an_image_travels_once(one: CannedVLLM) -> None:
    replies, unchanged = asked([one], request(1), request(1, 2), request(1, 2, 3), request(word=7))
    assert [reply.ids for reply in replies] == [[1, 97], [2, 97], [3, 97], [0, 97]]
    assert replies[0].logprobs == [-1.0, -97.0]
    assert [came for _, came in one.asked] == [[True], [False], [False, True], [False, False, True], []]
    assert one.asked[1][0] == [1, IMAGE_TOKEN, 2]  # vLLM makes the others itself
    assert unchanged


def test_conversations_that_open_alike_show_it_once(one: CannedVLLM) -> None:
    async def ask() -> None:
        servers = Servers([one.url], "as sent", IMAGE_TOKEN)
        await asyncio.gather(*(servers.ask(request(1, word=3)) for _ in range(5)), servers.ask(request(2)))

    asyncio.run(ask())
    assert sorted(came for _, came in one.asked) == [[False]] * 6 + [[True]] * 2


def test_what_a_server_has_lost_is_sent_again(one: CannedVLLM) -> None:
    async def ask() -> None:
        servers = Servers([one.url], "as sent", IMAGE_TOKEN)
        await servers.ask(request(1))
        one.known.clear()
        await servers.ask(request(1, 2))

    asyncio.run(ask())
    assert [came for _, came in one.asked] == [[True], [False], [False, True], [True, True]]


def test_conversations_go_on_elsewhere(two: list[CannedVLLM]) -> None:
    two[0].left = 3  # the images of both openings, and one reply
    turns = [request(1), request(2), request(1, 5), request(2, 6), request(3)]
    replies, unchanged = asked(two, *turns)
    assert [chr(reply.ids[1]) for reply in replies] == ["a", "b", "a", "b", "b"]
    assert [reply.ids[0] for reply in replies] == [1, 1, 2, 2, 1]
    assert unchanged
    assert [chr(reply.ids[1]) for reply in asked(two, *turns[:2], first=1)[0]] == ["b", "b"]
    two[1].left = 0
    with pytest.raises(Gone, match="no vLLM server is left"):
        asked(two, request(1))


def test_a_server_that_was_restarted_is_noticed(one: CannedVLLM) -> None:
    one.restart()
    replies, unchanged = asked([one], request(1))
    assert replies[0].ids == [1, 97]
    assert not unchanged


def test_a_server_that_was_restarted_is_noticed_though_it_went_later(two: list[CannedVLLM]) -> None:
    two[0].restart()
    two[0].fails = 2  # answers the first turn, then no other, and still says which weights it has
    replies, unchanged = asked(two, request(1), request(1, 2))
    assert [chr(reply.ids[1]) for reply in replies] == ["a", "b"]
    assert not unchanged


def test_a_connection_that_breaks_is_taken_up_again_where_the_server_lives(one: CannedVLLM) -> None:
    url = one.url

    async def ask() -> Reply:
        servers = Servers([url], "as sent", IMAGE_TOKEN)
        await servers.ask(request(1))
        one.drops = 2
        return await servers.ask(request(1, 2))

    assert asyncio.run(ask()).ids == [2, 97]
    one.drops = 100  # though it says that it lives
    with pytest.raises(Gone):
        asked([one], request(1))
    assert one.drops == 100 - TRIES
    one.version = "default"
    one.drops = 1
    with pytest.raises(Gone):
        asked([one], request(1))


def test_what_is_wrong_with_a_server_is_one_sentence(one: CannedVLLM) -> None:
    one.grows = -1
    with pytest.raises(InputError, match=r"vLLM makes 5 tokens of a conversation that has 6: .* keep min_pixels"):
        asked([one], request(1))
    one.refusal = "max_tokens must be at least 1"
    with pytest.raises(InputError, match="refuses a request: max_tokens must be at least 1"):
        asked([one], request(1))
