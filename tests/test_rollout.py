"""Many samples at once: resume, order, recorded failures, and runs that are interrupted or killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.graphs.focus import FOCUS
from cof_agent.graphs.steps import Context
from cof_agent.policy import GREEDY, Completion, PolicyError, Sampling, ScriptedPolicy
from cof_agent.protocol import Message, write_answer, write_zoom
from cof_agent.rollout import finished, play_all, rollout
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl, to_json

ZOOM = write_zoom("closer", Box(100, 100, 300, 250))


def _question(messages: Sequence[Message]) -> str:
    return str(messages[1]["content"][-1]["text"])


def _echo(messages: Sequence[Message]) -> str:
    """Zooms once, then answers with the question."""
    return ZOOM if len(messages) == 2 else write_answer("seen", _question(messages))


class Dawdler(ScriptedPolicy):
    """Answers later questions sooner, and knows how many it was asked at once."""

    at_once = most = 0

    async def generate(self, messages, images, sampling):  # type: ignore[no-untyped-def]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.02 / (1 + int(_question(messages))))
        self.at_once -= 1
        return await super().generate(messages, images, sampling)


@pytest.fixture
def samples(picture: Path) -> list[Sample]:
    return [Sample(f"s{number}", str(picture), str(number)) for number in range(12)]


def run(samples: Sequence[Sample], policy: ScriptedPolicy | None = None, **options: object) -> list[Trajectory]:
    environment = options.pop("environment", None) or ZoomEnvironment()
    context = Context(policy or ScriptedPolicy(_echo), environment, options.pop("sampling", GREEDY))  # type: ignore[arg-type]
    return asyncio.run(rollout(episodes(samples), FOCUS, lambda _: context, progress=False, **options))  # type: ignore[arg-type]


def timeless(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return [replace(t, turns=tuple(replace(turn, seconds=0.0) for turn in t.turns)) for t in trajectories]


def test_results_do_not_depend_on_concurrency(samples: list[Sample], tmp_path: Path) -> None:
    one, many = Dawdler(_echo), Dawdler(_echo)
    alone = run(samples, one, concurrency=1, output=tmp_path / "1.jsonl")
    together = run(samples, many, concurrency=8, output=tmp_path / "8.jsonl")
    assert one.most == 1 < many.most <= 8
    assert [t.answer for t in alone] == [sample.question for sample in samples]
    assert timeless(alone) == timeless(together)
    assert list(read_jsonl(tmp_path / "8.jsonl", Trajectory)) == together


def test_no_output_is_needed(samples: list[Sample]) -> None:
    assert len(run(samples[:2])) == 2
    assert len(run(samples[:2], concurrency=0)) == 2  # at least one at a time
    assert run([]) == []


def test_a_second_run_asks_only_for_what_is_missing(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    first = run(samples[:5], output=output)
    fresh: list[Trajectory] = []
    everything = run(samples, output=output, on_done=fresh.append)
    assert sorted(t.sample.id for t in fresh) == sorted(sample.id for sample in samples[5:])
    assert everything[:5] == first
    assert run(samples, ScriptedPolicy([]), output=output) == everything


def test_a_smaller_run_keeps_what_a_larger_one_did(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    run(samples, output=output)
    assert len(run(samples[:3], output=output)) == 3
    assert len(list(read_jsonl(output, Trajectory))) == len(samples)


def test_a_line_that_was_cut_off_is_done_again(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    everything = run(samples, output=output)
    output.write_text(to_json(everything[3]) + "\n" + to_json(everything[1])[:200])
    again = run(samples, output=output)
    assert timeless(again) == timeless(everything)
    assert list(read_jsonl(output, Trajectory)) == again


def test_one_failure_is_recorded_and_the_rest_is_done(samples: list[Sample], tmp_path: Path) -> None:
    broken = [replace(samples[2], image=str(tmp_path / "missing.png"))]

    def script(messages: Sequence[Message]) -> str | Exception:
        return PolicyError("lost", transient=False) if _question(messages) == "4" else _echo(messages)

    trajectories = run([*samples[:2], *broken, *samples[3:]], ScriptedPolicy(script), output=tmp_path / "t.jsonl")
    failed = {t.sample.id: t.error for t in trajectories if t.stop is StopReason.ERROR}
    assert set(failed) == {"s2", "s4"}
    assert failed["s4"] == "lost"
    assert "missing.png" in str(failed["s2"])
    assert sum(t.stop is StopReason.ANSWERED for t in trajectories) == len(samples) - 2


def test_errors_are_tried_again_on_request(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    lost = ScriptedPolicy([PolicyError("lost", transient=False)])
    assert {t.stop for t in run(samples, lost, output=output)} == {StopReason.ERROR}
    assert {t.stop for t in run(samples, output=output)} == {StopReason.ERROR}
    assert {t.stop for t in run(samples, output=output, retry_errors=True)} == {StopReason.ANSWERED}
    assert len(list(read_jsonl(output, Trajectory))) == len(samples)


def test_a_programming_error_stops_the_run_and_keeps_the_rest(samples: list[Sample], tmp_path: Path) -> None:
    def script(messages: Sequence[Message]) -> str | Exception:
        return KeyError("bug") if _question(messages) == "7" else _echo(messages)

    with pytest.raises(KeyError, match="bug"):
        run(samples, ScriptedPolicy(script), concurrency=1, output=tmp_path / "t.jsonl")
    assert len(list(read_jsonl(tmp_path / "t.jsonl", Trajectory))) == 7


def test_what_does_not_belong_together_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    run(samples[:2], output=output)
    with pytest.raises(InputError, match=r"settings\.max_zooms was 6 and is now 1;"):
        run(samples, output=output, environment=ZoomEnvironment(ZoomSettings(max_zooms=1)))
    with pytest.raises(InputError, match=r"settings\.sampling\.temperature was 0\.0 and is now 1\.0;"):
        run(samples, output=output, sampling=Sampling(temperature=1.0))
    with pytest.raises(InputError, match='policy was "scripted" and is now "other";'):
        run(samples, ScriptedPolicy(_echo, name="other"), output=output)
    with pytest.raises(InputError, match="another sample 's0'"):
        run([replace(samples[0], question="?")], output=output)
    with pytest.raises(InputError, match="two samples have the id"):
        run([samples[0], samples[0]])


def test_collecting_takes_any_agent(samples: list[Sample]) -> None:
    async def one(episode: Episode) -> Trajectory:
        return Trajectory(episode.sample, None, (), StopReason.ANSWERED, answer=episode.sample.question)

    done = asyncio.run(play_all(episodes(samples), one, concurrency=3, progress=False))
    assert [t.answer for t in done] == [sample.question for sample in samples]


SLOW = """
import asyncio, sys
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import episodes
from cof_agent.graphs.focus import FOCUS
from cof_agent.graphs.steps import Context
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import write_answer
from cof_agent.rollout import rollout
from cof_agent.trajectory import Sample

