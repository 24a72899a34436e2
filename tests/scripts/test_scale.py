"""The model of RL steps, where its answer can be reckoned by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, to_json

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from benches import rl_scale, scale
from benches.scale import CELL, ID, TOLD, Layout, Rates, play, step

RATES = Rates(
    token=1,
    more=0.5,
    read=0.25,
    block=1,
    turn=0,
    call=2,
    image=3,
    render=5,
    send=4,
    patches=7,
    train=0.1,
    sync=11,
    png=2,
)
MEGAPIXEL = 1_000_000
SHORT = (scale.Turn(4, (), 10),)
LONG = (scale.Turn(4, (), 10), scale.Turn(8, (), 20))
SAMPLE = Sample("one", "one.png", "What?", answers=("red",))


def test_one_conversation_waits_for_nobody() -> None:
    seen = (scale.Turn(4, (MEGAPIXEL,), 10), scale.Turn(8, (2 * MEGAPIXEL,), 20))
    pace = play([seen], Layout(1, 1, pace=True), RATES)
    assert pace.seconds == pytest.approx((2 + 3 + 1 + 10) + (2 + 6 + 2 + 20))
    assert pace.busy == pytest.approx(11 + 22)
    assert pace.bytes == 2 * 3 * MEGAPIXEL + TOLD * (10 + 20)  # fewer ids than an image has tokens
    rounds = play([seen], Layout(1, 1, pace=False), RATES)
    assert rounds.seconds == pytest.approx((2 + 5 + 4 + 7 + 1 + 10) + (2 + 10 + 12 + 21 + 2 + 20))
    assert rounds.bytes > 10 * pace.bytes


def test_an_image_is_one_id_at_its_own_pace() -> None:
    seen = (scale.Turn(4 + 10, (10 * CELL,), 3), scale.Turn(5 + 20, (20 * CELL,), 1))
    rates = replace(RATES, png=0)
    pace, rounds = (play([seen], Layout(1, 1, pace=pace), rates).bytes for pace in (True, False))
    assert pace == ID * ((4 + 1) + (4 + 1 + 3 + 5 + 1)) + TOLD * (3 + 1)
    features = 2 * 16 * (10 + 30) * CELL  # there and back at each turn
    assert rounds == ID * (14 + 14 + 3 + 25) + TOLD * (3 + 1) + features


def test_an_engine_decodes_together_and_reads_alone() -> None:
    # The second is read from 4 to 5, while the first waits with one token; then two share, at 1.5 s a step, until it has ten.
    found = play([SHORT, (scale.Turn(4, (), 3),)], Layout(1, 1, pace=True), RATES)
    assert found.seconds == pytest.approx(5 + 3 * 1.5 + (10 - 1 - 3))
    # On two engines, asked by two processes, neither knows of the other.
    assert play([SHORT] * 2, Layout(2, 2, pace=True), RATES).seconds == pytest.approx(2 + 1 + 10)


def test_whole_blocks_are_not_read_again() -> None:
    blocks = replace(RATES, block=8)  # of the 14 tokens of the first turn, eight are in the cache
    more = play([LONG], Layout(1, 1, pace=True), blocks).seconds - play([LONG], Layout(1, 1, pace=True), RATES).seconds
    assert more == pytest.approx((14 - 8) * 0.25)


def test_prompts_that_wait_together_share_nothing() -> None:
    # With two seconds between them the second is not read again; without, both are read.
    apart, together = (
        play([SHORT] * 2, Layout(1, 1, pace=True, group=2), replace(RATES, call=call)) for call in (2, 0)
    )
    assert apart.seconds == pytest.approx(2 + 1 + 1 + 0.25 + 1.5 * 9 + 1)
    assert together.seconds == pytest.approx(2 * 1 + 1.5 * 10)


def test_rounds_wait_for_the_slowest() -> None:
    slow = (scale.Turn(4, (), 100), scale.Turn(8, (), 1))
    layouts = [Layout(2, 2, pace=pace) for pace in (False, True)]
    rounds, pace = (play([LONG, slow], layout, RATES).seconds for layout in layouts)
    assert rounds == pytest.approx((2 * 2 + 1 + 100) + (2 * 2 + 2 + 20))
    assert pace == pytest.approx((2 + 1 + 100) + (2 + 2 + 1))


def test_threads_share_a_processor_and_wait_for_their_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, rates = Layout(1, 1, pace=False), replace(RATES, more=0, read=0)
    # All three requests have been sent only after three calls of two seconds; the reply of ten tokens begins then.
    assert play([SHORT] * 3, rounds, rates).seconds == pytest.approx(3 * 2 + 10)
    # Two threads have their replies after 2 * 2 + 10 seconds, and only then one of them takes the third request.
    monkeypatch.setattr(scale, "THREADS", 2)
    assert play([SHORT] * 3, rounds, rates).seconds == pytest.approx(2 * 2 + 10 + 2 + 10)


def test_a_group_opens_with_one_image() -> None:
    opening = (scale.Turn(4, (MEGAPIXEL,), 1),)
    alone, together = (play([opening] * 4, Layout(1, 1, pace=True, group=group), RATES) for group in (1, 4))
    assert alone.bytes - together.bytes == 3 * 2 * MEGAPIXEL
    assert alone.seconds - together.seconds > 3 * 3 - 1


def test_a_step_ahead_overlaps() -> None:
    now, ahead = (step([LONG] * 8, Layout(2, 2, pace=True, ahead=ahead), RATES) for ahead in (False, True))
    assert now.rollout == ahead.rollout and now.update == ahead.update == pytest.approx(8 * 42 * 0.1 / 2)
    assert now.seconds == pytest.approx(now.rollout + now.update + 11)
    assert ahead.seconds == pytest.approx(max(now.rollout, now.update) + 11)
    assert 0 < ahead.engines_idle < now.engines_idle and ahead.trainers_idle < now.trainers_idle


def test_turns_are_those_of_the_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overview = View(Size(1600, 900), Box(0, 0, 1600, 900), Size(448, 252))
    crop = View(Size(1600, 900), Box(0, 0, 400, 400), Size(168, 168))
    zoom = Turn("", (), (Observation(crop),), Tokens(200, 30))
    one = Trajectory(SAMPLE, overview, (zoom, Turn("", (), (), Tokens(280, 12))), StopReason.ANSWERED)
    assert rl_scale.conversation_of(one) == (
        scale.Turn(200, (448 * 252,), 30),
        scale.Turn(50, (168 * 168,), 12),
    )
    untold = replace(one, turns=(replace(zoom, tokens=Tokens()),))
    assert rl_scale.conversation_of(untold) is None
    path = tmp_path / "trajectories.jsonl"
    path.write_text("".join(to_json(trajectory) + "\n" for trajectory in (one, untold)), "utf-8")
    rl_scale.run(path, 1, 2, Rates(), gpus=(8, 16))
    said = capsys.readouterr().out
    assert "8 GPUs   " in said and "1 conversations" in said and said.count("rounds, one server") == 2
