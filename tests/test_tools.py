"""Tools beside the zoom, through the whole loop: what the model reads of them, what it writes, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment, settings_of
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import Message, parse, write_answer, write_zoom
from cof_agent.strategies.replay import messages_of
from cof_agent.tools import ToolError, load_tool
from cof_agent.trajectory import Malformed, Observation, Sample, StopReason, Trajectory, Use, Zoom, from_json, to_json
from tests import dialects

ANSWER = write_answer("I see.", "red")
ZOOM = write_zoom("Closer.", Box(100, 100, 300, 250))
TURNED, SIZE = "tests.tools:turned", "tests.tools:size"


def use(name: str, **arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<think>With a tool.</think>\n<tool_call>\n{call}\n</tool_call>"


def play(picture: Path, *lines: str, own: Sequence[str] = (TURNED, SIZE), **overrides: Any) -> Trajectory:
    agent = Agent(AgentConfig(tools=tuple(own), **overrides), policy=ScriptedPolicy(lines))
    return asyncio.run(agent.aask(picture, "What is it?"))


def observed(found: Trajectory) -> list[Observation]:
    return [observation for turn in found.turns for observation in turn.observations]


class TestInTheLoop:
    def test_an_image_comes_back_and_its_making_is_recorded(self, picture: Path) -> None:
        found = play(picture, use("turned", degrees=90, way="right"), ANSWER)
        assert found.turns[0].actions == (Use("turned", {"degrees": 90, "way": "right"}),)
        assert (found.answer, found.zooms) == ("red", 1)
        overview, view = found.views
        assert (view.tool, dict(view.arguments)) == ("turned", {"degrees": 90, "way": "right"})
        assert (view.source_size, view.region) == (overview.source_size, overview.region)
        assert view.shown_size == Size(420, 560)  # of 600 x 800 pixels, as much as a crop may have
        assert from_json(to_json(found), Trajectory) == found
        assert settings_of(found).tools == (TURNED, SIZE)

    def test_its_pixels_are_made_anew_from_the_full_source(self, picture: Path) -> None:
        found = play(picture, ZOOM, use("turned", degrees=90, image=1), ANSWER)
        crop, view = found.views[1:]
        pixels = ZoomEnvironment(settings_of(found)).image(found.sample, view)
        with Image.open(picture) as source:
            expected = source.crop(crop.region.pixels()).rotate(90, expand=True)
        assert pixels.size == (view.shown_size.width, view.shown_size.height)
        assert pixels.tobytes() == expected.resize(pixels.size, Image.Resampling.LANCZOS).tobytes()

    def test_words_come_back_of_the_region_at_full_resolution(self, picture: Path) -> None:
        found = play(picture, use("size"), ZOOM, use("size", image=1, times=2), ANSWER)
        first, _, third = observed(found)
        assert first == Observation(text="800 x 600")
        region = found.views[1].region
        assert third == Observation(text=f"{2 * region.width:g} x {2 * region.height:g}")
        assert len(found.views) == 2

    def test_the_model_reads_what_there_is_and_what_came_back(self, picture: Path) -> None:
        read: list[Sequence[Message]] = []

        def script(messages: Sequence[Message]) -> str:
            read.append(messages)
            return [use("turned", degrees=180), use("size"), ANSWER][len(read) - 1]

        agent = Agent(AgentConfig(tools=(TURNED, SIZE)), policy=ScriptedPolicy(script))
        found = asyncio.run(agent.aask(picture, "What is it?"))
        listed = read[0][0]["content"][0]["text"].partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
        schemas = [json.loads(line)["function"] for line in listed]
        assert [schema["name"] for schema in schemas] == [dialects.ZOOM, "turned", "size"]
        assert schemas[1]["description"] == "Shows an image turned by so many degrees."
        assert schemas[1]["parameters"]["required"] == ["degrees"]
        assert set(schemas[1]["parameters"]["properties"]) == {"degrees", "way", "image"}
        made, said = read[2][3]["content"], read[2][5]["content"]
        assert made == [{"type": "image", "view": 1}, {"type": "text", "text": "Image 1, made by turned."}]
        assert said == [{"type": "text", "text": "800 x 600"}]
        assert messages_of(found) == [*read[2], protocol.assistant(ANSWER)]

    def test_a_box_in_a_made_image_means_nothing_and_is_refused(self, picture: Path) -> None:
        inside = write_zoom("There.", Box(0, 0, 50, 50), image=1)
        found = play(picture, use("turned", degrees=90), inside, use("size", image=1), ANSWER)
        sentence = "Image 1 was made by turned: name the image that it was made from instead."
        assert [one.error for one in observed(found)] == [None, sentence, sentence]
        assert (found.answer, found.zooms) == ("red", 1)

    def test_words_are_part_of_the_budget(self, picture: Path) -> None:
        found = play(picture, use("size"), ZOOM, ZOOM, ANSWER, max_zooms=2)
        *_, refused = observed(found)
        assert refused.error == "No zooms are left: answer with what you have seen."
        assert (found.answer, found.zooms) == ("red", 1)
        both = f"{use('size')}\n{use('size').partition(chr(10))[2]}\n{ZOOM.partition(chr(10))[2]}"
        said = Observation(text="800 x 600")
        assert observed(play(picture, both, ANSWER, max_zooms=2)) == [said, said, refused]
        assert play(picture, *[use("size")] * 4, max_zooms=2).stop is StopReason.MAX_ZOOMS

    def test_words_are_no_fruitless_turns(self, picture: Path) -> None:
        assert play(picture, *[use("size")] * 5, ANSWER).answer == "red"

    @pytest.mark.parametrize(
        ("call", "sentence"),
        [
            (use("turned", degrees="a lot"), "The arguments of turned are not right: degrees: Input should be"),
            (use("turned"), "The arguments of turned are not right: degrees: Field required"),
            (use("turned", degrees=90, speed=1), "The arguments of turned are not right: speed: Extra inputs"),
            (use("turned", degrees=90, way="up"), "The arguments of turned are not right: way: Input should be"),
            (use("turned", degrees=45), "turned: only quarter turns are possible."),
            (use("turned", degrees=90, image=3), "There is no image 3: 0 is the only image"),
            (use("turned", degrees=90, image="zero"), '"image" must be the number of an image'),
            (use("spin"), f"There is no such tool; the tools are {dialects.ZOOM}, turned, size."),
        ],
    )
    def test_what_cannot_be_done_is_read_by_the_model_and_costs_nothing(
        self, picture: Path, call: str, sentence: str
    ) -> None:
        found = play(picture, call, ZOOM, ANSWER, max_zooms=1)
        refused, done = observed(found)
        assert refused.error is not None and refused.error.startswith(sentence) and "\n" not in refused.error
        assert done.view is not None and found.answer == "red"

    def test_a_fault_of_the_tool_ends_the_program(self, picture: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            play(picture, use("faulty"), own=("tests.tools:faulty",))

    def test_too_many_and_too_few_words(self, picture: Path) -> None:
        own = ("tests.tools:long", "tests.tools:nothing")
        long, empty = observed(play(picture, use("long"), use("nothing"), ANSWER, own=own))
        assert long.text == "x" * 8000
        assert empty.text == "(no text)"

    def test_where_crops_are_not_real_a_tool_sees_grey(self, picture: Path) -> None:
        found = play(picture, use("turned", degrees=90), ANSWER, crop="blank")
        assert found.views[1].shown_size == Size(420, 560)
        pixels = ZoomEnvironment(settings_of(found)).image(found.sample, found.views[1])
        assert pixels.getextrema() == ((128, 128),) * 3

    def test_a_tool_that_gives_words_where_it_gave_an_image_is_named(self, picture: Path) -> None:
        found = play(picture, use("turned", degrees=90), ANSWER)
        changed = replace(found.views[1], tool="size", arguments=())
        with pytest.raises(InputError, match="the tool size gave text where it had given an image"):
            ZoomEnvironment(settings_of(found)).image(found.sample, changed)

    def test_a_step_needs_the_sample_whose_image_a_tool_is_used_on(self, picture: Path) -> None:
        environment = ZoomEnvironment(AgentConfig(tools=(SIZE,)).settings(ScriptedPolicy([])))
        sample = Sample("s", str(picture), "?")
        view = environment.reset(sample)
        with pytest.raises(ValueError, match="needs the sample"):
            environment.step([Use("size", {})], [view])
        assert environment.step([Use("size", {})], [view], sample=sample) == (Observation(text="800 x 600"),)


class TestParse:
    def test_a_call_is_a_use_only_where_the_tool_is_there(self) -> None:
        call = use("turned", degrees=90, image=2)
        assert parse(call, ["turned"]) == (Use("turned", {"degrees": 90}, 2),)
        assert parse(call) == (Malformed(f"There is no such tool; the only one is {dialects.ZOOM}."),)
        assert protocol.well_formed(call, ["turned"]) and not protocol.well_formed(call)

    def test_the_zoom_is_the_zoom_beside_other_tools(self) -> None:
        assert parse(ZOOM, ["turned"]) == (Zoom((100, 100, 300, 250)),)

    def test_arguments_fit_into_a_record(self) -> None:
        given = {"a": 2**53 - 1, "b": -0.5, "c": "x" * 3000, "d": None, "e": True}
        assert parse(use("turned", **given), ["turned"]) == (Use("turned", given),)
        for value in (2**53, float("inf"), float("nan"), [1, 2], {"a": 1}):
            reason = "The arguments of turned must be numbers, words, true or false."
            assert parse(use("turned", value=value), ["turned"]) == (Malformed(reason),), value

    def test_the_reason_names_the_order_of_the_numbers(self) -> None:
        call = use(dialects.ZOOM, bbox_2d="all")
        (action,) = parse(call, [], CoordinateSystem.THOUSAND_YX)
        assert isinstance(action, Malformed) and "[y1, x1, y2, x2]" in action.reason


class TestLoading:
    def test_what_a_model_cannot_call_is_said(self) -> None:
        for spec, reason in {
            "tests.tools:untyped": "its parameter degrees has no type",
            "tests.tools:pair": "has a second parameter called image",
            "tests.tools:none": "cannot be called by a model",
            "tests.tools:missing": "has no function missing",
            "turned": "is not of the form module:function",
        }.items():
            with pytest.raises(InputError, match=reason):
                load_tool(spec)

    def test_a_tool_runs_alone_too(self) -> None:
        tool, image = load_tool(TURNED), Image.new("RGB", (4, 2))
        made = tool.run(image, {"degrees": "90"})  # a number in quotes, as models write it
        assert isinstance(made, Image.Image) and made.size == (2, 4)
        with pytest.raises(ToolError, match="only quarter turns"):
            tool.run(image, {"degrees": 1})

    def test_the_record_of_other_tools_stays_apart(self, picture: Path) -> None:
        """Equal regions made by another tool, or with other arguments, are other views."""
        found = play(picture, use("turned", degrees=90), use("turned", degrees=180), ANSWER)
        first, second = found.views[1:]
        assert first != second and replace(second, arguments=first.arguments, shown_size=first.shown_size) == first
        environment = ZoomEnvironment(settings_of(found))
        assert environment.image(found.sample, first).size != environment.image(found.sample, second).size
