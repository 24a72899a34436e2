"""The annotated picture, from drawn images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source
from cof_agent.trajectory import Observation, Sample, StopReason, Trajectory
from cof_agent.viewer.notebook import notebook_html
from cof_agent.viewer.picture import PALETTE, annotate, seen, undrawn
from cof_agent.viewer.report import write_page
from tests.viewer.drawn import FIELD, PATCH, TARGET, crop, is_close, overview, trajectory, turn, zoom


def _extent(picture: Image.Image, ink: str, inside: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """Where exactly that colour stands within a part of the picture, as edges in the picture's pixels."""
    part = picture.crop(inside)
    mask = Image.new("L", part.size)
    mask.putdata([255 if pixel == ImageColor.getrgb(ink) else 0 for pixel in part.get_flattened_data()])
    found = mask.getbbox()
    return (
        None
        if found is None
        else (found[0] + inside[0], found[1] + inside[1], found[2] + inside[0], found[3] + inside[1])
    )


def test_annotate_draws_the_boxes_where_they_belong(image: Path) -> None:
    first, second = Box(560, 120, 760, 320), Box(100, 200, 180, 280)
    done = trajectory(image, zoom(crop(first)), zoom(crop(second)))
    picture = annotate(done, open_source(image), long_side=800)
    left, top = _extent(picture, FIELD, (0, 0, 600, picture.height))[:2]  # type: ignore[index]
    for ink, box in zip(PALETTE, (first, second), strict=False):
        # Below the number, so that its square does not count.
        near = (round(left + box.x0 - 9), round(top + box.y0 + 5), round(left + box.x1 + 9), round(top + box.y1 + 9))
        found = _extent(picture, ink, near)
        assert found is not None
        expected = (left + box.x0, None, left + box.x1, top + box.y1)
        assert all(e is None or 0 <= abs(f - e) <= 4 for f, e in zip(found, expected, strict=True))
        middle = (round(left + box.x0 + 40), round(top + box.y0 + 60))
        assert is_close(picture.getpixel(middle), FIELD), "the inside of a box is left as it is"


def test_annotate_puts_the_crops_beside_in_full_resolution(image: Path) -> None:
    picture = annotate(trajectory(image, zoom(crop(TARGET))), open_source(image), long_side=800)
    frame = _extent(picture, PALETTE[0], (830, 0, picture.width, picture.height))
    assert frame is not None
    x0, y0, x1, y1 = frame
    assert x1 - x0 > 200 and abs((x1 - x0) - (y1 - y0)) <= 2
    assert all(is_close(picture.getpixel(at), PATCH) for at in ((x1 - 9, y0 + 9), (x0 + 9, y1 - 9), (x1 - 9, y1 - 9)))


def test_annotate_takes_any_trajectory(image: Path, tmp_path: Path) -> None:
    source = open_source(image)
    bare = Trajectory(Sample("x", str(image), ""), None, (), StopReason.ERROR, error="no")
    assert annotate(bare, source).mode == "RGB"
    many = [zoom(crop(Box(x, 10, x + 20, 390))) for x in range(0, 600, 25)]
    crowded = annotate(trajectory(image, *many, question="word " * 500, choices=("a\nb", "c" * 900)), source)
    assert crowded.width < 6000
    Image.new("RGB", (1, 3000), "red").save(strip := tmp_path / "strip.png")
    thin = Trajectory(
        Sample("x", str(strip), "图" * 400),
        overview(Size(1, 3000)),
        (turn("", Observation(view=crop(Box(0, 5, 1, 6), Size(1, 3000)))),),
        StopReason.TRUNCATED,
    )
    assert annotate(thin, open_source(strip)).height > 1600


@pytest.mark.parametrize("height", [40, 300])
@pytest.mark.parametrize("shape", [(3, 30), (30, 30), (32, 4)])
def test_crops_of_any_shape_are_seen_beside_an_overview_of_any_shape(
    tmp_path: Path, height: int, shape: tuple[int, int]
) -> None:
    size = Size(800, height)
    Image.new("RGB", (size.width, size.height), "teal").save(tmp_path / "wide.png")
    views = [crop(Box(20 * n, 0, 20 * n + shape[0], shape[1]), size) for n in range(12)]
    for count in (1, 3, 12):
        made = replace(trajectory(tmp_path / "wide.png", *map(zoom, views[:count])), overview=overview(size))
        picture = seen(made, open_source(tmp_path / "wide.png"), long_side=400)
        for number in (1, count):
            frame = _extent(picture, PALETTE[(number - 1) % 8], (410, 0, picture.width, picture.height))
            assert frame is not None and frame[2] - frame[0] >= 50


def test_letters_that_a_font_lacks_are_named(image: Path) -> None:
    assert undrawn(trajectory(image, question="What is 7K on it?")) == ""
    assert undrawn(trajectory(image, question="标志 A?", answer="停止")) == "标志停止"


def test_a_picture_without_words_is_the_middle_of_the_one_with_them(image: Path) -> None:
    done = trajectory(image, zoom(crop(TARGET)))
    bare, whole = seen(done, open_source(image), long_side=800), annotate(done, open_source(image), long_side=800)
    assert bare.getpixel((bare.width - 1, 0)) == ImageColor.getrgb(PALETTE[0]), "the crop's frame begins at the top"
    rows = whole.height - bare.height
    assert bare.tobytes() in {
        whole.crop((20, top, 20 + bare.width, top + bare.height)).tobytes() for top in range(rows)
    }


def test_pictures_are_as_large_as_the_run_allowed(tmp_path: Path) -> None:
    """What a run saw with a raised limit, its page, its gallery and a notebook show too."""
    path = tmp_path / "large.png"
    Image.new("RGB", (300, 200), "red").save(path)
    whole = View(Size(300, 200), Box(0, 0, 300, 200), Size(56, 28))
    made = Trajectory(Sample("a", str(path), "?"), whole, (), StopReason.ANSWERED, "red")
    for most, shown in ((10_000, False), (100_000, True)):
        run = replace(made, settings={"max_source_pixels": most})
        assert ("more than the limit" not in notebook_html(run)) is shown
        write_page([run], tmp_path / "page.html", title="t", score=lambda _: None)
        assert ("more than the limit" not in (tmp_path / "page.html").read_text("utf-8")) is shown


def test_each_number_is_seen_where_all_crops_show_the_whole_image(tmp_path: Path) -> None:
    size = Size(60, 40)
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "small.png")
    views = [crop(Box(0, 0, 60, 40), size) for _ in range(3)]
    made = replace(trajectory(tmp_path / "small.png", *map(zoom, views), boxes=()), overview=overview(size))
    picture = seen(made, open_source(tmp_path / "small.png"), long_side=600)
    for number in range(3):
        x0, y0, x1, y1 = _extent(picture, PALETTE[number], (0, 0, 600, 400)) or (0, 0, 0, 0)
        assert x1 - x0 >= 18 and y1 - y0 >= 18
