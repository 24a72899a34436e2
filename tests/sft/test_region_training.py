"""Both stages of learning regions, on a tiny real model: what is shown, where the loss falls, and what moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cof_agent import protocol
from cof_agent.backends.families import QWEN2_5_VL
from cof_agent.backends.regions.features import SLOT, with_regions
from cof_agent.data.unusable import Unusable
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Sample, Zoom, to_json
from sft.nano.curriculum import nano_environment
from sft.papers.gpt4roi import DrawnRows, RegionCollator, SampleRows, main, parse, row_of

CONFIG = str(Path(__file__).parents[2] / "sft" / "configs" / "nano-regions.yaml")
SHORT = (
    "--samples 6 --per_device_train_batch_size 3 --dataloader_num_workers 0 --dataloader_prefetch_factor None "
    "--logging_steps 1"
)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)).save(tmp_path / "noise.png")
    regions = (Box(64, 36, 128, 108), Box(320, 180, 640, 360))
    rounds = {"rounds": [["And <region2>?", "a dog"]]}
    return Sample(
        "one", str(tmp_path / "noise.png"), "What is <region1>?", ("a cat",), metadata=rounds, regions=regions
    )


def texts(row: dict[str, Any]) -> list[str]:
    return [part["text"] for message in row["messages"] for part in message["content"] if part["type"] == "text"]


def test_a_row_holds_all_rounds_with_a_box_for_each_slot(sample: Sample) -> None:
    environment = ZoomEnvironment()
    view = environment.reset(sample)
    image = environment.image(sample, view)
    made = row_of([sample], view, image, CoordinateSystem.ABSOLUTE, as_text=False)
    assert [message["role"] for message in made["messages"]] == ["system", *["user", "assistant"] * 2]
    assert texts(made)[1] == f"What is region 1{SLOT}?" and texts(made)[3] == f"And region 2{SLOT}?"
    scale = view.shown_size.width / 640
    assert made["regions"][1] == pytest.approx([320 * scale, 180 * view.shown_size.height / 360, *image.size], abs=1)
    words = row_of([sample], view, image, CoordinateSystem.ABSOLUTE, as_text=True)
    assert "region 1 at [" in texts(words)[1] and words["regions"] == []
    chosen = replace(sample, choices=("a cat", "<|im_end|>"))
    asked = texts(row_of([chosen], view, image, CoordinateSystem.ABSOLUTE, as_text=False))[1]
    assert asked.startswith(f"What is region 1{SLOT}?\nA. a cat\nB. ") and "<|im_end|>" not in asked


def test_drawn_rows_are_the_same_each_time_and_their_boxes_lie_in_the_image() -> None:
    rows = DrawnRows(nano_environment(), 3, 2, as_text=False)
    first, again = rows.row(0), rows.row(0)
    assert first["messages"] == again["messages"] and first["regions"] == again["regions"]
    assert first["messages"] != rows.row(1)["messages"]
    (image,) = first["images"]
    assert image.size == (448, 252) and sum(text.count(SLOT) for text in texts(first)) == len(first["regions"])
    for x0, y0, x1, y1 in first["regions"]:
        assert 0 <= x0 < x1 <= 448 and 0 <= y0 < y1 <= 252


def test_any_kind_of_question_comes_first_and_a_region_is_shown_by_a_zoom_into_it() -> None:
    rows = DrawnRows(nano_environment(), 3, 24, as_text=False)
    first = {text.split()[0] + text[-1] for index in range(24) for text in [texts(rows.row(index))[1]]}
    assert first == {"What?", "Which?", "Show."}
    boxes = iter((row := rows.row(0))["regions"])
    for asked, replied in zip(texts(row)[1::2], texts(row)[2::2], strict=True):
        named = [next(boxes) for _ in range(asked.count(SLOT))]
        (action,) = protocol.parse(replied)
        assert isinstance(action, Zoom) == asked.startswith("Show")
        if isinstance(action, Zoom):
            assert Box(*action.box).coverage(Box(*named[0])) > 0.8


def test_the_agents_conversations_zoom_into_the_regions_they_name(checkpoint: Callable[[str], Path]) -> None:
    rows = DrawnRows(nano_environment(), 3, 8, as_text=False, zooming=1.0)
    made = [rows.row(index) for index in range(len(rows))]
    assert any("image_zoom_in_tool" in text for row in made for text in texts(row)[2:])
    assert all(sum(text.count(SLOT) for text in texts(row)) == len(row["regions"]) > 0 for row in made)
    assert all(" at [" not in text.split("?")[0] for row in made for text in texts(row)[1::2])
    _, processor = with_regions(str(checkpoint("qwen2_5_vl")), dtype=torch.float32)
    batch = RegionCollator(processor, QWEN2_5_VL.markers)(made)
    first = [sum(len(row["images"]) for row in made[:index]) for index in range(len(made))]
    assert batch["regions"][:, 0].tolist() == [
        float(at) for at, row in zip(first, made, strict=True) for _ in row["regions"]
    ]


def test_a_batch_carries_the_boxes_and_its_loss_falls_on_answers(checkpoint: Callable[[str], Path]) -> None:
    model, processor = with_regions(str(checkpoint("qwen2_5_vl")), dtype=torch.float32)
    rows = DrawnRows(nano_environment(), 3, 2, as_text=False)
    made = [rows.row(0), rows.row(1)]
    batch = RegionCollator(processor, QWEN2_5_VL.markers)(made)
    counts = [len(row["regions"]) for row in made]
    assert batch["regions"][:, 0].tolist() == [0.0] * counts[0] + [1.0] * counts[1]
    slots = batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids(SLOT)
    assert slots.sum(1).tolist() == counts
    trained = batch["labels"] != -100
    assert not (trained & slots).any()
    said = processor.tokenizer.decode(batch["input_ids"][0][trained[0]])
    assert said.startswith("<think>") and "What is" not in said
    assert torch.isfinite(model(**batch).loss)


def test_a_sample_without_an_answer_or_an_image_is_left_out(sample: Sample, tmp_path: Path) -> None:

    gone = replace(sample, id="two", image=str(tmp_path / "gone.png"))
    rows = SampleRows([replace(sample, answers=()), gone], nano_environment(), as_text=False)
    for index, why in enumerate(("no answer", "gone.png")):
        with pytest.raises(Unusable, match=why):
            rows.outline(index)


def trained(tmp_path: Path, name: str, *more: str) -> dict[str, torch.Tensor]:
    main(["--config", CONFIG, *SHORT.split(), "--output_dir", str(tmp_path / name), "--threads", "1", *more])
    return load_file(tmp_path / name / "model.safetensors")


@pytest.mark.slow
def test_each_stage_trains_what_it_is_to_train(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = load_file(checkpoint("qwen2_5_vl") / "model.safetensors")
    first = trained(tmp_path, "one", "--model_name_or_path", str(checkpoint("qwen2_5_vl")))
    untouched = [name for name in start if "embed_tokens" not in name]  # which has one more row
    assert untouched and all(torch.equal(first[name].float(), start[name].float()) for name in untouched)
    second = trained(tmp_path, "two", "--stage", "2", "--model_name_or_path", str(tmp_path / "one"))
    moved = {name for name in second if not torch.equal(second[name].float(), first[name].float())}
    assert not any("visual" in name and "merger" not in name for name in moved)
    assert any("region_extractor" in name for name in moved) and any("self_attn" in name for name in moved)
    assert any("merger" in name for name in moved)
    assert "s/step" in capsys.readouterr().out  # the progress


WRONG = [
    (["--stage", "3"], "stage must be 1 or 2, not 3"),
    (["--as_text", "true"], "as_text has no extractor to train alone"),
    (["--samples", "0"], "say how many with --samples"),
    (["--use_peft", "true"], "leave use_peft out"),
    (["--freeze_vision", "false"], "leave freeze_vision out"),
    (["--enlarge", "2"], "enlarge has no effect"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_settings_that_make_no_sense_are_one_sentence(options: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse(["--config", CONFIG, *options])


def test_data_of_which_nothing_can_be_used_is_one_sentence(
    checkpoint: Callable[[str], Path], sample: Sample, tmp_path: Path
) -> None:

    write_atomic(tmp_path / "samples.jsonl", to_json(replace(sample, answers=())) + "\n")
    options = ["--data", str(tmp_path), "--model_name_or_path", str(checkpoint("qwen2_5_vl"))]
    with pytest.raises(InputError, match="can be trained on; one: no answer"):
        main(["--config", CONFIG, *options, "--output_dir", str(tmp_path / "out")])
