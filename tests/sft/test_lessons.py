"""The lessons that nano is made by: drawn rows, and what each step towards an answer is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cof_agent import protocol
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.scenes import oracle
from cof_agent.scenes.scene import FULL, SHAPES, Item, Scene, generate
from cof_agent.trajectory import Sample, Zoom
from sft.nano.curriculum import Plan, nano_environment, overview_of, row, style


@pytest.fixture(scope="module")
def nano(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen2_5_vl")


def contents(made: dict[str, Any]) -> Any:
    return made["messages"], [(picture.size, picture.tobytes()) for picture in made["images"]]


@pytest.mark.parametrize(
    "plan", [Plan(), Plan(whole=1, reading=0, listing=0), Plan(reading=1), Plan(reading=0, listing=1)]
)
def test_rows_depend_on_their_key_alone(plan: Plan) -> None:
    environment = nano_environment()
    first = contents(row(plan, environment, "k:1"))
    assert first == contents(row(plan, environment, "k:1"))
    assert first != contents(row(plan, environment, "k:2"))


def test_every_taught_turn_is_well_formed_and_boxes_lie_in_their_view() -> None:
    plan, environment = Plan(), nano_environment()
    zooms = 0
    for index in range(60):
        made = row(plan, environment, f"w:{index}")
        for message in made["messages"]:
            if message["role"] == "assistant":
                text = message["content"][0]["text"]
                assert protocol.well_formed(text)
                for action in protocol.parse(text):
                    if isinstance(action, Zoom):
                        zooms += 1
                        size = made["images"][action.image].size
                        assert 0 <= action.box[0] < action.box[2] <= size[0]
                        assert 0 <= action.box[1] < action.box[3] <= size[1]
    assert zooms > 40


def test_no_object_is_asked_about_twice_in_a_row() -> None:
    """What one question names, another must not make the model look for."""
    plan, environment = Plan(whole=0.0, reading=0.0, listing=0.0), nano_environment()
    for index in range(30):
        made = row(plan, environment, f"t:{index}")
        shown = [m["content"][-1]["text"] for m in made["messages"] if m["role"] == "user"]
        names = [text.removeprefix("Show the ").removesuffix(".") for text in shown if text.startswith("Show")]
        assert len(names) == len(set(names))


def test_a_share_of_the_drill_asks_what_is_written() -> None:
    environment = nano_environment()

    def asked(written: float) -> list[str]:
        plan = Plan(whole=0.0, reading=0.0, listing=0.0, written=written)
        made = [row(plan, environment, f"l:{index}") for index in range(20)]
        return [m["content"][-1]["text"] for one in made for m in one["messages"] if m["role"] == "user"]

    shares = [
        sum("written on" in text or "the sign on" in text for text in some) / len(some)
        for some in map(asked, (0.0, 0.5, 1.0))
    ]
    assert shares[0] < 0.2 < shares[1] < 0.8 < shares[2] == 1.0


def test_a_full_scene_is_shown_in_training_as_the_environment_shows_it() -> None:
    scene = generate("same", style(1.0))
    assert overview_of(scene) == nano_environment().overview(scene.size)


@pytest.mark.parametrize("long_side", [224, 448, 896])
def test_overviews_of_other_sizes_are_those_of_the_environment(long_side: int, tmp_path: Path) -> None:
    scene = generate("same", style(1.0))
    picture = tmp_path / "full.png"
    Image.new("RGB", (scene.size.width, scene.size.height)).save(picture)
    sample = Sample("full", str(picture), "?")
    assert overview_of(scene, long_side) == nano_environment().at(long_side).reset(sample)


def test_conversations_are_shown_at_the_sizes_of_the_plan() -> None:
    plan, environment = Plan(whole=1.0, reading=0, listing=0, simple=0, long_sides=(224, 896)), nano_environment()
    sizes = {row(plan, environment, f"s:{index}")["images"][0].size for index in range(8)}
    assert sizes == {(224, 112), (896, 504)}


@pytest.mark.parametrize("kind", ["text", "piece", "crop", "overview"])
def test_vision_targets_lie_on_the_objects(kind: str) -> None:
    """Drawn the other way round: what the patch at an object's centre is asked for is that object."""
    from sft.nano.vision import CHARACTERS, COLOUR_NAMES, KINDS, PATCH, UNASKED, lesson, merged_order, targets_of

    environment = nano_environment()
    for index in range(8):
        scene, view = lesson(kind, str(index), environment)
        targets = targets_of(scene, view)
        rows, columns = view.shown_size.height // PATCH, view.shown_size.width // PATCH
        place = {
            int(patch): k for k, patch in enumerate(merged_order(np.arange(rows * columns).reshape(rows, columns)))
        }
        assert len(targets.present) == rows * columns
        for item in scene.items:
            box = view.from_source(item.box, CoordinateSystem.ABSOLUTE)
            x, y = (int(value // PATCH) for value in box.center)
            if not (0 <= x < columns and 0 <= y < rows) or item.sign:
                continue
            patch = place[y * columns + x]
            assert targets.present[patch] == 1
            if box.width > 2 * PATCH:  # smaller ones may share a patch
                assert COLOUR_NAMES[targets.colour[patch]] == item.colour
                assert KINDS[targets.kind[patch]] == item.shape
                assert (targets.place[patch, :2].abs() <= 0.5).all()
                written = {CHARACTERS.index(character) for character in item.label}
                assert targets.character[patch].item() in written | {UNASKED, len(CHARACTERS)}


def test_characters_are_asked_for_from_left_to_right() -> None:
    from sft.nano.vision import CHARACTERS, merged_order, targets_of

    item = Item("red", "square", 500, 500, 300, "A7")
    scene = Scene(Size(1000, 1000), "s", 0, (item,))
    view = View(scene.size, Box(332, 332, 668, 668), Size(168, 168))
    grid = np.empty(144, np.int64)
    grid[merged_order(np.arange(144).reshape(12, 12))] = targets_of(scene, view).character.numpy()
    middle = grid.reshape(12, 12)[5]
    text = "".join(CHARACTERS[code] for code in middle if code < len(CHARACTERS))
    assert "".join(dict.fromkeys(text)) == "A7"


def test_patches_are_those_of_the_image_processor() -> None:
    from transformers import AutoImageProcessor

    from cof_agent.nano import WEIGHTS
    from sft.nano.vision import patches_of

    image = Image.effect_noise((56, 84), 80).convert("RGB")
    expected = AutoImageProcessor.from_pretrained(WEIGHTS)(images=[image], return_tensors="pt", do_resize=False)
    assert (patches_of(image) - expected["pixel_values"]).abs().max() < 1e-6


def test_lists_say_where_nouns_coordinates_and_objects_stand(nano: Path) -> None:
    from cof_agent.backends.local.processor import load_processor
    from sft.nano.ground import ASKED, RASTER, Lessons

    processor: Any = load_processor(str(nano))
    batch, *_ = next(iter(Lessons(processor, 1, 4)))
    assert batch is not None
    words = processor.tokenizer.decode
    assert (batch.ids[:, batch.image] == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).all()
    assert len(batch.patches) == 4 * batch.places.shape[1] * len(batch.ids)
    for k, image in enumerate(batch.rows):
        ids = batch.ids[image]
        assert words(ids[batch.nouns[k]]).strip() in SHAPES
        written = [int(words(ids[place + 1])) for place in batch.before[k]]
        assert written == [RASTER[step] for step in batch.boxes[k]]
        assert (batch.labels[image][batch.before[k] + 1] == ids[batch.before[k] + 1]).all()
        assert batch.places[k].any()
    tokens = batch.numbers.view(len(batch.ids), -1, len(ASKED))
    found = [
        bool((tokens[image][batch.places[k]][:, 2:] == batch.boxes[k]).all(1).any())
        for k, image in enumerate(batch.rows)
    ]
    assert sum(found) >= 0.9 * len(found)  # another object may share all tokens of one


def test_a_scene_of_fewer_pixels_looks_the_same_and_its_crops_hold_less() -> None:
    plan = Plan(whole=1.0, reading=0.0, listing=0.0, simple=0.0)
    full_crops, half_crops = [], []
    for key in map(str, range(4)):
        full, half = (row(replace(plan, sources=(share,)), nano_environment(), key) for share in (1.0, 0.5))
        assert full == row(plan, nano_environment(), key)
        said = [[message["content"][-1]["text"] for message in made["messages"]] for made in (full, half)]
        assert said[0][1] == said[1][1] and full["images"][0].size == half["images"][0].size  # question, overview
        apart = np.abs(np.subtract(*(np.asarray(made["images"][0], float) for made in (full, half))))
        assert apart.mean() < 12
        full_crops += [max(image.size) for image in full["images"][1:]]
        half_crops += [max(image.size) for image in half["images"][1:]]
    assert np.mean(full_crops) > np.mean(half_crops)


@pytest.mark.parametrize("part", [1.0, 0.2])
def test_lessons_in_pointing_say_where_the_sign_is(nano: Path, part: float) -> None:
    from cof_agent.backends.local.processor import load_processor
    from sft.nano import sign_pointing as closer

    processor: Any = load_processor(str(nano))
    batch = closer.lesson(processor, "key", nano_environment(), part)
    ids, decode = batch.inputs["input_ids"], processor.tokenizer.decode
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for k in range(closer.CONVERSATIONS):
        assert decode(ids[k, batch.nouns[k]]).strip() in (("sign",) if part == 1 else SHAPES)
        crop = batch.crops[k][batch.crops[k] >= 0]
        assert (ids[k, crop] == image).all() and (ids[k, : int(crop[0]) - 1] == image).any() == (part == 1)
        assert (batch.labels[k, batch.before[k] + 1] != -100).all()
        # The box that is asked for covers the tokens on which the sign is said to be.
        grid = batch.inputs["image_grid_thw"][2 * k + 1 if part == 1 else k]
        columns = int(grid[2]) // 2
        x0, y0, x1, y1 = (int(decode(ids[k, at + 1])) for at in batch.before[k])
        for place in batch.places[k].nonzero().flatten().tolist():
            x, y = place % columns * 28, place // columns * 28
            assert x < x1 and x + 28 > x0 and y < y1 and y + 28 > y0
        assert batch.places[k].any()


@pytest.mark.parametrize("part", [1.0, 0.2])
def test_lessons_in_reading_say_where_the_characters_are(nano: Path, part: float) -> None:
    from cof_agent.backends.local.processor import load_processor
    from sft.nano import reading
    from sft.nano.vision import CHARACTERS

    processor: Any = load_processor(str(nano))
    batch = reading.lesson(processor, "key", nano_environment(), part)
    decode, tokens = processor.tokenizer.decode, batch.image.stop - batch.image.start
    shown = batch.shown.view(len(batch.ids), tokens, -1)
    for k, crop in enumerate(batch.rows):
        said = decode(batch.ids[crop, batch.before[k] + 1])
        there = shown[crop, batch.places[k]][:, CHARACTERS.index(said)]
        assert batch.places[k].any() and (there.all() or not there.any())  # none: too small to be told
        if part < 1:
            asked = decode(batch.ids[crop, batch.image.stop : batch.before[k]])
            assert decode(batch.ids[crop, batch.nouns[k]]).strip() in SHAPES and batch.nouns[k] < batch.before[k]
            assert f"{decode(batch.ids[crop, batch.nouns[k]]).strip()} can be seen" in asked
    assert len(batch.nouns) == (len(batch.rows) if part < 1 else 0)


def test_lessons_in_regions_say_what_a_question_names_and_whose_digits_follow(nano: Path) -> None:
    from cof_agent.backends.local.processor import load_processor
    from cof_agent.strategies.spot import protocol as spot
    from sft.nano import spotting

    processor: Any = load_processor(str(nano))
    batch = spotting.lesson(processor, "key", nano_environment())
    ids, decode = batch.inputs["input_ids"], processor.tokenizer.decode
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (ids[:, batch.image] == image).all() and batch.inputs["pixel_values"].shape[0] == 4 * (ids == image).sum()
    columns, overview = int(batch.inputs["image_grid_thw"][0, 2]) // 2, overview_of(generate("any", style(1.0)))
    for line, noun, there in zip(batch.rows, batch.nouns, batch.places, strict=True):
        assert decode(ids[line, noun]) in spotting.NOUNS and there.any()
        asked, reply = decode(ids[line, noun - 6 :]).split("<|im_start|>assistant\n")[:2]
        zoom = spot.read_region(reply, overview)
        assert isinstance(zoom, Zoom)
        box = overview.from_source(overview.to_source(Box(*zoom.box), spot.SYSTEM), CoordinateSystem.ABSOLUTE)
        for place in there.nonzero().flatten().tolist():
            x, y = place % columns * 28, place // columns * 28
            assert box.intersection(Box(x, y, x + 28, y + 28)) or "written" not in asked
    assert decode(ids[batch.lines, batch.before + 1]).replace(" ", "").isdecimal()
    for line, before, (first, last) in zip(batch.lines, batch.before, batch.asked, strict=True):
        assert decode(ids[line, last : before + 1]).count("assistant") == 1
        assert first == last or " or " in decode(ids[line, first:last])
        assert batch.labels[line, before + 1] == ids[line, before + 1]


@pytest.mark.slow
def test_nano_trains_from_a_random_start_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path for a few steps of few pictures: random start, vision and grounding stages, TRL, checkpoint, resume."""
    from sft.nano import ground, vision
    from sft.train import main

    monkeypatch.setattr(vision, "VIEWS", {"text": 4, "piece": 4, "crop": 2, "overview": 1})
    monkeypatch.setattr(ground, "IMAGES", 2)
    vision.train(tmp_path / "vision", steps=2, rate=1e-3, seed=1)
    assert (tmp_path / "vision" / "vision.json").exists()
    ground.train(tmp_path / "vision", tmp_path / "begun", steps=1, rate=1e-3, seed=1)
    ground.train(tmp_path / "begun", tmp_path / "parts", steps=1, rate=1e-3, seed=1, part=0.2)
    ground.train(tmp_path / "parts", tmp_path / "ground", steps=1, rate=1e-3, seed=1, spot=True)
    command = ["--config", "sft/configs/nano.yaml", "--model_name_or_path", str(tmp_path / "ground"), "--samples", "4"]
    command += ["--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "2", "--save_steps", "1"]
    main([*command, "--max_steps", "1"])
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
    main(command)
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_lessons_in_regions_say_which_slot_a_word_is_about() -> None:
    from cof_agent.backends.regions.features import with_regions
    from sft.nano.vision import CHARACTERS
    from sft.papers import region_lessons as regions

    model, processor = with_regions("nano", dtype=torch.float32, attn_implementation="eager")
    batch, words = regions.lesson(processor, "key"), regions.Words(processor.tokenizer)
    ids, decode = batch.inputs["input_ids"], processor.tokenizer.decode
    overview = nano_environment().overview(FULL)
    assert len(batch.slots) == len(batch.items) == len(batch.inputs["regions"])
    for item, (image, *box) in zip(batch.items, batch.inputs["regions"].tolist(), strict=True):
        shown = overview.from_source(item.box, CoordinateSystem.ABSOLUTE)
        assert tuple(box) == pytest.approx(tuple(shown), abs=1) and int(image) < regions.CONVERSATIONS
    items = dict(zip(batch.slots, batch.items, strict=True))
    for line, noun, slot in zip(batch.nouns.rows, batch.nouns.at, batch.nouns.to, strict=True):
        assert decode(ids[line, noun - 1 : noun + 1]) == f" {items[line, slot].colour} object"
    slots = dict(zip(zip(batch.nouns.rows, batch.nouns.at, strict=True), batch.nouns.to, strict=True))
    for line, before, noun in zip(batch.numbers.rows, batch.numbers.at, batch.numbers.to, strict=True):
        assert ids[line, before + 1] == ids[line, slots[line, noun] - 1]  # the number that stands before the slot
    assert len(batch.edges.at) == 4 * regions.ASKED * regions.CONVERSATIONS
    for number, (line, before, slot) in enumerate(zip(batch.edges.rows, batch.edges.at, batch.edges.to, strict=True)):
        edges = tuple(oracle.pointing_box(overview, items[line, slot].box, CoordinateSystem.ABSOLUTE))
        assert decode(ids[line, before + 1]) == f"{edges[number % 4]:g}"
    assert len(batch.letters.at) == len(batch.places) and all(any(place) for place in batch.places)
    assert set(decode(ids[batch.letters.rows, [at + 1 for at in batch.letters.at]]).replace(" ", "")) <= set(CHARACTERS)
    assert len(batch.grounds) == len(batch.slots) and all(any(place) for place in batch.grounds)
    loss, shares = regions.loss_of(model, words, batch)
    assert torch.isfinite(loss) and {"colour", "on slot", "on object", "number", "on char", "read", "edge"} <= set(
        shares
    )


def test_a_step_of_regions_keeps_up_the_rest_only_now_and_then(nano: Path) -> None:
    from cof_agent.backends.local.processor import load_processor
    from sft.nano.ground import Lessons

    steps = [(batch is None, crops is None) for batch, _, crops in Lessons(load_processor(str(nano)), 4, 1, spot=True)]
    assert steps == [(False, False), *[(True, True)] * 3]


def test_a_finished_stage_is_left_as_it_is_and_not_taken_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sft.nano.stage import is_finished

    record = tmp_path / "out" / "ground.json"
    assert not is_finished(record, {"seed": 7})
    record.parent.mkdir()
    record.write_text('{"seed": 7, "rate": 0.001}')
    assert is_finished(record, {"seed": 7, "rate": 0.001}) and "left as it is" in capsys.readouterr().out
    with pytest.raises(InputError, match="out was trained with seed 7 and not 8; name another output"):
        is_finished(record, {"seed": 8, "rate": 0.001})


def test_a_stage_goes_on_with_its_own_state_alone(tmp_path: Path) -> None:
    from sft.nano.stage import keep, restore

    path, part = tmp_path / "state.pt", torch.nn.Linear(2, 2)
    keep(path, 100, {"part": part}, {"seed": 7, "data": None})
    other = torch.nn.Linear(2, 2)
    assert restore(path, {"part": other}, {"seed": 7, "data": None}) == 100
    assert torch.equal(other.weight, part.weight)
    with pytest.raises(InputError, match="seed 7 and not 8"):
        restore(path, {"part": other}, {"seed": 8, "data": None})


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_with_the_lessons_that_come_next(nano: Path) -> None:
    from cof_agent.backends.regions.features import with_regions
    from sft.nano.ground import Lessons
    from sft.papers import region_lessons

    _, processor = with_regions(str(nano), dtype=torch.float32)
    whole, rest = (list(Lessons(processor, 3, 4, spot=True, start=start)) for start in (1, 2))
    assert len(whole) == 2 and torch.equal(whole[-1][1].inputs["input_ids"], rest[0][1].inputs["input_ids"])
    (second,) = region_lessons.Lessons(processor, 2, 4, start=1)
    alone = region_lessons.lesson(processor, "4:1")
    assert torch.equal(second[0].inputs["input_ids"], alone.inputs["input_ids"])
