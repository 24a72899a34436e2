"""The agent's loop: how a run ends, what the model reads on the way, and that a killed run goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.graphs import focus, steps
from cof_agent.graphs.state import open_checkpoints
from cof_agent.graphs.steps import Context
from cof_agent.policy import Completion, PolicyError, Sampling, ScriptedPolicy
from cof_agent.policy.retries import TRIES
from cof_agent.protocol import PROTOCOL_VERSION, Message, write_answer, write_zoom
from cof_agent.protocol.dialects import End, dialect, ours
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, read_jsonl, to_json

ZOOM = write_zoom("closer", Box(100, 100, 300, 250))
ANSWER = write_answer("clear", "7")
OUTSIDE = write_zoom("there", Box(5000, 5000, 6000, 6000))
NOTHING = "I wonder."


@pytest.fixture(scope="module")
def sample(picture: Path) -> Sample:
    return Sample("shapes", str(picture), "What is there?")


def play(
    script: Sequence[object] | Callable[..., object], sample: Sample, max_zooms: int = 6, **options: object
) -> Trajectory:
    context = Context(ScriptedPolicy(script), ZoomEnvironment(ZoomSettings(max_zooms=max_zooms)))  # type: ignore[arg-type]
    return asyncio.run(focus.run(sample, context, **options))  # type: ignore[arg-type]


def test_zoom_then_answer(sample: Sample) -> None:
    trajectory = play([ZOOM, ANSWER], sample)
    assert (trajectory.stop, trajectory.answer, trajectory.error) == (StopReason.ANSWERED, "7", None)
    assert [turn.text for turn in trajectory.turns] == [ZOOM, ANSWER]
    assert trajectory.zooms == 1
    assert (trajectory.policy, trajectory.protocol_version) == ("scripted", PROTOCOL_VERSION)
    assert trajectory.settings["max_zooms"] == 6
    assert trajectory.settings["sampling"]["temperature"] == 0.0


def test_the_record_survives_json(sample: Sample, tmp_path: Path) -> None:
    trajectory = play([ZOOM, ANSWER], sample)
    (tmp_path / "t.jsonl").write_text(to_json(trajectory) + "\n")
    assert list(read_jsonl(tmp_path / "t.jsonl", Trajectory)) == [trajectory]


def test_zooms_nest(sample: Sample) -> None:
    inner = write_zoom("closer still", Box(200, 200, 300, 300), image=1)
    first, second = play([ZOOM, inner, ANSWER], sample).views[1:]
    assert second.region.width < first.region.width
    assert first.region.coverage(second.region) == 1


def test_several_calls_in_a_turn_are_all_done_in_order(sample: Sample) -> None:
    call = ZOOM.partition("\n")[2]
    other = write_zoom("", Box(400, 300, 500, 400)).partition("\n")[2]
    turn = play([f"{ZOOM}\n{other}\n{call}", ANSWER], sample).turns[0]
    views = [observation.view for observation in turn.observations]
    assert len(views) == 3
    assert views[0] == views[2] != views[1]


def test_calls_beyond_the_budget_are_refused_and_the_model_is_told(sample: Sample) -> None:
    call = ZOOM.partition("\n")[2]
    trajectory = play([f"{ZOOM}\n{call}\n{call}", ANSWER], sample, max_zooms=1)
    assert trajectory.stop is StopReason.ANSWERED
    assert trajectory.zooms == 1
    assert "answer" in (trajectory.turns[0].observations[1].error or "")


def test_zooming_after_being_told_ends_the_run(sample: Sample) -> None:
    trajectory = play([ZOOM, ZOOM, ZOOM], sample, max_zooms=1)
    assert trajectory.stop is StopReason.MAX_ZOOMS
    assert trajectory.zooms == 1
    assert len(trajectory.turns) == 3
    assert trajectory.answer is None
    assert trajectory.turns[2].observations == ()


def test_one_last_answer_after_the_budget(sample: Sample) -> None:
    assert play([ZOOM, ZOOM, ANSWER], sample, max_zooms=1).stop is StopReason.ANSWERED


def test_what_is_no_action_does_not_count_as_being_told(sample: Sample) -> None:
    assert play([ZOOM, NOTHING, ZOOM, ANSWER], sample, max_zooms=1).stop is StopReason.ANSWERED


def test_no_zooms_at_all(sample: Sample) -> None:
    assert play([ZOOM, ANSWER], sample, max_zooms=0).answer == "7"
    trajectory = play([ZOOM, ZOOM], sample, max_zooms=0)
    assert trajectory.stop is StopReason.MAX_ZOOMS
    assert trajectory.views[1:] == ()


def test_a_bad_box_is_answered_with_a_sentence(sample: Sample) -> None:
    trajectory = play([OUTSIDE, ZOOM, ANSWER], sample)
    assert trajectory.stop is StopReason.ANSWERED
    assert "outside the image" in (trajectory.turns[0].observations[0].error or "")


@pytest.mark.parametrize("text", [NOTHING, OUTSIDE])
def test_turns_that_bring_nothing_end_the_run(sample: Sample, text: str) -> None:
    trajectory = play([text] * 9, sample)
    assert trajectory.stop is StopReason.MALFORMED
    assert len(trajectory.turns) == focus.FRUITLESS_TURNS + 1


def test_a_good_turn_starts_the_count_anew(sample: Sample) -> None:
    script = [NOTHING, NOTHING, ZOOM, NOTHING, OUTSIDE, ANSWER]
    assert play(script, sample).stop is StopReason.ANSWERED


def test_a_malformed_turn_reads_what_was_wrong(sample: Sample) -> None:
    seen: list[Sequence[Message]] = []

    def script(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return ANSWER if len(seen) > 1 else NOTHING

    play(script, sample)
    assert seen[1][-1]["role"] == "user"
    assert "neither a tool call nor an answer" in seen[1][-1]["content"][0]["text"]


def test_truncated_without_an_action(sample: Sample) -> None:
    assert play([Completion("<think>on and on", truncated=True)], sample).stop is StopReason.TRUNCATED


def test_an_answer_that_is_cut_off_is_none(sample: Sample) -> None:
    native = dialect("native")
    boxed = replace(ours(), end=End(answer=("boxed",)))
    for text, spoken, stop in (
        ("<think>a</think>\n<answer>re", ours(), StopReason.TRUNCATED),
        ("<think>a</think>\n<answer>red</ans", ours(), StopReason.TRUNCATED),
        ("<think>a</think>\n<answer>red</answer>", ours(), StopReason.ANSWERED),
        ("<think>a</think>\n<answer>red</answer> and", ours(), StopReason.ANSWERED),
        ("<think>a</think>\n\\boxed{re", boxed, StopReason.TRUNCATED),
        ("<think>a</think>\n\\boxed{red} an", boxed, StopReason.ANSWERED),
        ("It is re", native, StopReason.TRUNCATED),
    ):
        for truncated, ends in ((True, stop), (False, StopReason.ANSWERED)):
            policy = ScriptedPolicy([Completion(text, truncated=truncated)])
            found = asyncio.run(focus.run(sample, Context(policy, ZoomEnvironment(), dialect=spoken)))
            assert found.stop is ends and (found.answer is None) is (ends is StopReason.TRUNCATED), text


def test_truncated_with_an_action_goes_on(sample: Sample) -> None:
    cut = Completion(ZOOM + "\n<tool_call>\n{", truncated=True)
    assert play([cut, ANSWER], sample).stop is StopReason.ANSWERED


def test_a_call_that_is_cut_off_within_a_number_is_not_carried_out(sample: Sample) -> None:
    """What is there of it could be read as a call with another box."""
    call = '<think>a</think>\n<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 60, 4'
    (turn,) = (cut := play([Completion(call, truncated=True)], sample)).turns
    assert cut.stop is StopReason.TRUNCATED and not turn.observations
    whole = Completion(f"{call}0]}}}}</tool_call> and", truncated=True)
    assert play([whole, ANSWER], sample).stop is StopReason.ANSWERED


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), (b"no image", "format")])
def test_an_image_that_cannot_be_opened(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    trajectory = play([ANSWER], Sample("broken", str(path), "?"))
    assert (trajectory.stop, trajectory.overview, trajectory.turns) == (StopReason.ERROR, None, ())
    assert said in (trajectory.error or "")


def test_an_image_that_is_cut_off(picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(picture.read_bytes()[:-1500])
    trajectory = play([ANSWER], Sample("cut", str(path), "?"))
    assert trajectory.stop is StopReason.ERROR
    assert trajectory.overview is None


def test_an_image_that_goes_away_during_the_run(picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "gone.png"
    path.write_bytes(picture.read_bytes())

    def script(messages: Sequence[Message]) -> str:
        path.write_bytes(b"something else")
        return ZOOM

    trajectory = play(script, Sample("gone", str(path), "?"))
    assert trajectory.stop is StopReason.ERROR
    assert len(trajectory.turns) == 1
    assert trajectory.error


def test_a_policy_that_recovers_is_asked_again(sample: Sample) -> None:
    lines = iter([PolicyError("hiccup"), ANSWER])
    assert play(lambda _: next(lines), sample).stop is StopReason.ANSWERED


def test_a_policy_that_stays_gone_ends_the_run_with_its_sentence(sample: Sample) -> None:
    calls: list[int] = []

    def script(messages: Sequence[Message]) -> str | Exception:
        calls.append(len(messages))
        return ZOOM if len(messages) == 2 else PolicyError("the server is gone")

    trajectory = play(script, sample)
    assert (trajectory.stop, trajectory.error) == (StopReason.ERROR, "the server is gone")
    assert len(trajectory.turns) == 1
    assert trajectory.zooms == 1
    assert len(calls) == 1 + TRIES


def test_what_is_not_worth_a_retry_is_not_retried(sample: Sample) -> None:
    calls: list[int] = []

    def script(messages: Sequence[Message]) -> Exception:
        calls.append(1)
        return PolicyError("too long", transient=False)

    assert play(script, sample).stop is StopReason.ERROR
    assert len(calls) == 1


def test_programming_errors_propagate(sample: Sample) -> None:
    with pytest.raises(ZeroDivisionError):
        play([ZeroDivisionError()], sample)


class Sleeper(ScriptedPolicy):
    """A policy that takes its time."""

    async def generate(self, *arguments: object) -> Completion:  # type: ignore[override]
        await asyncio.sleep(30)
        raise AssertionError


def test_a_slow_policy_times_out(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    run = focus.run(sample, Context(Sleeper([]), ZoomEnvironment(), timeout=0.05))
    trajectory = asyncio.run(run)
    assert trajectory.stop is StopReason.ERROR
    assert "within 0.05 seconds" in (trajectory.error or "")


def test_the_system_message_can_be_replaced(sample: Sample) -> None:
    seen: list[str] = []

    def script(messages: Sequence[Message]) -> str:
        seen.append(messages[0]["content"][0]["text"])
        return ANSWER

    context = Context(ScriptedPolicy(script), ZoomEnvironment(), prompt="Just look.")
    assert asyncio.run(focus.run(sample, context)).settings["prompt"] == "Just look."
    assert seen == ["Just look."]


def test_seeds_differ_by_turn_and_sample_and_repeat(sample: Sample) -> None:
    seeds: list[int | None] = []

    class Seeded(ScriptedPolicy):
        async def generate(self, messages, images, sampling):  # type: ignore[no-untyped-def]
            seeds.append(sampling.seed)
            return await super().generate(messages, images, sampling)

    for one in (sample, sample, replace(sample, id="other")):
        asyncio.run(focus.run(one, Context(Seeded([ZOOM, ANSWER]), ZoomEnvironment(), sampling=Sampling(seed=1))))
    assert seeds[:2] == seeds[2:4]
    assert len(set(seeds)) == 4


def test_events_tell_the_story(sample: Sample) -> None:
    events: list[steps.Event] = []
    play([ZOOM, ANSWER], sample, on_event=events.append)
    assert [type(event).__name__ for event in events] == ["Looked", "Spoke", "Saw", "Spoke"]
    spoke, saw = events[1], events[2]
    assert isinstance(spoke, steps.Spoke)
    assert spoke.thought == "closer"
    assert spoke.number == 0
    assert isinstance(saw, steps.Saw)
    assert saw.observations[0].view is not None


KILLED = """
import asyncio, os, signal, sys
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box
from cof_agent.graphs import focus
from cof_agent.graphs.state import open_checkpoints
from cof_agent.graphs.steps import Context
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import write_zoom
from cof_agent.trajectory import Sample

