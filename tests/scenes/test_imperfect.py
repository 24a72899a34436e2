"""A teacher's faults are those that were asked for, and as frequent."""

from __future__ import annotations

from pathlib import Path

import pytest

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import OF_MODELS, Box, CoordinateSystem, PixelLimits, View
from cof_agent.scenes import oracle
from cof_agent.scenes.imperfect import Faults, Teacher
from cof_agent.trajectory import Sample, Zoom
from tests.scenes.dealt import overview, samples


def settings(system: CoordinateSystem) -> ZoomEnvironment:
    return ZoomEnvironment(ZoomSettings(system, PixelLimits(28, 56 * 56, 448 * 252, 168 * 168)))


def taught(sample: Sample, environment: ZoomEnvironment, faults: Faults) -> tuple[list[str], list[View]]:
    """The zooming turns and the views after them."""
    views, teacher, turns = [overview()], Teacher(sample, environment, faults), []
    while text := teacher.next_zoom(views):
        turns.append(text)
        views += [one.view for one in environment.step(protocol.parse(text), views) if one.view]
    return turns, views


def ideal(sample: Sample, environment: ZoomEnvironment) -> list[str]:
    return [turn.text for turn in oracle.play(sample, overview(), environment).turns[:-1]]


def boxes(turns: list[str]) -> list[tuple[object, ...]]:
    return [action.box for text in turns for action in protocol.parse(text) if isinstance(action, Zoom)]


def test_without_faults_it_is_the_oracle() -> None:
    environment = settings(CoordinateSystem.ABSOLUTE)
    for sample in samples("train", 30):
        assert taught(sample, environment, Faults())[0] == ideal(sample, environment)


def test_it_is_hasty_and_needless_as_often_as_asked() -> None:
    environment, chosen = settings(CoordinateSystem.ABSOLUTE), samples("train", 240)
    once = [sample for sample in chosen if len(ideal(sample, environment)) == 1]
    never = [sample for sample in chosen if not ideal(sample, environment) and oracle.looks(sample)]
    hasty = [not taught(sample, environment, Faults(hasty=0.4))[0] for sample in once]
    needless = [len(taught(sample, environment, Faults(needless=0.4))[0]) for sample in never]
    assert min(len(once), len(never)) > 40
    assert sum(hasty) / len(hasty) == pytest.approx(0.4, abs=0.2)
    assert set(needless) == {0, 1}
    assert sum(needless) / len(needless) == pytest.approx(0.4, abs=0.2)


@pytest.mark.parametrize("system", OF_MODELS)
def test_misplaced_boxes_lie_beside_in_the_view_and_are_its_last(system: CoordinateSystem) -> None:
    environment, faults = settings(system), Faults(misplaced=1.0, shift=0.5, tight=0.5)
    missed = []
    for sample in samples("train", 40):
        (right, *_), (turns, views) = [*ideal(sample, environment), ""], taught(sample, environment, faults)
        if not right:
            assert not turns
            continue
        assert len(turns) == 1
        (good,), (bad,) = protocol.parse(right), protocol.parse(turns[0])
        assert isinstance(good, Zoom) and isinstance(bad, Zoom)
        there, beside = Box(*good.box), Box(*bad.box)
        assert beside.width == pytest.approx(there.width / 2, rel=0.1)
        assert beside.x1 <= system.frame(views[0].shown_size).x1
        missed.append(views[1].region.coverage(oracle.looks(sample)[0].boxes[0]) < 0.95)
    assert sum(missed) > 0.9 * len(missed) > 10


def test_a_fault_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    from sft.settings import parse

    config, text = tmp_path / "wrong.yaml", Path("sft/configs/nano-imperfect.yaml").read_text()
    for right, wrong in (
        ("hasty", "lazy"),
        ("simple: 0.0", "long_sides: [448, 20]"),
        ("simple: 0.0", "weights: [1, 2]"),
    ):
        config.write_text(text.replace(right, wrong))
        with pytest.raises(
            InputError, match="the plan of the curriculum is not right: .*(lazy|at least 112|3 numbers)"
        ):
            parse(["--config", str(config)])


def test_the_plan_can_be_given_on_the_command_line() -> None:
    from sft.settings import parse

    given = ["--config", "sft/configs/nano-imperfect.yaml"]
    assert parse(given).run.plan["faults"]["hasty"] == 0.35
    assert parse([*given, "--plan", '{"whole": 1.0}']).run.plan == {"whole": 1.0}
    with pytest.raises(InputError, match="argument --plan"):
        parse([*given, "--plan", "whole"])


def test_it_looks_at_other_things_first_says_so_and_looks_again() -> None:
    environment, others = settings(CoordinateSystem.ABSOLUTE), [Box(0, 0, 40, 40), Box(3700, 2000, 3800, 2100)]
    misses = []
    for sample in samples("train", 120):
        right = ideal(sample, environment)
        views, teacher, turns = [overview()], Teacher(sample, environment, Faults(missed=0.5), others), []
        while text := teacher.next_zoom(views):
            turns.append(text)
            views += [one.view for one in environment.step(protocol.parse(text), views) if one.view]
        again = [protocol.thought(text).endswith("is not there.") for text in turns]
        missed = len(turns) - len(right)
        misses.append(missed)
        assert 0 <= missed <= 2 and bool(missed) == any(again)
        if right:  # in the end it has looked where the oracle does
            assert boxes(turns[missed:]) == boxes(right)
    assert {0, 1, 2} == set(misses)


def test_without_other_things_it_misses_none() -> None:
    environment = settings(CoordinateSystem.ABSOLUTE)
    for sample in samples("train", 30):
        assert taught(sample, environment, Faults(missed=1.0))[0] == ideal(sample, environment)
