"""Scripted policies, and the batcher that lets many callers share one engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cof_agent.backends.local.batching import Batcher
from cof_agent.policy import GREEDY, Completion, PolicyError, Retries, ScriptedPolicy
from cof_agent.protocol import Message
from tests.clock import Clock


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_reply_that_fails_is_asked_for_again_after_growing_waits(clock: Clock) -> None:
    times: list[float] = []

    async def hiccup(error: Exception | None, fails: int) -> int:
        times.append(clock.now)
        if error is not None and len(times) <= fails:
            raise error
        return len(times)

    def tried(error: Exception | None, fails: int) -> int:
        times.clear()
        clock.now = 0.0
        return clock.run(Retries(wait=0.02).run(lambda: hiccup(error, fails)))

    assert tried(None, 0) == 1
    assert tried(PolicyError("busy"), 2) == 3
    assert times == pytest.approx([0, 0.02, 0.02 + 0.08])
    with pytest.raises(PolicyError, match="gone"):
        tried(PolicyError("gone"), 3)
    assert len(times) == 3
    for error in (PolicyError("too long", transient=False), ValueError("ours")):
        with pytest.raises(type(error), match=str(error)):
            tried(error, 3)
        assert len(times) == 1


class Outage:
    """Fails until it is over, and knows when it was asked."""

    def __init__(self, clock: Clock, lasts: float, after: float | None = None) -> None:
        self.clock, self.began, self.lasts, self.after = clock, clock.now, lasts, after
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(self.clock.now - self.began)
        if self.asked[-1] < self.lasts:
            raise PolicyError("down.", outage=True, after=self.after)
        return "up"


def test_an_outage_is_waited_for_by_all_together(clock: Clock) -> None:
    outage, retries = Outage(clock, 0.6), Retries(seconds=5, wait=0.05)

    async def many() -> list[str]:
        return await asyncio.gather(*(retries.run(outage) for _ in range(6)))

    assert clock.run(many()) == ["up"] * 6
    assert outage.asked == pytest.approx([0] * 6 + [0.05] * 6 + [0.05 + 0.2] * 6 + [0.25 + 0.8] * 6)


def test_a_server_says_how_long_to_wait(clock: Clock) -> None:
    outage = Outage(clock, 0.3, after=0.4)
    assert clock.run(Retries(wait=0.01).run(outage)) == "up"
    assert outage.asked == pytest.approx([0, 0.4])


def test_a_wait_that_is_too_long_is_not_begun(clock: Clock) -> None:
    outage = Outage(clock, 99, after=86_400)
    with pytest.raises(PolicyError, match="down"):
        clock.run(Retries(seconds=3).run(outage))
    assert outage.asked == [0] and clock.now == 0


def test_an_outage_costs_its_time_once(clock: Clock) -> None:
    retries, outage = Retries(seconds=0.5, wait=0.05), Outage(clock, 99)

    async def one() -> None:
        with pytest.raises(PolicyError, match="down"):
            await retries.run(outage, "a")

    clock.run(one())
    assert outage.asked == pytest.approx([0, 0.05, 0.25, 0.5])
    clock.run(one())
    assert len(outage.asked) == 5  # known to be down
    other = Outage(clock, 0.1)
    assert clock.run(retries.run(other, "b")) == "up"  # another policy
    outage.lasts = 0
    assert clock.run(retries.run(outage, "a")) == "up"
    again = Outage(clock, 0.2)
    assert clock.run(retries.run(again, "a")) == "up"  # a new outage has its own time


def test_zero_seconds_ask_once() -> None:
    for error in (PolicyError("a hiccup"), PolicyError("down", outage=True)):
        asked: list[int] = []

        async def fails(error: Exception = error, asked: list[int] = asked) -> None:
            asked.append(1)
            raise error

        with pytest.raises(PolicyError):
            asyncio.run(Retries(seconds=0).run(fails))
        assert asked == [1]


def test_a_wait_is_told_of_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    retries = Retries(seconds=9, wait=0.6)

    async def two() -> None:
        await asyncio.gather(*(retries.run(Outage(clock, 1.0)) for _ in range(2)))

    clock.run(two())
    assert [record.getMessage() for record in caplog.records] == [
        "down. Waiting for it, for up to 9 seconds (--retry-seconds)."
    ]


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
    class Waiting(Countdown):
        """Each step lasts until the loop has turned."""

        turned = threading.Event()

        def step(self) -> dict[int, list[int]]:
            self.turned.clear()
            assert self.turned.wait(10), "the loop stands still"
            return super().step()

    async def scene() -> list[int]:
        busy = asyncio.create_task(Batcher(Waiting()).submit(4))
        while not busy.done():
            Waiting.turned.set()
            await asyncio.sleep(0.001)
        return await busy

    assert len(asyncio.run(scene())) == 4


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


def test_the_worker_has_stopped_when_the_interpreter_ends() -> None:
    """A thread that is still inside native code then would abort the process."""
    code = (
        "import asyncio, atexit, contextlib, threading, time\n"
        "atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))\n"  # the last to be called
        "from tests.test_policy import Countdown\n"
        "from cof_agent.backends.local.batching import Batcher\n"
        "async def ask():\n"
        "    with contextlib.suppress(TimeoutError):\n"
        "        async with asyncio.timeout(0.2):\n"
        "            await asyncio.gather(*(batcher.submit(10**6) for _ in range(3)))\n"
        "batcher = Batcher(Countdown(pause=0.1))\n"
        "asyncio.run(ask())\n"
        "assert any(thread.name == 'batcher' for thread in threading.enumerate())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['MainThread']\n", "")
