"""Views, boxes and smart_resize: round trips, refusals, and agreement with the processors that models come with."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as transformers_resize

from cof_agent.geometry import (
    Box,
    BoxError,
    CoordinateSystem,
    Size,
    View,
    clip_to_view,
    crop_region,
    read_box,
    smart_resize,
)
from tests import qwen_reference

sides = st.one_of(st.integers(1, 40_000), st.integers(1, 300), st.sampled_from([1, 27, 28, 29, 32, 39_999, 40_000]))
sizes = st.builds(Size, sides, sides)
systems = st.sampled_from(CoordinateSystem)
grids = st.sampled_from([28, 32])
fractions = st.floats(0, 1)


@st.composite
def limits(draw: st.DrawFn) -> dict[str, int]:
    grid = draw(grids)
    low = draw(st.integers(1, 64 * grid * grid))
    return {
        "grid": grid,
        "min_pixels": low,
        "max_pixels": draw(st.integers(4 * max(low, grid * grid), 16_384 * grid**2)),
    }


@st.composite
def views(draw: st.DrawFn) -> View:
    """An overview, or a crop of a crop of a crop of one."""
    size, limit = draw(sizes), draw(limits())
    view = View(size, Box(0, 0, size.width, size.height), smart_resize(size, **limit))
    for _ in range(draw(st.integers(0, 3))):
        xs, ys = (sorted(draw(st.tuples(fractions, fractions))) for _ in range(2))
        assume(xs[0] < xs[1] and ys[0] < ys[1])
        box = view.to_source(Box(xs[0], ys[0], xs[1], ys[1]), CoordinateSystem.UNIT)
        region = crop_region(box, size, enlarge=draw(st.floats(1, 3)), min_side=draw(st.integers(1, 56)))
        shown = smart_resize(Size(round(region.width * 2), round(region.height * 2)), **limit)
        view = View(size, region, shown)
    return view


class TestRoundTrip:
    @given(views(), systems, st.tuples(fractions, fractions, fractions, fractions))
    @settings(deadline=None, max_examples=60)
    def test_model_to_source_to_model(self, view: View, system: CoordinateSystem, at: tuple[float, ...]) -> None:
        assume(system is not CoordinateSystem.UNIT_OR_PIXELS)  # which writes no 1
        frame = view.frame(system)
        width, height = frame.width, frame.height
        x, y = frame.x0, frame.y0
        box = Box(x + at[0] * width, y + at[1] * height, x + at[2] * width, y + at[3] * height)
        back = view.from_source(view.to_source(box, system), system)
        # A grid pixel is a pixel of what the vision tower receives.
        per_x, per_y = view.shown_size.width / width, view.shown_size.height / height
        for before, after, pixels in zip(box, back, (per_x, per_y, per_x, per_y), strict=True):
            assert abs(before - after) * pixels < 0.5
            assert math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-6)

    @given(views(), st.data())
    @settings(deadline=None)
    def test_whole_pixels_come_back_as_they_were_written(self, view: View, data: st.DataObject) -> None:
        system = CoordinateSystem.ABSOLUTE
        x = st.integers(0, view.shown_size.width)
        y = st.integers(0, view.shown_size.height)
        box = Box(*(data.draw(side) for side in (x, y, x, y)))
        back = view.from_source(view.to_source(box, system), system)
        assert tuple(round(value) for value in back) == tuple(box)

    @given(views(), systems)
    @settings(deadline=None)
    def test_the_whole_view_is_its_region(self, view: View, system: CoordinateSystem) -> None:
        assume(system is not CoordinateSystem.UNIT_OR_PIXELS)  # whose 1 is a pixel
        source = view.to_source(view.frame(system), system)
        assert tuple(source) == pytest.approx(tuple(view.region))

    @given(views(), st.tuples(fractions, fractions, fractions, fractions))
    @settings(deadline=None)
    def test_y_first_is_the_same_box_with_its_axes_swapped(self, view: View, at: tuple[float, ...]) -> None:
        x_first, y_first = CoordinateSystem.THOUSAND, CoordinateSystem.THOUSAND_YX
        box = Box(*(1000 * value for value in at))
        assert view.to_source(Box(box.y0, box.x0, box.y1, box.x1), y_first) == view.to_source(box, x_first)
        source = view.to_source(box, x_first)
        x0, y0, x1, y1 = view.from_source(source, x_first)
        assert tuple(view.from_source(source, y_first)) == (y0, x0, y1, x1)

    def test_systems_mean_what_they_say(self) -> None:
        view = View(Size(4000, 2000), Box(1000, 500, 3000, 1500), Size(560, 280))
        region = Box(1500, 750, 2500, 1250)
        assert view.to_source(Box(140, 70, 420, 210), CoordinateSystem.ABSOLUTE) == region
        assert view.to_source(Box(250, 250, 750, 750), CoordinateSystem.THOUSAND) == region
        assert view.to_source(Box(0.25, 0.25, 0.75, 0.75), CoordinateSystem.UNIT) == region
        low = Box(1500, 500, 2500, 1000)
        assert view.to_source(Box(250, 0, 750, 500), CoordinateSystem.THOUSAND) == low
        assert view.to_source(Box(0, 250, 500, 750), CoordinateSystem.THOUSAND_YX) == low
        # The view is twice as wide as high: a quarter of the square lies above it, and a quarter below.
        assert view.to_source(Box(0.25, 0.375, 0.75, 0.625), CoordinateSystem.PADDED) == region


REFUSED: dict[str, list[object]] = {
    "bbox_2d must be a list of four numbers [x1, y1, x2, y2].": [
        *(None, "1 2 3 4", [1, 2, 3], [1, 2, 3, 4, 5], [[1, 2], [3, 4]])
    ],
    "bbox_2d must hold four numbers and nothing else.": [
        *([1, 2, 3, "four"], [1, 2, 3, ""], [1, 2, 3, None], [1, 2, 3, True], [1, 2, 3, [4]])
    ],
    "bbox_2d must hold finite numbers that lie inside the image.": [
        *([1, 2, 3, math.nan], [1, 2, 3, "nan"], [1, 2, 3, math.inf], [-math.inf, 2, 3, 4]),
        *([1, 2, 3, 1e300], [1, 2, 3, 10**400], [1, 2, 3, 10**5000], [1, 2, 3, 1.01e9], [-1.01e9, 2, 3, 4]),
    ],
    "The box has no area: x1 must differ from x2 and y1 from y2.": [[5, 2, 5, 4], [1, 4, 3, 4]],
}


class TestReadBox:
    def test_numbers_strings_and_reversed_edges_are_normalised(self) -> None:
        same = [
            [1, 2, 3, 4],
            (1.0, 2.0, 3.0, 4.0),
            ["1", " 2 ", "3.0", "4e0"],
            [3, 4, 1, 2],
            [3, 2, 1, 4],
            [1, 4, 3, 2],
        ]
        assert [read_box(values) for values in same] == [Box(1, 2, 3, 4)] * len(same)

    @pytest.mark.parametrize("sentence", REFUSED)
    def test_the_rest_is_refused_with_a_sentence(self, sentence: str) -> None:
        for values in REFUSED[sentence]:
            with pytest.raises(BoxError) as refusal:
                read_box(values)
            assert str(refusal.value) == sentence, values

    @given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80)), max_size=6))
    def test_gives_an_ordered_finite_box_or_refuses(self, values: list[object]) -> None:
        try:
            box = read_box(values)
        except BoxError:
            return
        assert box.x0 < box.x1 and box.y0 < box.y1 and all(map(math.isfinite, box))


class TestClip:
    view = View(Size(1000, 500), Box(0, 0, 1000, 500), Size(560, 280))

    def test_what_sticks_out_is_cut_off(self) -> None:
        clipped = clip_to_view(Box(-50, -10, 100, 900), self.view, CoordinateSystem.ABSOLUTE)
        assert clipped == Box(0, 0, 100, 280)

    @pytest.mark.parametrize(
        "box", [Box(600, 0, 700, 100), Box(-9, -9, -1, -1), Box(560, 0, 700, 280), Box(0, -5, 9, 0)]
    )
    def test_a_box_outside_is_refused(self, box: Box) -> None:
        with pytest.raises(BoxError, match="^The box lies outside the image, which is 560 x 280 pixels.$"):
            clip_to_view(box, self.view, CoordinateSystem.ABSOLUTE)

    def test_the_sentence_names_the_system(self) -> None:
        with pytest.raises(BoxError, match="which is 0 to 1000 on both axes.$"):
            clip_to_view(Box(1001, 0, 1200, 5), self.view, CoordinateSystem.THOUSAND)
        with pytest.raises(BoxError, match="which is 0 to 1 on both axes.$"):
            clip_to_view(Box(1.01, 0, 1.2, 5), self.view, CoordinateSystem.UNIT)
        # A box that touches 1.0 is no box in pixels.
        assert clip_to_view(Box(0.5, 0.5, 1.0, 1.0), self.view, CoordinateSystem.UNIT) == Box(0.5, 0.5, 1, 1)

    @pytest.mark.parametrize("system", [CoordinateSystem.UNIT, CoordinateSystem.PADDED])
    def test_pixels_are_no_shares(self, system: CoordinateSystem) -> None:
        for box in (Box(0, 0, 400, 300), Box(0.1, 0.1, 50, 60), Box(0, 0, 1, 1000)):
            with pytest.raises(BoxError, match="numbers of a box go from 0 to 1"):
                clip_to_view(box, self.view, system)
        assert clip_to_view(Box(0.1, 0.3, 1.2, 0.7), self.view, system) == Box(0.1, 0.3, 1, 0.7)  # carelessly rounded

    def test_numbers_of_0_to_1_are_no_pixels(self) -> None:
        for system in (CoordinateSystem.ABSOLUTE, CoordinateSystem.SOURCE):
            for box in (Box(0, 0.2, 1, 0.6), Box(0, 0, 1, 1), Box(0.5, 0, 1, 1)):
                with pytest.raises(BoxError, match="^The box is a point at the corner of the image"):
                    clip_to_view(box, self.view, system)
            assert clip_to_view(Box(0, 0, 1, 2), self.view, system) == Box(0, 0, 1, 2)
        pixel = View(Size(1, 1), Box(0, 0, 1, 1), Size(28, 28))
        assert clip_to_view(Box(0, 0, 1, 1), pixel, CoordinateSystem.SOURCE) == Box(0, 0, 1, 1)

    @pytest.mark.parametrize("system", [CoordinateSystem.THOUSAND, CoordinateSystem.THOUSAND_YX])
    def test_numbers_of_0_to_1_are_none_of_1000(self, system: CoordinateSystem) -> None:
        for box in (Box(0.4, 0.5, 0.6, 0.7), Box(0, 0, 1, 1)):
            with pytest.raises(BoxError, match="^The box is a point at the corner of the image, which is 0 to 1000"):
                clip_to_view(box, self.view, system)
        assert clip_to_view(Box(0, 0, 2, 2), self.view, system) == Box(0, 0, 2, 2)


class TestCropRegion:
    @given(sizes, st.tuples(fractions, fractions, fractions, fractions), st.floats(1, 5), st.integers(1, 100))
    @settings(deadline=None, max_examples=60)
    def test_whole_pixels_inside_the_source_around_the_box(
        self, size: Size, at: tuple[float, ...], enlarge: float, min_side: int
    ) -> None:
        x0, x1 = sorted((at[0] * size.width, at[2] * size.width))
        y0, y1 = sorted((at[1] * size.height, at[3] * size.height))
        region = crop_region(Box(x0, y0, x1, y1), size, enlarge=enlarge, min_side=min_side)
        assert region.pixels() == tuple(region)
        assert 0 <= region.x0 < region.x1 <= size.width and 0 <= region.y0 < region.y1 <= size.height
        assert region.width >= min(min_side, size.width) and region.height >= min(min_side, size.height)
        slack = 1e-5  # float noise is rounded away
        assert region.x0 <= x0 + slack and region.x1 >= x1 - slack
        assert region.y0 <= y0 + slack and region.y1 >= y1 - slack
        assert region.width <= max((x1 - x0) * enlarge, min_side) + 2
        assert region.height <= max((y1 - y0) * enlarge, min_side) + 2

    def test_exact_edges_do_not_grow(self) -> None:
        assert crop_region(Box(100, 200, 300, 400), Size(1000, 1000)) == Box(100, 200, 300, 400)

    def test_enlarged_about_the_centre(self) -> None:
        assert crop_region(Box(400, 400, 600, 500), Size(1000, 1000), enlarge=1.5) == Box(350, 375, 650, 525)

    def test_moved_back_inside_not_cut(self) -> None:
        assert crop_region(Box(0, 900, 100, 1000), Size(1000, 1000), enlarge=2) == Box(0, 800, 200, 1000)
        assert crop_region(Box(998, 0, 1000, 2), Size(1000, 1000), min_side=28) == Box(972, 0, 1000, 28)


class TestSmartResize:
    @given(sizes, limits())
    @settings(deadline=None, max_examples=80)
    def test_agrees_with_the_processors_and_is_their_fixed_point(self, size: Size, limit: dict[str, int]) -> None:
        ours = smart_resize(size, **limit)
        grid, low, high = limit["grid"], limit["min_pixels"], limit["max_pixels"]
        assert ours.width % grid == ours.height % grid == 0
        assert low <= ours.area <= high

        def references(of: Size) -> list[tuple[int, int]]:
            return [resize(of.height, of.width, grid, low, high) for resize in (transformers_resize, self.qwen)]

        fixed = (ours.height, ours.width)
        assert references(ours) == [fixed, fixed]
        try:
            first, second = references(size)
            # Not all that they return would come through them unchanged again; ours must.
            settled = first == second and references(Size(first[1], first[0])) == [first, first]
        except ValueError:
            return
        if settled:
            assert fixed == first

    qwen = staticmethod(qwen_reference.load().smart_resize)

    @pytest.mark.parametrize("grid", [28, 32])
    @pytest.mark.parametrize(
        "size", [Size(3840, 2160), Size(224, 168), Size(12_000, 12_000), Size(50, 30), Size(4032, 333)]
    )
    def test_agrees_on_ordinary_images(self, size: Size, grid: int) -> None:
        ours = smart_resize(size, grid=grid, min_pixels=4 * grid**2, max_pixels=1280 * grid**2)
        for resize in (transformers_resize, self.qwen):
            assert resize(size.height, size.width, grid, 4 * grid**2, 1280 * grid**2) == (ours.height, ours.width)

    @pytest.mark.parametrize(
        "size", [Size(1, 40_000), Size(40_000, 1), Size(1, 1), Size(40_000, 40_000), Size(200, 40_000)]
    )
    def test_every_shape_has_a_view(self, size: Size) -> None:
        shown = smart_resize(size, grid=28, min_pixels=3136, max_pixels=12_845_056)
        assert transformers_resize(shown.height, shown.width, 28, 3136, 12_845_056) == (shown.height, shown.width)

    @given(sizes, st.integers(28, 150), grids)
    @settings(deadline=None, max_examples=80)
    def test_a_processor_enlarges_nothing_however_small_the_largest_area(
        self, size: Size, side: int, grid: int
    ) -> None:
        least = 4 * grid**2
        shown = smart_resize(size, grid=grid, min_pixels=least, max_pixels=max(least, side**2))
        fixed = (shown.height, shown.width)
        assert transformers_resize(*fixed, grid, least, 1280 * grid**2) == fixed
        assert least <= shown.area <= 4 * max(least, side**2)

    @pytest.mark.parametrize(("low", "high"), [(0, 10_000), (20_000, 10_000), (1, 783)])
    def test_impossible_limits_are_refused(self, low: int, high: int) -> None:
        with pytest.raises(ValueError, match="pixel limits"):
            smart_resize(Size(100, 100), grid=28, min_pixels=low, max_pixels=high)


def test_box_arithmetic() -> None:
    box, other = Box(0, 0, 10, 10), Box(5, 5, 15, 25)
    assert (box.width, box.height, box.area, box.center) == (10, 10, 100, (5, 5))
    assert box.intersection(other) == other.intersection(box) == 25
    assert box.coverage(other) == 25 / 200 and other.coverage(box) == 0.25
    assert box.intersection(Box(20, 0, 30, 10)) == 0 and box.coverage(Box(1, 1, 1, 5)) == 0
    assert box.scaled(2) == Box(-5, -5, 15, 15) and box.scaled(2).clipped(Size(12, 8)) == Box(0, 0, 12, 8)


def test_the_scale_is_that_of_the_sharper_axis() -> None:
    assert View(Size(400, 400), Box(0, 0, 100, 50), Size(56, 56)).scale == 56 / 50
    assert View(Size(400, 400), Box(0, 0, 50, 100), Size(28, 84)).scale == 84 / 100


def test_sizes_below_one_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 x 1, not 0 x 5"):
        Size(0, 5)