class Slow(ScriptedPolicy):
    async def generate(self, messages, images, sampling):
        await asyncio.sleep(0.1)
        return await super().generate(messages, images, sampling)

samples = [Sample(f"s{number}", sys.argv[2], str(number)) for number in range(1000)]
policy = Slow(lambda messages: write_answer("", messages[1]["content"][-1]["text"]))
try:
    context = Context(policy, ZoomEnvironment())
    asyncio.run(rollout(episodes(samples), FOCUS, lambda _: context, output=sys.argv[1], concurrency=2))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_run_keeps_what_it_did(picture: Path, tmp_path: Path, ending: signal.Signals) -> None:
    output = tmp_path / "t.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(output), str(picture)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background ignores it
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not output.exists() or output.read_bytes().count(b"\n") < 4):
        time.sleep(0.02)
    process.send_signal(ending)
    _, said = process.communicate(timeout=30)
    kept = list(read_jsonl(output, Trajectory))
    assert 4 <= len(kept) < 1000
    assert all(t.answer == t.sample.question for t in kept)
    if ending is signal.SIGINT:
        assert process.returncode == 130
        assert f"interrupted: {len(kept)} of 1000 trajectories are kept in {output}" in said
    policy = ScriptedPolicy(lambda messages: write_answer("", _question(messages)))
    samples = [Sample(f"s{number}", str(picture), str(number)) for number in range(20)]
    assert [t.answer for t in run(samples, policy, output=output)] == [sample.question for sample in samples]


def test_the_policy_of_a_rollout_is_asked_with_its_sampling(samples: list[Sample]) -> None:
    asked: list[Sampling] = []

    class Curious(ScriptedPolicy):
        async def generate(self, messages, images, sampling) -> Completion:  # type: ignore[no-untyped-def]
            asked.append(sampling)
            return await super().generate(messages, images, sampling)

    run(samples[:1], Curious(_echo), sampling=replace(GREEDY, max_tokens=7))
    assert {sampling.max_tokens for sampling in asked} == {7}


def test_a_turn_of_a_megabyte_makes_no_huge_record(samples: list[Sample]) -> None:
    (made,) = run(samples[:1], ScriptedPolicy(["<tool_call>" * 90_000] * 3))
    assert made.stop is StopReason.MALFORMED
    assert len(to_json(made)) < 500_000
    assert max(len(turn.actions) for turn in made.turns) <= 65


def test_a_finished_run_is_known_by_its_file(samples: list[Sample], tmp_path: Path) -> None:
    output = tmp_path / "t.jsonl"
    assert finished(episodes(samples), output) is None
    made = run(samples[:5], output=output)
    assert finished(episodes(samples[:5]), output) == made
    assert finished(episodes(samples), output) is None
    run(samples[5:6], ScriptedPolicy([PolicyError("lost", transient=False)]), output=output)
    assert finished(episodes(samples[:6]), output) is None
    with pytest.raises(InputError, match="another sample 's0'"):
        finished(episodes([replace(samples[0], question="?")]), output)


def test_a_broken_line_is_played_again(samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "t.jsonl"
    everything = run(samples, output=output)
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join([*lines[:3], lines[3][:100] + lines[4], *lines[5:]]))
    assert timeless(run(samples, output=output)) == timeless(everything)
    assert "line 4 is no trajectory and was left out" in caplog.text
    assert len(list(read_jsonl(output, Trajectory))) == len(samples)
