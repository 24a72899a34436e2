"""Scenes are the same for a seed, their ground truth is where it is drawn, and the oracle zooms as much as is needed."""

import hashlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cof_agent import protocol, scoring
from cof_agent.cli import main
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import episodes
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits, Size, View
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import photograph, sketch
from cof_agent.scenes.questions import CATEGORIES, ask
from cof_agent.scenes.scene import COLOURS, HARD, HELD_OUT, Style, generate, part_of
from cof_agent.scenes.write import scene_of, write_scenes
from cof_agent.trajectory import Sample, StopReason, read_jsonl
from tests.scenes.dealt import FULL, overview, samples

NANO_LIMITS = PixelLimits(28, 56 * 56, 448 * 252, 168 * 168)
SMALL = Style(size=Size(960, 540), count=(4, 8), side=(0.06, 0.12))


def test_a_seed_gives_the_same_scene_and_other_seeds_and_splits_give_others() -> None:
    assert generate("a", Style()) == generate("a", Style())
    assert generate("a", Style()) != generate("b", Style())
    assert scene_of("test", 0, 1, Style()) != scene_of("val", 0, 1, Style())


def test_the_pixels_of_a_seed_never_change() -> None:
    pixels = photograph(generate("fixed", Style(size=Size(320, 180)))).tobytes()
    # A change here makes every published figure on scenes incomparable with the ones before.
    assert hashlib.sha256(pixels).hexdigest() == "cbd10ce547ed193e17d240b49a1dd8f42e0ceecd2cb1d035654462baabc75848"


def test_objects_are_drawn_where_the_truth_says_in_their_colour() -> None:
    scene = generate("place", SMALL)
    pixels = np.asarray(photograph(scene), int)
    for item in scene.items:
        if item.shape == "circle" and not item.sign:
            x = item.x - round(item.side * 0.42)  # inside the disc, beside the label
            shade = pixels[item.y, x] / pixels[item.y, x].max()
            wanted = np.array(COLOURS[item.colour]) / max(COLOURS[item.colour])
            assert np.abs(shade - wanted).max() < 0.25, item


def test_a_sketch_looks_like_the_resized_photograph() -> None:
    scene = generate("alike", SMALL)
    region, shown = Box(0, 0, 960, 540), Size(448, 252)
    real = np.asarray(photograph(scene).resize((448, 252), 3), float)
    quick = np.asarray(sketch(scene, region, shown), float)
    assert np.abs(real - quick).mean() < 3


def test_objects_do_not_touch_and_pairs_are_distinct() -> None:
    for seed in range(30):
        items = generate(str(seed), Style()).items
        assert len({(item.colour, item.shape) for item in items}) == len(items) >= 1
        for k, item in enumerate(items):
            assert all(item.box.intersection(other.box) == 0 for other in items[k + 1 :])


def test_training_never_shows_the_pairs_kept_for_hard() -> None:
    seen = {(i.colour, i.shape) for seed in range(60) for i in generate(str(seed), Style()).items}
    hard = {(i.colour, i.shape) for seed in range(60) for i in generate(str(seed), HARD).items}
    assert not seen & set(HELD_OUT)
    assert set(HELD_OUT) <= hard


@pytest.mark.parametrize("category", CATEGORIES)
def test_questions_are_answerable_and_have_plausible_options(category: str) -> None:
    random = Random(0)
    for seed in range(20):
        scene = generate(f"q{seed}", Style())
        question = ask(scene, category, random)
        if question is None:
            continue
        assert question.category == category
        assert question.answer not in question.options
        assert len(question.options) >= 1
        assert question.text.endswith("?")


def test_relative_position_is_true() -> None:
    for sample in samples("test", 60):
        if sample.metadata["kind"] == "across":
            (x0, _), (x1, _) = (box.center for box in sample.boxes)
            assert sample.answers[0] == ("left" if x0 < x1 else "right")
        if sample.metadata["kind"] == "down":
            (_, y0), (_, y1) = (box.center for box in sample.boxes)
            assert sample.answers[0] == ("above" if y0 < y1 else "below")