def script(messages):
    if len(messages) > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write_zoom("closer", Box(100, 100, 300, 250))

async def main():
    async with open_checkpoints(sys.argv[1]) as saved:
        sample = Sample("shapes", sys.argv[2], "What is there?")
        await focus.run(sample, Context(ScriptedPolicy(script), ZoomEnvironment()), checkpointer=saved)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoints.sqlite"
    path.parent.mkdir()
    dead = subprocess.run([sys.executable, "-c", KILLED, str(path), sample.image], check=False, timeout=60)
    assert dead.returncode == -signal.SIGKILL
    asked: list[int] = []

    def script(messages: Sequence[Message]) -> str:
        asked.append(len(messages))
        return ANSWER

    async def resume() -> tuple[Trajectory, Trajectory]:
        async with open_checkpoints(path) as saved:
            context = Context(ScriptedPolicy(script), ZoomEnvironment())
            return (
                await focus.run(sample, context, checkpointer=saved),
                await focus.run(sample, context, checkpointer=saved),
            )

    first, again = asyncio.run(resume())
    assert asked == [4], "only the turn that was missing is asked for, with the crop of the first life in it"
    assert again == first
    assert _timeless(first) == _timeless(play([ZOOM, ANSWER], sample))


def _timeless(trajectory: Trajectory) -> Trajectory:
    turns: tuple[Turn, ...] = tuple(replace(turn, seconds=0.0) for turn in trajectory.turns)
    return replace(trajectory, turns=turns)


