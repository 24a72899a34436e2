"""Scripted policies, and the batcher that lets many callers share one engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from cof_agent.backends.local.batching import Batcher
from cof_agent.policy import GREEDY, Completion, PolicyError, Retries, ScriptedPolicy
from cof_agent.protocol import Message


def _conversation(said: int) -> list[Message]:
    roles = ["user", *["assistant"] * said]
    return [{"role": role, "content": []} for role in roles]


def test_a_scripted_policy_plays_the_line_of_the_turn() -> None:
    policy = ScriptedPolicy(["one", Completion("two", truncated=True)])
    assert asyncio.run(policy.generate(_conversation(0), [], GREEDY)) == Completion("one")
    assert asyncio.run(policy.generate(_conversation(1), [], GREEDY)).truncated


def test_a_scripted_policy_raises_a_scripted_error_and_says_when_it_is_over() -> None:
    policy = ScriptedPolicy([PolicyError("gone")])
    with pytest.raises(PolicyError, match="gone"):
        asyncio.run(policy.generate(_conversation(0), [], GREEDY))
    with pytest.raises(ValueError, match="1 lines, but message 2"):
        asyncio.run(policy.generate(_conversation(1), [], GREEDY))


def test_a_policy_is_asked_again_after_growing_waits() -> None:
    times: list[float] = []

    async def hiccup(error: Exception | None, fails: int) -> int:
        times.append(time.monotonic())
        if error is not None and len(times) <= fails:
            raise error
        return len(times)

    def tried(error: Exception | None, fails: int) -> int:
        times.clear()
        return asyncio.run(Retries(3, 0.02).run(lambda: hiccup(error, fails)))

    assert tried(None, 0) == 1
    assert tried(PolicyError("busy"), 2) == 3
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.02 <= first < 0.08 <= second
    with pytest.raises(PolicyError, match="gone"):
        tried(PolicyError("gone"), 3)
    assert len(times) == 3
    for error in (PolicyError("too long", transient=False), ValueError("ours")):
        with pytest.raises(type(error), match=str(error)):
            tried(error, 3)
        assert len(times) == 1


def test_a_script_may_be_a_function_of_the_conversation() -> None:
    policy = ScriptedPolicy(lambda messages: f"{len(messages)} messages")
    assert asyncio.run(policy.generate(_conversation(2), [], GREEDY)).text == "3 messages"


class Countdown:
    """An engine for numbers: request `n` is finished after `n` steps, with the sizes of the batches it was in."""

    def __init__(self, capacity: int = 64, pause: float = 0.0) -> None:
        self.capacity = capacity
        self.pause = pause
        self.left: dict[int, int] = {}
        self.sizes: dict[int, list[int]] = {}
        self.dropped: list[int] = []
        self.fail = False
        self.keys: Iterator[int] = iter(range(10**9))

    def admit(self, request: int) -> int:
        if request < 0:
            raise ValueError(f"{request} is negative")
        key = next(self.keys)
        self.left[key] = request
        self.sizes[key] = []
        return key

    def step(self) -> dict[int, list[int]]:
        time.sleep(self.pause)
        if self.fail:
            self.fail = False
            raise RuntimeError("step failed")
        for key in self.left:
            self.left[key] -= 1
            self.sizes[key].append(len(self.left))
        finished = [key for key, left in self.left.items() if left <= 0]
        for key in finished:
            del self.left[key]
        return {key: self.sizes[key] for key in finished}

    def drop(self, key: int) -> None:
        self.dropped.append(key)
        del self.left[key]

    def reset(self) -> None:
        self.left.clear()


async def _all(batcher: Batcher[int, list[int]], requests: list[int]) -> list[list[int] | BaseException]:
    return await asyncio.gather(*(batcher.submit(request) for request in requests), return_exceptions=True)


def test_requests_run_together_and_leave_when_done() -> None:
    batcher = Batcher(Countdown(pause=0.01))
    short, long = asyncio.run(_all(batcher, [2, 30]))
    assert isinstance(short, list)
    assert isinstance(long, list)
    assert len(short) == 2
    assert len(long) == 30
    assert max(long) == 2
    assert long[-1] == 1


def test_capacity_is_kept_and_the_rest_joins_as_room_appears() -> None:
    engine = Countdown(capacity=4, pause=0.001)
    results = asyncio.run(_all(Batcher(engine), [3] * 20))
    assert all(isinstance(result, list) and max(result) <= 4 for result in results)
    assert sum(result == [4, 4, 4] for result in results) >= 12


def test_an_error_in_admission_reaches_its_caller_alone() -> None:
    good, bad, other = asyncio.run(_all(Batcher(Countdown(pause=0.001)), [3, -1, 2]))
    assert isinstance(bad, ValueError)
    assert isinstance(good, list)
    assert isinstance(other, list)


def test_an_error_in_a_step_reaches_everybody_and_the_next_batch_runs() -> None:
    engine = Countdown(pause=0.01)
    batcher = Batcher(engine)
    engine.fail = True
    assert any(isinstance(result, RuntimeError) for result in asyncio.run(_all(batcher, [3, 3])))
    assert asyncio.run(_all(batcher, [2])) == [[1, 1]]


def test_cancelling_one_caller_drops_it_and_spares_the_others() -> None:
    engine = Countdown(pause=0.005)
    batcher = Batcher(engine)

    async def scene() -> list[int]:
        lost = asyncio.create_task(batcher.submit(10**6))
        kept = asyncio.create_task(batcher.submit(20))
        await asyncio.sleep(0.03)
        lost.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lost
        return await kept

    assert len(asyncio.run(scene())) == 20
    assert asyncio.run(_all(batcher, [1])) == [[1]], "the cancelled request still took part"
    assert engine.dropped == [0]


def test_the_event_loop_stays_responsive_while_a_batch_runs() -> None:
    batcher = Batcher(Countdown(pause=0.05))

    async def scene() -> int:
        ticks, busy = 0, asyncio.create_task(batcher.submit(4))
        while not busy.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks

    assert asyncio.run(scene()) > 10


def test_callers_in_several_loops_and_threads_share_the_engine() -> None:
    batcher = Batcher(Countdown(pause=0.005))
    results: list[list[int] | BaseException] = []
    threads = [threading.Thread(target=lambda: results.extend(asyncio.run(_all(batcher, [10])))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(results) == 5
    assert all(isinstance(result, list) and len(result) == 10 for result in results)
    assert max(max(result) for result in results if isinstance(result, list)) == 5