@pytest.mark.parametrize("system", list(CoordinateSystem))
def test_the_oracle_sees_every_detail_in_the_wire_format(system: CoordinateSystem) -> None:
    environment = ZoomEnvironment(ZoomSettings(system=system, limits=NANO_LIMITS))
    zooms = []
    for sample in samples("test", 60):
        trajectory = oracle.play(sample, overview(), environment)
        assert trajectory.stop is StopReason.ANSWERED
        assert scoring.accuracy(trajectory)
        assert scoring.well_formed(trajectory)
        assert oracle.is_solvable(trajectory), sample
        assert scoring.target_hits(trajectory) in (True, None)
        zooms.append(trajectory.zooms)
    assert {0, 1, 2} <= set(zooms)


def test_nested_signs_need_two_zooms_and_the_second_names_the_first_crop() -> None:
    environment = ZoomEnvironment(ZoomSettings(limits=NANO_LIMITS))
    nested = [sample for sample in samples("test", 30) if sample.metadata["category"] == "nested"]
    for sample in nested:
        trajectory = oracle.play(sample, overview(), environment)
        assert trajectory.zooms == 2
        assert [action.image for turn in trajectory.turns for action in turn.actions if action.kind == "zoom"] == [0, 1]


def test_hard_objects_can_be_solved_too() -> None:
    environment = ZoomEnvironment(ZoomSettings(limits=NANO_LIMITS))
    solved = [oracle.is_solvable(oracle.play(s, overview(), environment)) for s in samples("hard", 45)]
    assert sum(solved) >= 43


def test_a_large_overview_needs_no_zoom() -> None:
    environment = ZoomEnvironment(ZoomSettings(limits=PixelLimits(28, 3136, 16_000_000, 4_000_000)))
    full = View(FULL, Box(0, 0, 3840, 2160), FULL)
    for sample in samples("test", 12):
        assert oracle.play(sample, full, environment).zooms == 0


@pytest.mark.slow
def test_written_scenes_are_complete_and_the_same_command_keeps_them(tmp_path: Path) -> None:
    path = write_scenes(tmp_path, count=3, seed=1, size=Size(448, 252), split="test")
    first = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "images").iterdir()}
    read = list(read_jsonl(path, Sample))
    assert [sample.metadata["category"] for sample in read] == list(CATEGORIES)
    for sample in read:
        assert (tmp_path / sample.image).exists()
        assert not sample.choices or sample.answers[0] in sample.choices
        for box in sample.boxes:
            assert 0 <= box.x0 < box.x1 <= 448
            assert 0 <= box.y0 < box.y1 <= 252
    write_scenes(tmp_path, count=3, seed=1, size=Size(448, 252), split="test")
    assert first == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "images").iterdir()}


def test_only_scenes_of_some_categories_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, Any] = {"seed": 1, "size": Size(224, 126), "split": "test", "parts": (0.2,)}
    every = {sample.id: sample for sample in read_jsonl(write_scenes(tmp_path / "all", count=6, **small), Sample)}
    path = write_scenes(tmp_path / "some", count=4, categories=("nested", "direct_attributes"), **small)
    some = list(read_jsonl(path, Sample))
    assert [sample.metadata["category"] for sample in some] == ["direct_attributes", "nested"] * 2
    assert all(every[sample.id] == sample for sample in some)

    settings = tmp_path / "all" / "scenes.json"
    settings.write_text(settings.read_text().replace('"categories"', '"of an older version"'))
    write_scenes(tmp_path / "all", count=6, **small)
    with pytest.raises(InputError, match="holds other scenes"):
        write_scenes(tmp_path / "all", count=6, categories=("nested",), **small)
    assert main(["scenes", "-o", str(tmp_path / "none"), "--categories", "nested,colour"]) == 2
    assert "and not 'colour'" in capsys.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.slow