def test_a_run_with_a_dead_server_goes_on_when_it_is_back(sample: Sample, tmp_path: Path) -> None:
    async def scene() -> list[Trajectory]:
        environment = ZoomEnvironment()
        gone = ScriptedPolicy([ZOOM, PolicyError("gone", transient=False)])
        async with open_checkpoints(tmp_path / "c.sqlite") as saved:
            return [
                await focus.run(sample, Context(policy, environment), checkpointer=saved)
                for policy in (gone, ScriptedPolicy([ZOOM, ANSWER]))
            ]

    broken, whole = asyncio.run(scene())
    assert broken.stop is StopReason.ERROR
    assert len(broken.turns) == 1
    assert whole.stop is StopReason.ANSWERED
    assert whole.turns[0] == broken.turns[0]


def test_a_thread_belongs_to_one_sample(sample: Sample, tmp_path: Path) -> None:
    async def scene() -> None:
        async with open_checkpoints(tmp_path / "c.sqlite") as saved:
            for one in (sample, replace(sample, question="Something else?")):
                await focus.run(one, Context(ScriptedPolicy([ANSWER]), ZoomEnvironment()), checkpointer=saved)

    with pytest.raises(InputError, match="another sample"):
        asyncio.run(scene())


def test_a_checkpoint_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("this is no database, however long it may be" * 50)

    async def scene() -> None:
        async with open_checkpoints(path):
            pass

    with pytest.raises(InputError, match="cannot use"):
        asyncio.run(scene())


def test_the_state_is_plain_json(sample: Sample) -> None:
    async def scene() -> list[dict[str, object]]:
        compiled = focus.build().compile()
        context = steps.Context(ScriptedPolicy([ZOOM, ANSWER]), ZoomEnvironment())
        start = {"sample": {"image": sample.image, "question": "?"}}
        return [state async for state in compiled.astream(start, context=context, stream_mode="values")]  # type: ignore[call-overload]

    for state in asyncio.run(scene()):
        assert json.loads(json.dumps(state)) == state


def test_an_image_that_is_replaced_by_another_of_the_same_size_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (800, 600), "red").save(path)

    def script(messages: Sequence[Message]) -> str:
        if len(messages) == 2:
            Image.new("RGB", (800, 600), "blue").save(path)
            return ZOOM
        return ANSWER

    trajectory = play(script, Sample("a", str(path), "What is there?"))
    assert (trajectory.stop, trajectory.failure) == (StopReason.ERROR, "image")
    assert trajectory.error == (
        f"the image {path} was changed during the run, so that its views no longer belong together; ask again."
    )
    assert len(trajectory.turns) == 1
