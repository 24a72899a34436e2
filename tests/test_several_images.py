"""Samples of several images: views, records, the loop, and who refuses them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.backends.scenes_only import ONE_IMAGE, warning_for, warning_of
from cof_agent.environment import ZoomEnvironment, ZoomSettings, opened
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.graphs.focus import run
from cof_agent.graphs.state import open_checkpoints, progress
from cof_agent.graphs.steps import Context
from cof_agent.nano import NANO
from cof_agent.policy import Completion, PolicyError, ScriptedPolicy
from cof_agent.protocol.dialects import ours
from cof_agent.scoring import target_hits
from cof_agent.strategies.registry import check_images, takes_several_images
from cof_agent.trajectory import Sample, StopReason, Trajectory, Zoom, from_json, to_json
from rl.rewards import box_iou
from tests import dialects
from tests.pairs import SIZES, pair

ENVIRONMENT = ZoomEnvironment(ZoomSettings(max_zooms=8, enlarge=1.0))
ANSWER = protocol.write_answer("I see.", "the first")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return pair(tmp_path_factory.mktemp("pair"))


def play(script: Sequence[str], sample: Sample, environment: ZoomEnvironment | None = None) -> Trajectory:
    return asyncio.run(run(sample, Context(ScriptedPolicy(script), environment or ENVIRONMENT)))


class TestViews:
    sizes = st.lists(st.builds(Size, st.integers(30, 3000), st.integers(30, 3000)), min_size=1, max_size=4)

    @given(sizes, st.lists(st.tuples(st.integers(0, 7), st.floats(0, 0.7), st.floats(0, 0.7)), max_size=6))
    def test_a_crop_is_of_the_image_that_its_call_names(
        self, sizes: list[Size], calls: list[tuple[int, float, float]]
    ) -> None:
        views = [ENVIRONMENT.overview(size, number) for number, size in enumerate(sizes)]
        for image, x, y in calls:
            assert opened(views) == len(sizes)
            named = views[min(image, len(views) - 1)]
            width, height = named.shown_size.width, named.shown_size.height
            box = (x * width, y * height, (x + 0.3) * width, (y + 0.3) * height)
            (observation,) = ENVIRONMENT.step([Zoom(box, image)], views)
            if image >= len(views):
                assert (observation.error or "").startswith(f"There is no image {image}: ")
                continue
            view = observation.view
            assert view is not None and view.source == named.source and view.source_size == named.source_size
            meant = named.to_source(Box(*box), CoordinateSystem.ABSOLUTE)
            assert view.region.coverage(meant) > 0.999
            views.append(view)

    def test_pixels_come_from_the_images_of_the_views(self, sample: Sample) -> None:
        views = [*ENVIRONMENT.overviews(sample)]
        found = ENVIRONMENT.step([Zoom((140, 140, 280, 280), 0), Zoom((140, 140, 280, 280), 1)], views)
        views += [one.view for one in found if one.view is not None]
        assert [view.source for view in views] == [0, 1, 0, 1]
        for view, shown in zip(views, asyncio.run(ENVIRONMENT.images(sample, views)), strict=True):
            with Image.open(sample.images[view.source]) as source:
                alone = replace(sample, image=sample.images[view.source], more_images=())
                assert source.size == SIZES[view.source]
            assert shown.tobytes() == ENVIRONMENT.image(alone, replace(view, source=0)).tobytes()

    def test_the_same_place_of_another_image_is_no_repetition(self, sample: Sample) -> None:
        twins = sample.with_images([sample.image, sample.image])
        views = ENVIRONMENT.overviews(twins)
        actions = [Zoom((140, 140, 280, 280), 0), Zoom((140, 140, 280, 280), 1), Zoom((140, 140, 280, 280), 1)]
        first, second, third = ENVIRONMENT.step(actions, views)
        assert "the same as" not in f"{first.note}{second.note}" and "the same as image 3" in (third.note or "")

    def test_every_overview_is_free_and_every_crop_is_a_zoom(self, sample: Sample) -> None:
        one = ZoomEnvironment(ZoomSettings(max_zooms=1))
        views = one.overviews(sample)
        shown, refused = one.step([Zoom((0, 0, 80, 80), 1), Zoom((0, 0, 80, 80))], views)
        assert shown.view is not None and "No zooms are left" in (refused.error or "")

    def test_ablations_stay_in_the_image(self, sample: Sample) -> None:
        shuffled = ZoomEnvironment(replace(ENVIRONMENT.settings, crop="shuffled"))
        boxed = replace(sample, boxes=(Box(0, 0, 400, 600),))
        views = shuffled.overviews(sample)
        for view in views:
            assert shuffled.image(boxed, view).tobytes() == ENVIRONMENT.image(sample, view).tobytes()
        (found,) = shuffled.step([Zoom((140, 140, 280, 280), 1)], views)
        assert found.view is not None
        # The boxes lie in the first image, so that they change nothing in the second.
        assert shuffled.image(boxed, found.view).tobytes() == shuffled.image(sample, found.view).tobytes()

    def test_what_knows_one_image_refuses(self, sample: Sample) -> None:
        with pytest.raises(InputError, match="pair has 2 images, but this needs a sample of one image"):
            ENVIRONMENT.reset(sample)
        with pytest.raises(InputError, match="a view of image 2, counted from 0"):
            ENVIRONMENT.image(sample, ENVIRONMENT.overview(Size(99, 99), 2))


class TestRecords:
    def test_one_image_is_written_as_image_and_several_as_images(self, sample: Sample) -> None:
        alone = replace(sample, more_images=())
        assert list(json.loads(to_json(alone))) == [
            *("id", "image", "question", "answers", "choices", "boxes", "metadata", "regions")
        ]
        several = json.loads(to_json(sample))
        assert several["images"] == list(sample.images) and "image" not in several and "more_images" not in several
        assert from_json(to_json(alone), Sample) == alone and from_json(to_json(sample), Sample) == sample

    def test_a_trajectory_comes_back(self, sample: Sample) -> None:
        played = play([protocol.write_zoom("There.", Box(80, 80, 200, 200), 1), ANSWER], sample)
        line = json.loads(to_json(played))
        assert [view.get("source", 0) for view in line["overviews"]] == [0, 1] and "overview" not in line
        assert line["turns"][0]["observations"][0]["view"]["source"] == 1
        assert from_json(to_json(played), Trajectory) == played
        alone = play([protocol.write_zoom("There.", Box(80, 80, 200, 200)), ANSWER], replace(sample, more_images=()))
        assert not {"source", "overviews", "more_overviews"} & set(_keys(json.loads(to_json(alone))))
        assert from_json(to_json(alone), Trajectory) == alone

    def test_what_contradicts_itself_is_no_record(self, sample: Sample) -> None:
        line = json.loads(to_json(sample))
        with pytest.raises(ValueError, match="image and images are both given"):
            from_json(json.dumps(line | {"image": "a.png"}), Sample)
        with pytest.raises(ValueError, match="image"):
            from_json(json.dumps(line | {"images": []}), Sample)
        view = View(Size(80, 60), Box(0, 0, 80, 60), Size(84, 56), source=2)
        with pytest.raises(ValueError, match="a view is of an image beyond the 2 of the sample"):
            Trajectory(sample, view, (), StopReason.ERROR)

    def test_boxes_lie_in_the_first_image(self, sample: Sample) -> None:
        boxed = replace(sample, boxes=(Box(100, 100, 200, 200),))
        zooms = [protocol.write_zoom("There.", Box(90, 90, 210, 210), image) for image in (0, 1)]
        assert target_hits(play([zooms[0], ANSWER], boxed)) is True
        assert target_hits(play([zooms[1], ANSWER], boxed)) is False
        assert (box_iou(play([zooms[0], ANSWER], boxed)) or 0) > 0.5
        assert box_iou(play([zooms[1], ANSWER], boxed)) == 0
        many = "".join(protocol.write_zoom("There.", Box(x, 90, x + 120, 210), 0) for x in range(10, 100, 10))
        none = ZoomEnvironment(ZoomSettings(max_zooms=0))
        assert box_iou(play([many, ANSWER], boxed, none)) == 0  # what is refused says nothing


def _keys(value: object) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for part in value.values() for key in _keys(part))]
    return [key for part in value for key in _keys(part)] if isinstance(value, list) else []


class TestTheLoop:
    def test_a_conversation_opens_with_every_overview_numbered(self, sample: Sample) -> None:
        played = play([protocol.write_zoom("There.", Box(80, 80, 200, 200), 1), ANSWER], sample)
        system, user, _, observation, _ = protocol.render(played, system=CoordinateSystem.ABSOLUTE)
        told = system["content"][0]["text"]
        assert "2 pictures, which are images 0 to 1" in told and 'without "image" refers to image 0' in told
        assert [part.get("view", part.get("text")) for part in user["content"]] == [
            *(0, f"Image 0, picture 1 of 2, {played.views[0].shown_size} pixels.\n"),
            *(1, f"Image 1, picture 2 of 2, {played.views[1].shown_size} pixels.\n"),
            "Which is older?",
        ]
        assert protocol.asked([system, user]) == "Which is older?"
        assert observation["content"][0] == {"type": "image", "view": 2}
        assert observation["content"][1]["text"].startswith("Image 2, ")

    def test_the_number_of_an_image_has_two_names(self) -> None:
        def call(**arguments: object) -> object:
            written = json.dumps({"name": dialects.ZOOM, "arguments": {"bbox_2d": [1, 2, 3, 4], **arguments}})
            (action,) = protocol.parse(f"<think>x</think>\n<tool_call>\n{written}\n</tool_call>")
            return action

        assert call(img_idx=1) == call(image=1) == call(image=1, img_idx=1) == Zoom((1, 2, 3, 4), 1)
        assert call() == call(label="dog") == Zoom((1, 2, 3, 4), 0)
        assert "name different images" in str(call(image=1, img_idx=2))
        assert '"img_idx" must be the number of an image' in str(call(img_idx="first"))

    def test_a_run_goes_on_after_an_interruption(self, sample: Sample, tmp_path: Path) -> None:
        fails = [PolicyError("gone", transient=False)]

        def line(messages: Sequence[protocol.Message]) -> str:
            said: int = sum(message["role"] == "assistant" for message in messages)
            if said == 1 and fails:
                raise fails.pop()
            turns: list[str] = [protocol.write_zoom("There.", Box(80, 80, 200, 200), 1), ANSWER]
            return turns[said]

        async def twice() -> list[Trajectory]:
            context = Context(ScriptedPolicy(line), ENVIRONMENT)
            async with open_checkpoints(tmp_path / "steps.db") as saver:
                return [await run(sample, context, checkpointer=saver) for _ in range(2)]

        broken, whole = asyncio.run(twice())
        assert broken.stop is StopReason.ERROR and len(broken.overviews) == 2
        assert whole.answer == "the first" and [view.source for view in whole.views] == [0, 1, 1]

    def test_a_front_end_may_list_images(self) -> None:
        found = progress({"sample": {"images": ["a.png", "b.png"], "question": "Which?"}}).sample
        assert (found.id, found.images) == ("a.png", ("a.png", "b.png"))

    def test_a_second_image_that_changes_is_noticed(self, tmp_path: Path) -> None:
        sample = pair(tmp_path)

        class Changing(ScriptedPolicy):
            async def generate(self, *arguments: object) -> Completion:  # type: ignore[override]
                os.utime(sample.images[1], ns=(1, 1))
                return await super().generate(*arguments)  # type: ignore[arg-type]

        policy = Changing([protocol.write_zoom("There.", Box(80, 80, 200, 200)), ANSWER])
        played = asyncio.run(run(sample, Context(policy, ENVIRONMENT)))
        assert played.failure == "image" and f"the image {sample.images[1]} was changed" in (played.error or "")

    def test_a_second_image_that_is_gone_is_an_end(self, sample: Sample) -> None:
        gone = play([ANSWER], replace(sample, more_images=("gone.png",)))
        assert gone.failure == "image" and "cannot open the image gone.png" in (gone.error or "")
        assert gone.overviews == gone.views == () and gone.zooms == 0


class TestWhoRefuses:
    def test_strategies_that_look_at_one_image(self, sample: Sample) -> None:
        for name in ("grid", "tree", "always-zoom", "regions", "spot", "coroi"):
            with pytest.raises(InputError, match=f"pair has 2 images, but the strategy {name} looks at one"):
                check_images(name, ours(), [sample])
            check_images(name, ours(), [replace(sample, more_images=())])
        assert all(takes_several_images(name, ours()) for name in ("focus", "direct", "my:own"))
        agent = Agent("openai:none", policy=ScriptedPolicy([ANSWER]), strategy="grid")
        with pytest.raises(InputError, match="the strategy grid looks at one"):
            agent.ask([sample.image, sample.images[1]], "Which?")
        with pytest.raises(InputError, match="the strategy grid looks at one"):
            agent.ask_many([sample], progress=False)

    def test_the_agent_is_asked_about_lists(self, sample: Sample) -> None:
        agent = Agent("openai:none", policy=ScriptedPolicy([ANSWER]), strategy="direct")
        with Image.open(sample.images[1]) as second:
            found = agent.ask([Path(sample.image), second.convert("RGB")], "Which?")
        assert found.answer == "the first" and len(found.views) == 2 and found.sample.id == "0.png"
        with pytest.raises(InputError, match="the list of images is empty"):
            agent.ask([], "Which?")
        with pytest.raises(InputError, match="has regions and 2 images"):
            agent.ask([sample.image] * 2, "What is <region1>?", regions=[(0, 0, 9, 9)])

    def test_nano_says_that_it_was_taught_with_one_image(self, sample: Sample) -> None:
        assert warning_of(NANO, sample) == warning_for(NANO, [sample]) == ONE_IMAGE
        assert warning_for(NANO, [sample, replace(sample, more_images=())]) == (
            "nano was taught with one image a question, but 1 of these 2 questions have several. nano can only answer about the "
            "scenes that `cof scenes` draws. Of these 2 pictures 1 are not known to be among them; about any others, its answers "
            "mean nothing."
        )
        assert warning_of("other", sample) is None