def test_scenes_are_written_at_several_resolutions(tmp_path: Path) -> None:
    whole = write_scenes(tmp_path / "whole", count=2, seed=1, size=Size(640, 360), split="test")
    path = write_scenes(tmp_path / "each", count=2, seed=1, size=Size(1280, 720), split="test", resolutions=(320, 640))
    found = list(read_jsonl(path, Sample))
    assert [sample.id for sample in found] == [f"test-1-0000{k}@{side}" for k in (0, 1) for side in (320, 640)]
    for small, large, alone in zip(found[::2], found[1::2], read_jsonl(whole, Sample), strict=True):
        assert (tmp_path / "each" / large.image).read_bytes() == (tmp_path / "whole" / alone.image).read_bytes()
        assert (large.question, large.choices, large.boxes) == (alone.question, alone.choices, alone.boxes)
        assert (small.question, small.choices, small.answers) == (large.question, large.choices, large.answers)
        assert small.boxes[0].width == pytest.approx(large.boxes[0].width / 2)
        with Image.open(tmp_path / "each" / small.image) as image:
            assert image.size == (320, 180)
    with pytest.raises(InputError, match="leave --resolutions out"):
        episodes(found, resolutions=[448])


def test_several_processes_write_what_one_does(tmp_path: Path) -> None:
    for folder, processes in (("one", 1), ("two", 2)):
        options = {"size": Size(224, 126), "split": "test", "parts": (0.2,)}  # a small part is soon drawn
        write_scenes(tmp_path / folder, count=9, seed=1, processes=processes, **options)  # type: ignore[arg-type]
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / n).rglob("*") if f.is_file()} for n in ("one", "two"))
    assert one == two
    assert len(one) == 11  # samples.jsonl and scenes.json among them


def test_a_part_of_a_scene_shows_the_same_things_larger(tmp_path: Path) -> None:
    whole, part = (generate("key", part_of(Style(), share)) for share in (1, 0.5))
    assert part.size == Size(1920, 1080) and whole == generate("key", Style())
    sides = [item.box.width for item in part.items]
    assert Style().side[0] * 3840 <= min(sides) and max(sides) <= Style().side[1] * 3840 * 1.01
    path = write_scenes(tmp_path, count=4, seed=1, size=Size(448, 252), split="test", parts=(0.2, 0.4))
    sizes = set()
    for sample in read_jsonl(path, Sample):
        with Image.open(tmp_path / sample.image) as image:
            sizes.add(image.size)
            assert all(box.x1 <= image.width and box.y1 <= image.height for box in sample.boxes)
    assert sizes == {(90, 50), (179, 101)}
    write_scenes(
        tmp_path, count=4, seed=1, size=Size(179, 101), split="test", parts=(0.5,), overwrite=True
    )  # 90 x 50, but other pictures
    assert len(list((tmp_path / "images").glob("*-90x50.png"))) > 4


def test_scenes_without_anything_to_ask_are_refused() -> None:
    with pytest.raises(InputError, match="larger objects"):
        scene_of("test", 0, 2, Style(signs=0.0))


def test_right_options_are_shuffled() -> None:
    places = {s.choices.index(s.answers[0]) for s in samples("test", 90) if len(s.choices) == 4}
    assert places == {0, 1, 2, 3}


def test_the_question_hides_the_answer() -> None:
    for sample in samples("test", 30):
        if sample.metadata["kind"] in ("label", "sign"):
            assert sample.answers[0] not in sample.question
            assert protocol.question_text(sample).startswith(sample.question)


def test_a_resolution_beyond_what_is_drawn_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "-o", str(tmp_path / "out"), "--resolutions", "448,15361"]) == 2
    assert "at most 15360 pixels on the long side" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_scenes_are_put_into_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="holds the results of another command"):
        write_scenes(tmp_path, count=1, seed=1, size=Size(224, 126), split="test")
    assert [one.name for one in tmp_path.iterdir()] == ["trajectories.jsonl"]
