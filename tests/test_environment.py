"""The zoom environment: sizes that the processor leaves alone, the budget, the sentences, the notes, the ablations."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as transformers_resize

from cof_agent.environment import ZoomEnvironment, ZoomSettings, _decoders
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits, Size, View
from cof_agent.image import open_source
from cof_agent.trajectory import Action, Answer, Malformed, Sample, Zoom
from tests import qwen_reference

SIZE = Size(2000, 1200)
LIMITS = PixelLimits(max_pixels=400 * 28 * 28)
SETTINGS = ZoomSettings(limits=LIMITS)
ENVIRONMENT = ZoomEnvironment(SETTINGS)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    pixels = np.random.default_rng(5).integers(0, 256, (SIZE.height, SIZE.width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, compress_level=1)
    return Sample("s", str(path), "What is it?")


def overview(size: Size = SIZE) -> View:
    shown = {SIZE: Size(700, 420)}.get(size, size)
    return View(size, Box(0, 0, size.width, size.height), shown)


def zoomed(box: tuple[object, ...] = (70, 70, 140, 140), image: int = 0, views: tuple[View, ...] | None = None) -> View:
    (observation,) = ENVIRONMENT.step([Zoom(box, image)], views or (overview(),))
    assert observation.view is not None and observation.error is None
    return observation.view


class TestViews:
    def test_the_overview_is_the_whole_image_on_the_grid(self, sample: Sample) -> None:
        view = ENVIRONMENT.reset(sample)
        assert view == View(SIZE, Box(0, 0, 2000, 1200), Size(700, 420))

    def test_an_overview_is_as_long_as_asked_and_no_longer_than_the_source(self) -> None:
        def shown(side: int | None, size: Size = SIZE) -> Size:
            return ENVIRONMENT.at(side).overview(size).shown_size

        assert (shown(None), shown(1000), shown(280)) == (Size(700, 420), Size(980, 588), Size(280, 168))
        small = Size(300, 200)  # on the grid as it is it would have more pixels than the source
        assert shown(3000, small) == shown(300, small) == Size(280, 196)

    def test_a_crop_is_enlarged_and_shown_at_twice_its_pixels(self) -> None:
        view = zoomed((70, 70, 140, 140))  # 200 source pixels a side, 300 with the margin
        assert view.region == Box(150, 150, 450, 450)
        assert view.shown_size.area <= LIMITS.zoom_pixels and view.shown_size == Size(476, 476)
        roomy = ZoomEnvironment(replace(SETTINGS, limits=replace(LIMITS, zoom_pixels=10**7)))
        (observation,) = roomy.step([Zoom((70, 70, 140, 140))], [overview()])
        assert observation.view is not None and observation.view.shown_size == Size(588, 588)  # 600 on the grid

    def test_a_crop_has_a_least_size_and_stays_inside(self) -> None:
        view = zoomed((699, 419, 700, 420))
        assert view.region == Box(1971, 1171, 2000, 1200) and view.shown_size == Size(56, 56)

    def test_views_nest(self) -> None:
        first = zoomed()
        second = zoomed((119, 119, 238, 238), 1, (overview(), first))
        assert second.region == Box(206, 206, 319, 319) and first.region.coverage(second.region) == 1
        assert second.scale > first.scale

    @given(
        st.builds(Size, st.integers(1, 40_000), st.integers(1, 40_000)),
        st.sampled_from(
            [PixelLimits(), PixelLimits(32, 65_536, 1_048_576, 262_144), PixelLimits(28, 784, 60_000, 20_000)]
        ),
        st.sampled_from(CoordinateSystem),
        st.tuples(*[st.floats(-0.5, 1.5)] * 4),
        st.tuples(*[st.floats(0, 1)] * 4),
    )
    @settings(deadline=None, max_examples=60)
    def test_the_processor_changes_nothing(
        self,
        size: Size,
        limits: PixelLimits,
        system: CoordinateSystem,
        first: tuple[float, ...],
        second: tuple[float, ...],
    ) -> None:
        environment = ZoomEnvironment(ZoomSettings(system=system, limits=limits))
        views = [View(size, Box(0, 0, size.width, size.height), Size(28 * 9, 28 * 5))]
        for image, at in enumerate((first, second)):
            frame = views[image].frame(system)
            edges = [(frame.x0, frame.width), (frame.y0, frame.height)] * 2
            box = tuple(start + share * length for share, (start, length) in zip(at, edges, strict=True))
            (observation,) = environment.step([Zoom(box, image)], views)
            if observation.view is None:
                assert observation.error
                return
            views.append(observation.view)
            width, height = observation.view.shown_size.width, observation.view.shown_size.height
            assert transformers_resize(height, width, limits.grid, limits.min_pixels, limits.zoom_pixels) == (
                height,
                width,
            )
            region = observation.view.region
            assert region.pixels() == tuple(region) and region.clipped(size) == region
            assert region.width >= min(28, size.width) and region.height >= min(28, size.height)

    def test_qwen_vl_utils_prepares_the_same_pixels(self, sample: Sample) -> None:
        limits = {"min_pixels": LIMITS.min_pixels, "max_pixels": LIMITS.max_pixels}
        fetch = qwen_reference.load().fetch_image
        ours = ENVIRONMENT.image(sample, ENVIRONMENT.reset(sample))
        assert fetch({"image": sample.image, **limits}).tobytes() == ours.tobytes()
        assert fetch({"image": ours, **limits}).tobytes() == ours.tobytes()

    def test_the_real_processor_sees_as_many_patches_as_we_said(self, sample: Sample) -> None:
        processor = Qwen2VLImageProcessorPil(min_pixels=LIMITS.min_pixels, max_pixels=LIMITS.max_pixels)
        for view in (ENVIRONMENT.reset(sample), zoomed((7, 9, 11, 230)), zoomed((600, 1, 700, 19))):
            out = processor(images=[ENVIRONMENT.image(sample, view)], return_tensors="np")
            assert out["image_grid_thw"].tolist() == [[1, view.shown_size.height // 14, view.shown_size.width // 14]]


class TestSteps:
    def test_several_zooms_are_done_in_order_up_to_the_budget(self) -> None:
        environment = ZoomEnvironment(replace(SETTINGS, max_zooms=2))
        actions = [Zoom((x, 0, x + 100, 100)) for x in (0, 200, 400, 600)]
        observations = environment.step(actions, [overview()])
        assert [observation.view and observation.view.region.x0 for observation in observations] == [0, 500, None]
        assert observations[2].error == "No zooms are left: answer with what you have seen."

    def test_earlier_views_count(self) -> None:
        environment = ZoomEnvironment(replace(SETTINGS, max_zooms=2))
        views = [overview(), zoomed()]
        (done, refused) = environment.step([Zoom((0, 0, 50, 50)), Zoom((0, 0, 50, 60))], views)
        assert done.view is not None and refused.error is not None
        (refused,) = environment.step([Zoom((0, 0, 50, 50))], [*views, done.view])
        assert refused.error is not None and refused.error.startswith("No zooms are left")
        (refused,) = ZoomEnvironment(replace(SETTINGS, max_zooms=0)).step([Zoom((0, 0, 50, 50))], [overview()])
        assert refused.view is None

    def test_an_error_costs_no_zoom(self) -> None:
        environment = ZoomEnvironment(replace(SETTINGS, max_zooms=1))
        bad, good = environment.step([Zoom((1, 1, 1, 1)), Zoom((0, 0, 50, 50))], [overview()])
        assert bad.error is not None and good.view is not None

    @pytest.mark.parametrize(
        ("action", "sentence"),
        [
            (Malformed("The answer is empty."), "The answer is empty."),
            (Zoom((1, 2, 3)), "bbox_2d must be a list of four numbers [x1, y1, x2, y2]."),
            (Zoom((1, 2, 3, "four")), "bbox_2d must hold four numbers and nothing else."),
            (Zoom((1, 2, 3, "nan")), "bbox_2d must hold finite numbers that lie inside the image."),
            (Zoom((1, 2, 1, 4)), "The box has no area: x1 must differ from x2 and y1 from y2."),
            (Zoom((700, 0, 800, 100)), "The box lies outside the image, which is 700 x 420 pixels."),
            (Zoom((1, 2, 3, 4), 1), "There is no image 1: 0 is the only image of this conversation."),
        ],
    )
    def test_what_cannot_be_done_is_said(self, action: Action, sentence: str) -> None:
        (observation,) = ENVIRONMENT.step([action], [overview()])
        assert observation.view is None and observation.error == sentence

    def test_what_is_no_action_is_said_beside_the_end_of_the_budget(self) -> None:
        actions: list[Action] = [Malformed("No."), Zoom((0, 0, 50, 50)), Zoom((0, 0, 60, 60)), Malformed("Nor that.")]
        observations = ZoomEnvironment(replace(SETTINGS, max_zooms=0)).step(actions, [overview()])
        assert [one.error for one in observations] == ["No.", "No zooms are left: answer with what you have seen."]

    def test_images_of_the_same_turn_cannot_be_named_yet(self) -> None:
        _, refused = ENVIRONMENT.step([Zoom((0, 0, 50, 50)), Zoom((0, 0, 50, 50), 2)], [overview(), zoomed()])
        assert refused.error == "There is no image 2: the images are numbered 0 to 1."

    def test_a_refusal_names_the_numbers_in_the_models_order(self) -> None:
        (refused,) = ENVIRONMENT.with_system(CoordinateSystem.THOUSAND_YX).step([Zoom((1, 2, 3))], [overview()])
        assert refused.error == "bbox_2d must be a list of four numbers [y1, x1, y2, x2]."

    def test_an_answer_brings_nothing(self) -> None:
        assert ENVIRONMENT.step([Answer("red")], [overview()]) == ()

    def test_reversed_and_overhanging_boxes_are_put_right(self) -> None:
        assert zoomed((140, 140, 70, 70)) == zoomed(("70", "70", "140", "140")) == zoomed((70, 70, 140, 140))
        assert zoomed((-100, -100, 70, 70)) == zoomed((0, 0, 70, 70))

    def test_a_turn_full_of_errors_is_cut_short(self) -> None:
        observations = ENVIRONMENT.step([Malformed("No.")] * 5000, [overview()])
        assert [observation.error for observation in observations] == ["No."] * 4
        observations = ENVIRONMENT.step([Zoom((0, 0, 50 + x, 50)) for x in range(5000)], [overview()])
        assert len(observations) == 7

    @pytest.mark.parametrize("system", CoordinateSystem)
    def test_every_system_gives_the_same_crop(self, system: CoordinateSystem) -> None:
        frame = overview().frame(system)
        x, y, width, height = frame.x0, frame.y0, frame.width, frame.height
        box = Box(x + 0.1 * width, y + 0.25 * height, x + 0.2 * width, y + 0.5 * height)
        (observation,) = ENVIRONMENT.with_system(system).step([Zoom(tuple(system.ordered(box)))], [overview()])
        assert observation.view is not None and observation.view.region == Box(150, 225, 450, 675)


class TestNotes:
    def note(self, size: Size, box: tuple[float, ...], environment: ZoomEnvironment = ENVIRONMENT) -> str | None:
        (observation,) = environment.step([Zoom(box)], [overview(size)])
        assert observation.view is not None
        return observation.note

    def test_a_crop_with_more_detail_has_none(self) -> None:
        assert self.note(SIZE, (70, 70, 140, 140)) is None

    def test_an_image_shown_in_full_has_no_more_to_show(self) -> None:
        note = self.note(Size(560, 420), (70, 70, 140, 140))
        assert note == "This view adds no detail: image 0 already shows the region as sharply."

    def test_nearly_everything_cannot_be_sharper(self) -> None:
        small = ZoomEnvironment(replace(SETTINGS, limits=replace(LIMITS, zoom_pixels=100 * 28 * 28)))
        assert "adds no detail" in (self.note(SIZE, (10, 10, 690, 410), small) or "")

    def test_the_same_again(self) -> None:
        first = zoomed()
        (observation,) = ENVIRONMENT.step([Zoom((70, 70, 140, 140))], [overview(), first])
        assert observation.view == first and observation.note == "This view adds no detail: it is the same as image 1."
        from_one = ZoomEnvironment(replace(SETTINGS, counts_from=1))
        (observation,) = from_one.step([Zoom((70, 70, 140, 140))], [overview(), first])
        assert observation.note == "This view adds no detail: it is the same as image 2."

    def test_what_lies_beside_the_named_view_is_new(self) -> None:
        sharp = View(SIZE, Box(500, 500, 600, 600), Size(196, 196))
        (inside, beside) = ENVIRONMENT.step(
            [Zoom((90, 90, 110, 110), 1), Zoom((0, 0, 196, 196), 1)], [overview(), sharp]
        )
        assert inside.note is not None and beside.note is None


class TestImages:
    def test_pixels_come_from_the_full_source(self, sample: Sample) -> None:
        with Image.open(sample.image) as image:
            for view in (ENVIRONMENT.reset(sample), zoomed(), zoomed((0, 0, 7, 400))):
                expected = image.crop(view.region.pixels()).resize(
                    (view.shown_size.width, view.shown_size.height), Image.Resampling.BICUBIC
                )
                assert ENVIRONMENT.image(sample, view).tobytes() == expected.tobytes()

    def test_another_process_would_see_the_same(self, sample: Sample) -> None:
        again = ZoomEnvironment(ZoomSettings(limits=LIMITS))
        assert again.reset(sample) == ENVIRONMENT.reset(sample)
        assert again.image(sample, zoomed()).tobytes() == ENVIRONMENT.image(sample, zoomed()).tobytes()

    def test_what_is_handed_out_is_a_copy(self, sample: Sample) -> None:
        before = ENVIRONMENT.image(sample, zoomed())
        ENVIRONMENT.image(sample, zoomed()).paste((0, 0, 0), (0, 0, 50, 50))
        assert ENVIRONMENT.image(sample, zoomed()).tobytes() == before.tobytes()

    def test_many_threads(self, sample: Sample) -> None:
        environment = ZoomEnvironment(SETTINGS)
        expected = ENVIRONMENT.image(sample, zoomed()).tobytes()
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: seen.append(environment.image(sample, zoomed()).tobytes()))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [expected] * 8

    def test_a_crop_of_a_decoded_source_does_not_wait_for_others_to_be_decoded(self, sample: Sample) -> None:
        environment, free = ZoomEnvironment(SETTINGS), threading.Event()
        expected = environment.image(sample, overview()).tobytes()
        busy = [_decoders().submit(free.wait) for _ in range(4 * (os.cpu_count() or 1))]
        try:
            crops = asyncio.run(asyncio.wait_for(environment.images(sample, [overview(), zoomed()]), 30))
        finally:
            free.set()
        assert all(one.result() for one in busy)
        assert [crop.size for crop in crops] == [(700, 420), (476, 476)] and crops[0].tobytes() == expected

    @pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
    def test_decoding_steps_back_behind_a_model(self) -> None:
        own = os.nice(0)
        assert own < _decoders().submit(os.nice, 0).result() == min(own + 10, 19)

    def test_blank_crops(self, sample: Sample) -> None:
        blank = ZoomEnvironment(replace(SETTINGS, crop="blank"))
        crop = blank.image(sample, zoomed())
        assert crop.size == (476, 476) and crop.getextrema() == ((128, 128),) * 3
        assert blank.image(sample, overview()).tobytes() == ENVIRONMENT.image(sample, overview()).tobytes()

    def test_shuffled_crops(self, sample: Sample) -> None:
        shuffled = ZoomEnvironment(replace(SETTINGS, crop="shuffled"))
        assert shuffled.image(sample, overview()).tobytes() == ENVIRONMENT.image(sample, overview()).tobytes()
        real, other = ENVIRONMENT.image(sample, zoomed()), shuffled.image(sample, zoomed())
        assert other.size == real.size and other.tobytes() != real.tobytes() and other.getextrema() != ((128, 128),) * 3
        again = ZoomEnvironment(replace(SETTINGS, crop="shuffled"))
        assert again.image(sample, zoomed()).tobytes() == other.tobytes()
        assert again.image(replace(sample, id="t"), zoomed()).tobytes() != other.tobytes()

    def test_shuffled_crops_show_none_of_what_was_asked_for(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (2000, 1200))
        image.paste((255, 0, 0), (900, 500, 1100, 700))
        image.save(tmp_path / "a.png")
        shuffled = ZoomEnvironment(replace(SETTINGS, crop="shuffled"))
        for number in range(20):
            one = Sample(str(number), str(tmp_path / "a.png"), "?", boxes=(Box(900, 500, 1100, 700),))
            assert shuffled.image(one, zoomed((0, 0, 100, 100))).getextrema() == ((0, 0),) * 3

    def test_shuffled_crops_are_away_from_where_they_were_asked_for(self, tmp_path: Path) -> None:
        shuffled, view = ZoomEnvironment(replace(SETTINGS, crop="shuffled")), zoomed((200, 200, 300, 300))
        image = Image.new("RGB", (2000, 1200))
        image.paste((255, 0, 0), view.region.pixels())
        image.save(tmp_path / "a.png")
        for number in range(20):
            one = Sample(str(number), str(tmp_path / "a.png"), "?")
            assert shuffled.image(one, view).getextrema() == ((0, 0),) * 3

    def test_where_there_is_no_other_place_a_shuffled_crop_is_blank(self, sample: Sample) -> None:
        everything = zoomed((0, 0, 700, 420))
        assert everything.region == overview().region and everything != overview()
        shuffled = ZoomEnvironment(replace(SETTINGS, crop="shuffled"))
        assert shuffled.image(sample, everything).getextrema() == ((128, 128),) * 3

    def test_a_replaced_image_is_noticed(self, tmp_path: Path) -> None:
        one = Sample("s", str(tmp_path / "a.png"), "?")
        Image.new("RGB", (300, 200), "red").save(one.image)
        view = ENVIRONMENT.reset(one)
        assert ENVIRONMENT.image(one, view).getpixel((0, 0)) == (255, 0, 0)
        Image.new("RGB", (301, 200), "blue").save(one.image)
        with pytest.raises(InputError, match="is 301 x 200 pixels, but was 300 x 200"):
            ENVIRONMENT.image(one, view)

    def test_a_bad_image_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            ENVIRONMENT.reset(Sample("s", str(tmp_path / "none.png"), "?"))
        Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
        strict = ZoomEnvironment(replace(SETTINGS, max_source_pixels=100))
        with pytest.raises(InputError, match="raise --max-source-pixels"):
            strict.reset(Sample("s", str(tmp_path / "a.png"), "?"))

    def test_decoded_images_are_kept_within_bounds(self, tmp_path: Path) -> None:
        environment = ZoomEnvironment(SETTINGS, source_cache=3 * 300 * 200)
        names = [str(tmp_path / f"{number}.png") for number in range(9)]
        for name in names:
            Image.new("RGB", (300, 200)).save(name)
            environment.reset(Sample(name, name, "?"))
        assert len(environment._sources) == 3
        Image.new("RGB", (3000, 2000)).save(names[0])
        environment.reset(Sample("large", names[0], "?"))
        assert len(environment._sources) == 1  # the last one is kept, however large


class TestSettings:
    def test_the_paper_is_the_default(self) -> None:
        default = ZoomSettings()
        assert (default.max_zooms, default.enlarge, default.zoom_scale, default.crop) == (6, 1.5, 2.0, "real")

    def test_plain_values_for_the_record(self) -> None:
        plain = ZoomSettings(system=CoordinateSystem.THOUSAND, max_zooms=3).to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert plain["system"] == "thousand" and plain["max_zooms"] == 3 and plain["limits"]["grid"] == 28

    @pytest.mark.parametrize(
        "bad",
        [
            {"max_zooms": -1},
            {"enlarge": 0.5},
            {"enlarge": float("nan")},
            {"min_side": 0},
            {"zoom_scale": 0},
            {"max_source_pixels": 0},
            {"crop": "grey"},
            {"limits": PixelLimits(max_pixels=100)},
            {"limits": PixelLimits(zoom_pixels=2000)},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, bad: dict[str, object]) -> None:
        with pytest.raises(InputError, match=" must be .*\\.$"):
            ZoomSettings(**bad)  # type: ignore[arg-type]


def test_an_overview_of_a_large_png_and_its_crops_cost_one_decode(tmp_path: Path) -> None:
    one = Sample("s", str(tmp_path / "a.png"), "?")
    Image.linear_gradient("L").resize((1500, 900)).convert("RGB").save(one.image)
    environment = ZoomEnvironment(SETTINGS)
    view = environment.reset(one)
    source = environment._source(one.image)
    environment.image(one, view)
    assert source.is_decoded
    (observation,) = environment.step([Zoom((10, 10, 60, 60))], [view])
    assert observation.view is not None
    environment.image(one, observation.view)
    assert environment._source(one.image) is source
    assert open_source(one.image).size == view.source_size
