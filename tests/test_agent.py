"""The Python interface: one agent asks about paths and pixels, alone or many at once, inside an event loop or outside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import Agent, AgentConfig, scoring
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits, Size
from cof_agent.graphs import focus
from cof_agent.graphs.steps import Context, Event, Looked, Saw, Spoke
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import asked, opening, write_answer, write_zoom
from cof_agent.trajectory import Sample, StopReason, Trajectory, read_jsonl
from tests.scenes.shared import Scenes

ANSWER = write_answer("I see.", "red")


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent("nano")


@pytest.fixture(scope="module")
def scenes(drawn: Scenes) -> list[Sample]:
    return read_samples(drawn(3))


@pytest.fixture(scope="module")
def scene(scenes: list[Sample]) -> Sample:
    return scenes[0]


def said(trajectory: Trajectory) -> list[str]:
    return [turn.text for turn in trajectory.turns]


def scripted(*lines: str, **overrides: Any) -> Agent:
    return Agent(AgentConfig(**overrides), policy=ScriptedPolicy(lines))


class TestNano:
    def test_it_sees_and_zooms(self, agent: Agent, scenes: list[Sample]) -> None:
        trajectories = [agent.ask(one.image, one.question, choices=one.choices) for one in scenes]
        right = [scoring.matches(str(found.answer), one) for found, one in zip(trajectories, scenes, strict=True)]
        assert sum(right) >= len(scenes) - 1
        assert any(found.zooms for found in trajectories)
        assert {found.overview and found.overview.shown_size for found in trajectories} == {Size(448, 252)}

    def test_pixels_and_a_path_are_one_image(self, agent: Agent, scene: Sample) -> None:
        with Image.open(scene.image) as pixels:
            by_pixels = agent.ask(pixels, scene.question)
        by_path = agent.ask(Path(scene.image), scene.question)
        assert said(by_pixels) == said(by_path)
        assert by_pixels.views == by_path.views
        assert by_path.sample.image == scene.image

    def test_in_a_running_loop_too(self, agent: Agent, scene: Sample) -> None:
        """As in a notebook, where `ask` is called by code that a loop runs."""

        async def notebook() -> tuple[Trajectory, Trajectory]:
            return agent.ask(scene.image, scene.question), await agent.aask(scene.image, scene.question)

        waited, awaited = asyncio.run(notebook())
        assert said(waited) == said(awaited) == said(agent.ask(scene.image, scene.question))

    def test_things_are_told_as_they_happen(self, agent: Agent, scene: Sample) -> None:
        events: list[Event] = []
        found = agent.ask(scene.image, scene.question, on_event=events.append)
        turns: list[type] = [kind for turn in found.turns for kind in ((Spoke, Saw) if turn.observations else (Spoke,))]
        assert [type(event) for event in events] == [Looked, *turns]
        assert [event.turn.text for event in events if isinstance(event, Spoke)] == said(found)

    def test_many_give_what_each_gives_alone_and_are_not_asked_twice(
        self, agent: Agent, scenes: list[Sample], tmp_path: Path
    ) -> None:
        output, fresh = tmp_path / "out" / "t.jsonl", list[Trajectory]()
        agent.ask_many(scenes[:2], output=output, progress=False)
        every = agent.ask_many(scenes, output=output, progress=False, on_done=fresh.append)
        assert {found.sample.id for found in fresh} == {one.id for one in scenes[2:]}
        assert [found.sample for found in every] == scenes
        assert list(read_jsonl(output, Trajectory)) == every
        for found, one in zip(every, scenes, strict=True):
            assert said(found) == said(agent.ask(one.image, one.question, choices=one.choices))


class TestQuestions:
    def test_choices_are_lettered_and_kept(self, picture: Path) -> None:
        found = scripted(ANSWER).ask(picture, "Which colour?", choices=["red", "blue"])
        assert found.sample.choices == ("red", "blue")
        assert found.overview is not None
        text = asked(opening(found.sample, found.overview, system=CoordinateSystem.ABSOLUTE))
        assert text == "Which colour?\nA. red\nB. blue"

    def test_regions_are_boxes_in_source_pixels(self, picture: Path) -> None:
        found = scripted(ANSWER).ask(picture, "What is <region1>?", regions=[(0, 0, 400, 300)])
        assert found.sample.regions == (Box(0, 0, 400, 300),)
        for question, regions, reason in (
            ("What is this?", [(0, 0, 4, 3)], "names no <region1>"),
            ("What is <region1>?", [], "no region is given"),
            ("What is <region1>?", [(4, 0, 4, 3)], "has no area"),
            ("What is <region1>?", [(1, 2, 3)], "four numbers"),
        ):
            with pytest.raises(InputError, match=reason):
                scripted(ANSWER).ask(picture, question, regions=regions)

    def test_a_file_that_is_gone_is_an_end_and_no_exception(self, tmp_path: Path) -> None:
        found = scripted(ANSWER).ask(tmp_path / "none.png", "What is it?")
        assert (found.stop, found.turns) == (StopReason.ERROR, ())
        assert "no such file" in str(found.error)

    def test_an_episode_says_how_it_is_played(self, picture: Path) -> None:
        sample = Sample("s", str(picture), "?")
        (found,) = scripted(ANSWER).ask_many([Episode(sample, 280, 2, 7)], progress=False)
        assert (found.resolution, found.play, found.shuffle_seed) == (280, 2, 7)
        assert found.overview is not None
        assert found.overview.shown_size == Size(280, 196)  # 280 x 210 on the grid

    def test_agents_share_decoded_images_and_keep_their_own_settings(self, picture: Path) -> None:
        first = scripted(ANSWER)
        sample = first.ask(picture, "?").sample
        second = Agent(AgentConfig(max_zooms=2), policy=ScriptedPolicy([ANSWER]), environment=first.environment)
        assert second.environment._source(sample.image) is first.environment._source(sample.image)
        assert (first.environment.settings.max_zooms, second.environment.settings.max_zooms) == (6, 2)


class TestConfig:
    def test_what_was_asked_for_is_recorded(self, picture: Path) -> None:
        zoom = write_zoom("closer", Box(100, 100, 200, 200))
        config = AgentConfig(max_zooms=1, enlarge=1.0, seed=5, system_prompt="Look.")
        found = Agent(config, policy=ScriptedPolicy([zoom, ANSWER]), min_side=1).ask(picture, "?")
        settings = found.settings
        assert (settings["max_zooms"], settings["enlarge"], settings["min_side"]) == (1, 1.0, 1)
        assert settings["sampling"] == {"max_tokens": 512, "temperature": 1.0, "top_p": 1.0, "seed": 5}
        assert (settings["prompt"], found.strategy) == ("Look.", "focus")

    def test_a_temperature_that_is_given_stays(self) -> None:
        assert AgentConfig(seed=5, temperature=0.0).sampling.temperature == 0.0
        assert AgentConfig().sampling.temperature == 0.0

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("max_tokens", (0,)),
            ("temperature", (-0.1, float("nan"))),
            ("top_p", (0, 1.01, float("nan"))),
            ("timeout", (0, -1, float("nan"))),
            ("overview_pixels", (0,)),
            ("zoom_pixels", (0,)),
            ("max_zooms", (-1,)),
            ("enlarge", (0.9, 101)),
            ("min_side", (0,)),
            ("zoom_scale", (0,)),
            ("max_source_pixels", (0,)),
            ("crop", ("grey",)),
            ("coordinates", ("pixels",)),
        ],
    )
    def test_nonsense_is_refused_at_once(self, field: str, values: tuple[Any, ...]) -> None:
        for value in values:
            with pytest.raises(InputError, match=rf"^{field} must be .*\.$"):
                AgentConfig(**{field: value})

    def test_limits_may_touch_what_is_allowed(self) -> None:
        AgentConfig(max_tokens=1, temperature=0, top_p=1, overview_pixels=1, zoom_pixels=1, max_zooms=0, enlarge=1)
        AgentConfig(min_side=1, enlarge=100, zoom_scale=100, max_source_pixels=1)

    def test_a_strategy_or_tool_that_is_not_there_is_said_before_a_model_is_loaded(self) -> None:
        for overrides, reason in (
            ({"strategy": "fokus"}, "fokus"),
            ({"tools": ("nowhere:rotate",)}, "cannot import the module nowhere"),
        ):
            with pytest.raises(InputError, match=reason):
                Agent("openai:gone", base_url="http://127.0.0.1:9", **overrides)


class TestMatch:
    """An environment must be made for its policy: else boxes are misread, or images shown at another size, in silence."""

    policy = ScriptedPolicy([ANSWER], coordinates=CoordinateSystem.THOUSAND, limits=PixelLimits(grid=32))
    settings = AgentConfig().settings(policy)

    def run(self, picture: Path, settings: ZoomSettings) -> Trajectory:
        context = Context(self.policy, ZoomEnvironment(settings))
        return asyncio.run(focus.run(Sample("s", str(picture), "?"), context))

    def test_its_own_settings_fit(self, picture: Path) -> None:
        assert self.run(picture, self.settings).answer == "red"

    def test_others_are_refused(self, picture: Path) -> None:
        with pytest.raises(InputError, match="reads boxes as absolute, but scripted writes them as thousand"):
            self.run(picture, replace(self.settings, system=CoordinateSystem.ABSOLUTE))
        with pytest.raises(InputError, match=r"shows images within .*grid=28.*, but scripted takes .*grid=32"):
            self.run(picture, replace(self.settings, limits=PixelLimits()))
