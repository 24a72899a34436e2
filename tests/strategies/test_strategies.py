"""Strategies: what the agent is held against is the same loop and record, spent in another way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.cli import main
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import OF_MODELS, Box, CoordinateSystem, Size
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context
from cof_agent.policy import Completion, ScriptedPolicy, begun
from cof_agent.strategies import registry as strategies
from cof_agent.strategies.tree import quarters
from cof_agent.strategies.wrapper import Way
from cof_agent.trajectory import Sample, StopReason, Tokens, Trajectory, Zoom, read_jsonl

ZOOM = protocol.write_zoom("Closer.", Box(0, 0, 50, 50))
ANSWER = protocol.write_answer("I see.", "red")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.effect_noise((900, 600), 60).convert("RGB").save(tmp_path / "noise.png")
    return Sample("one", str(tmp_path / "noise.png"), "Which?", ("red",))


def play(strategy: str, sample: Sample, script: list[str], system: CoordinateSystem) -> Trajectory:
    return played_by(strategy, ScriptedPolicy(script, coordinates=system), sample)


def played_by(strategy: str, policy: ScriptedPolicy, sample: Sample) -> Trajectory:
    way = strategies.by_name(strategy)(policy, ZoomSettings(policy.coordinates, policy.limits))
    return asyncio.run(focus.run(sample, Context(way.policy, ZoomEnvironment(way.settings))))


def test_direct_answers_from_the_overview(sample: Sample) -> None:
    played = play("direct", sample, [ZOOM, ANSWER], CoordinateSystem.ABSOLUTE)
    assert (played.zooms, played.answer, played.policy) == (0, "red", "scripted")
    assert "No zooms are left" in str(played.turns[0].observations[0].error)


@pytest.mark.parametrize("system", OF_MODELS)
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


def test_always_zoom_makes_a_zoom_of_what_would_have_been_an_answer(sample: Sample) -> None:
    def line(messages: Sequence[protocol.Message]) -> str:
        beginning = begun(messages)
        return f"{beginning}30, 40, 130, 90.5], and so on" if beginning else protocol.write_answer("It is [1].", "red")

    made = ScriptedPolicy(line)
    played = played_by("always-zoom", made, sample)
    assert [turn.text for turn in played.turns] == [
        protocol.write_zoom("It is [1].", Box(30, 40, 130, 90.5)),
        protocol.write_answer("It is [1].", "red"),
    ]
    assert (played.zooms, played.answer, played.stop) == (1, "red", StopReason.ANSWERED)
    assert play("always-zoom", sample, [ZOOM, ANSWER], CoordinateSystem.ABSOLUTE).zooms == 1


def test_always_zoom_takes_no_box_for_none(sample: Sample) -> None:
    made = ScriptedPolicy(lambda messages: f"{begun(messages)}nothing" if begun(messages) else ANSWER)
    played = played_by("always-zoom", made, sample)
    assert (played.zooms, played.answer) == (0, "red")
    assert "has no bbox_2d" in str(played.turns[0].observations[0].error)


def sure_of(target: tuple[float, float], *, sharp: float) -> ScriptedPolicy:
    """Answers "red" with certainty where it is shown `target` in a part at most `sharp` wide, and is else surer the more of
    what it sees is target; `target` in pixels of the overview."""

    def line(messages: Sequence[protocol.Message]) -> Completion:
        zooms = [action for m in messages[:-1] if m["role"] == "assistant" for action in protocol.parse(says(m))]
        part = Box(*map(float, zooms[0].box)) if zooms and isinstance(zooms[0], Zoom) else Box(0, 0, 896, 588)
        inside = part.x0 <= target[0] <= part.x1 and part.y0 <= target[1] <= part.y1
        if not begun(messages):
            return Completion(protocol.write_zoom("Where?", Box(0, 0, 9, 9)), Tokens(10, 1))
        found = inside and part.width <= sharp
        return Completion(
            f"{begun(messages)}{'red' if found else 'blue'}</answer>",
            Tokens(10, 1),
            logprob=-0.01 if found else -1.0 if inside else -2.0,
        )

    return ScriptedPolicy(line)


def says(message: protocol.Message) -> str:
    return "".join(part["text"] for part in message["content"])


def test_the_tree_divides_the_surest_part_until_it_is_sure_enough(sample: Sample) -> None:
    made = sure_of((700, 100), sharp=230)
    played = played_by("tree", made, sample)
    assert played.views[0].shown_size == Size(896, 588)
    assert (played.answer, played.zooms, played.stop) == ("red", 8, StopReason.ANSWERED)
    second = [action for action in played.turns[1].actions if isinstance(action, Zoom)]
    assert [tuple(action.box) for action in second] == [tuple(part) for part in quarters(Box(448, 0, 896, 294))]
    assert protocol.thought(played.turns[1].text) == "Confidence: 0.1353, 0.3679, 0.1353, 0.1353."
    assert all(protocol.well_formed(turn.text) for turn in played.turns)
    assert [turn.tokens for turn in played.turns] == [Tokens(20, 2), Tokens(80, 8), Tokens(80, 8)]


def test_the_tree_answers_with_the_surest_part_when_it_may_look_no_further(sample: Sample) -> None:
    made = sure_of((700, 100), sharp=1)
    played = played_by("tree", made, sample)
    assert (played.answer, played.zooms, len(played.turns)) == ("blue", 16, 5)
    widths = [Box(*map(float, action.box)).width for turn in played.turns[:-1] for action in turn.actions]  # type: ignore[union-attr]
    assert min(widths) == 896 / 2**3 and len({turn.text for turn in played.turns}) == 5


def test_the_tree_needs_probabilities(sample: Sample) -> None:
    made = ScriptedPolicy(lambda messages: f"{begun(messages)}red</answer>")
    with pytest.raises(InputError, match="does not tell its tokens' probabilities"):
        played_by("tree", made, sample)


def test_the_agent_itself_is_untouched(sample: Sample) -> None:
    policy, settings = ScriptedPolicy([ANSWER]), ZoomSettings()
    assert strategies.by_name("focus")(policy, settings) == Way(policy, settings)


def test_a_strategy_that_is_none_is_one_sentence() -> None:
    with pytest.raises(
        InputError,
        match=r"no strategy 'luck'; the strategies are focus, direct, .*, regions, spot, coroi, or module:function",
    ):
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
    assert (played.zooms, played.strategy) == (9, "grid")
    assert main(command) == 2
    assert 'strategy was "grid" and is now "focus"; use another folder.' in capsys.readouterr().err


def test_no_more_regions_are_shown_than_there_may_be_zooms(picture: Path) -> None:
    boxes = [Box(10 * k, 10, 10 * k + 60, 70) for k in range(5)]
    named = ", ".join(f"<region{k}>" for k in range(1, 6))
    sample = Sample("five", str(picture), f"Which of {named} is red?", regions=tuple(boxes))
    policy = ScriptedPolicy(["<think>a</think>\n<answer>none</answer>"] * 2)
    played = Agent(AgentConfig("none", strategy="regions", max_zooms=3), policy=policy).ask_many(
        [sample], progress=False
    )
    assert played[0].zooms == 3 and played[0].stop is StopReason.ANSWERED
    assert not [seen.error for turn in played[0].turns for seen in turn.observations if seen.error]


def test_no_region_is_shown_where_no_zoom_is_allowed(picture: Path) -> None:
    sample = Sample("one", str(picture), "What is <region1>?", regions=(Box(10, 10, 60, 70),))
    policy = ScriptedPolicy(["<think>a</think>\n<answer>none</answer>"])
    (played,) = Agent(AgentConfig("none", strategy="regions", max_zooms=0), policy=policy).ask_many(
        [sample], progress=False
    )
    assert (played.zooms, len(played.turns), played.answer) == (0, 1, "none")


def test_a_budget_that_a_strategy_would_pass_over_is_refused() -> None:
    for strategy, given, said in (
        ("tree", {"max_zooms": 0}, "tree has max_zooms 16 of its own, not 0"),
        ("grid", {"enlarge": 2.0}, "grid has enlarge 1 of its own, not 2"),
        ("spot", {"max_zooms": 3}, "spot has max_zooms 1 of its own"),
    ):
        with pytest.raises(InputError, match=said):
            Agent(AgentConfig("none", strategy=strategy, **given), policy=ScriptedPolicy([]))  # type: ignore[arg-type]
    Agent(AgentConfig("none", strategy="direct", max_zooms=0), policy=ScriptedPolicy([]))
