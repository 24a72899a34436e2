"""Strategies: what the agent is held against is the same loop and record, spent in another way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import protocol, strategies
from cof_agent.cli import main
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem
from cof_agent.graphs import focus
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl

ZOOM = protocol.write_zoom("Closer.", Box(0, 0, 50, 50))
ANSWER = protocol.write_answer("I see.", "red")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.effect_noise((900, 600), 60).convert("RGB").save(tmp_path / "noise.png")
    return Sample("one", str(tmp_path / "noise.png"), "Which?", ("red",))


def play(strategy: str, sample: Sample, script: list[str], system: CoordinateSystem) -> Trajectory:
    made = ScriptedPolicy(script, coordinates=system)
    policy, settings = strategies.by_name(strategy)(made, ZoomSettings(system, made.limits))
    return asyncio.run(focus.run(sample, policy, ZoomEnvironment(settings)))


def test_direct_answers_from_the_overview(sample: Sample) -> None:
    played = play("direct", sample, [ZOOM, ANSWER], CoordinateSystem.ABSOLUTE)
    assert (played.zooms, played.answer, played.policy) == (0, "red", "scripted, direct")
    assert "No zooms are left" in str(played.turns[0].observations[0].error)


@pytest.mark.parametrize("system", list(CoordinateSystem))
def test_the_grid_shows_every_pixel_once_and_then_the_model_answers(sample: Sample, system: CoordinateSystem) -> None:
    played = play("grid", sample, ["never said", ANSWER], system)
    assert (played.stop, played.answer, played.zooms) == (StopReason.ANSWERED, "red", 9)
    assert protocol.well_formed(played.turns[0].text)
    regions = [view.region for view in played.views[1:]]
    assert sum(region.area for region in regions) == pytest.approx(900 * 600, rel=0.02)
    for place, region in enumerate(regions):
        centre = ((place % 3 + 0.5) * 300, (place // 3 + 0.5) * 200)
        assert region.center == pytest.approx(centre, abs=2)
    refused = play("grid", sample, ["never said", ZOOM, ANSWER], system)
    assert (refused.zooms, refused.answer) == (9, "red")


def test_the_agent_itself_is_untouched(sample: Sample) -> None:
    policy, settings = ScriptedPolicy([ANSWER]), ZoomSettings()
    assert strategies.by_name("focus")(policy, settings) == (policy, settings)


def test_a_strategy_that_is_none_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"no strategy 'luck'; the strategies are focus, direct, grid\."):
        strategies.by_name("luck")


def test_a_run_of_one_strategy_is_not_completed_by_another(
    checkpoint: Callable[[str], Path], sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "samples.jsonl"
    data.write_text(json.dumps({"id": "one", "image": sample.image, "question": "Which?", "answers": ["red"]}) + "\n")
    command = [
        "eval",
        "--data",
        str(data),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(checkpoint("qwen2_5_vl")),
        "--max-tokens",
        "4",
    ]
    assert main([*command, "--strategy", "grid"]) == 0
    (played,) = read_jsonl(tmp_path / "out" / "trajectories.jsonl", Trajectory)
    assert played.zooms == 9 and played.policy.endswith("grid 3 x 3")
    assert main(command) == 2
    assert "policy differs" in capsys.readouterr().err
