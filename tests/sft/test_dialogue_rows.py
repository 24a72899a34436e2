"""Conversations of published sets, from file to batch: what is read, what is left out, and which tokens are trained on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from cof_agent.backends.families import QWEN2_5_VL
from cof_agent.backends.local.processor import load_processor
from cof_agent.data.dialogues import Dialogues
from cof_agent.data.source import Source
from cof_agent.data.unusable import Tally
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.image import open_source
from sft.collate import IGNORED, AssistantCollator
from sft.conversations.rows import Packed
from sft.dataset import Rows, read_rows
from sft.frame import Frame
from sft.measure import measure
from sft.settings import parse
from tests.sft import talks

QWEN25 = Frame(QWEN2_5_VL, 28, 3136, 123904)
ASK, SAY = {"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "red"}


@pytest.fixture(scope="module")
def processor(checkpoint: Callable[[str], Path]) -> Any:
    return load_processor(str(checkpoint("qwen2_5_vl")))


def png(size: tuple[int, int] = (112, 84), mode: str = "RGB", **options: Any) -> bytes:
    image = Image.effect_noise(size, 80).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, tally: Tally | None = None, **options: Any) -> Rows:
    return read_rows(Source(str(path), **options), QWEN25, tally, keep_images=path.parent / "kept")


def trained(processor: Any, rows: Rows, index: int = 0) -> str:
    """The words that the loss falls on."""
    labels = AssistantCollator(processor, QWEN2_5_VL.markers)([rows.row(index)])["labels"]
    return str(processor.tokenizer.decode(labels[labels != IGNORED]))


@pytest.mark.parametrize("layout", talks.LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_is_read_and_only_what_the_assistant_wrote_is_trained_on(
    layout: Callable[[Path], Path], tmp_path: Path, processor: Any
) -> None:
    tally = Tally()
    rows = read(layout(tmp_path), tally)
    assert (len(rows), tally.rows, tally.left_out) == (3, 3, [])
    measured = measure(rows, processor, QWEN25, None)
    assert measured.left_out == []
    for one, reply in zip(measured.kept, talks.REPLIES[layout.__name__], strict=True):
        batch = AssistantCollator(processor, QWEN2_5_VL.markers)([rows.row(one.index)])
        labels = batch["labels"][batch["labels"] != IGNORED]
        assert processor.tokenizer.decode(labels) == "".join(f"{text}<|im_end|>\n" for text in reply)
        assert (batch["input_ids"].shape[1], len(labels)) == (one.tokens, one.trained)
        assert (batch["input_ids"] == processor.image_token_id).sum() == one.image_tokens


def test_images_are_those_of_the_agent(tmp_path: Path) -> None:
    deep = Image.fromarray((np.linspace(0, 65535, 112 * 84).reshape(84, 112)).astype(np.uint16))
    deep.save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.effect_noise((140, 84), 80).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.new("RGBA", (112, 84), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    names = ["deep.png", "turned.jpg", "clear.png"]
    rows = read(written(tmp_path / "rows.jsonl", [{"messages": [ASK, SAY], "images": [name]} for name in names]))
    for index, name in enumerate(names):
        source = open_source(tmp_path / name)
        (image,) = rows.row(index)["images"]
        assert image.size == (source.size.width, source.size.height)
        assert image.tobytes() == source.crop(Box(0, 0, source.size.width, source.size.height)).tobytes()
    assert rows.row(1)["images"][0].size == (84, 140)


def test_damaged_images_are_left_out_before_training(tmp_path: Path) -> None:
    whole, jpeg = png(), io.BytesIO()
    Image.effect_noise((300, 200), 80).save(jpeg, "JPEG")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    images = [whole, whole[:-200], bytes(flipped), jpeg.getvalue()[:-900], b"\x89PNG\r\n\x1a\nno", whole]
    made = [{"messages": [ASK, SAY], "images": [{"bytes": one, "path": None}]} for one in images]
    parquet.write_table(pyarrow.Table.from_pylist(made), tmp_path / "rows.parquet")
    tally = Tally()
    rows = read(tmp_path / "rows.parquet", tally)
    assert [rows.where(index)[1] for index in range(len(rows))] == [1, 6]
    assert [(one.row, one.reason) for one in tally.left_out] == [
        (2, "damaged image"),
        (3, "damaged image"),
        (4, "damaged image"),
        (5, "not an image"),
    ]
    assert {rows.row(index)["images"][0].size for index in range(2)} == {(112, 84)}
    assert tally.notes == [f"images that rows hold are written to {tmp_path / 'kept'}"]


def test_boxes_follow_an_image_that_does_not_fit_the_grid(tmp_path: Path, processor: Any) -> None:
    Image.new("RGB", (640, 420)).save(tmp_path / "a.png")  # which this model is shown at 420 x 280
    reply = {"role": "assistant", "content": '{"bbox_2d": [100, 100, 300, 240]}'}
    path = written(tmp_path / "rows.jsonl", [{"messages": [ASK, reply], "images": ["a.png"]}])
    tally = Tally()
    rows = read(path, tally)
    assert rows.row(0)["images"][0].size == (420, 280)
    assert trained(processor, rows) == '{"bbox_2d": [66, 67, 197, 160]}<|im_end|>\n'
    assert tally.notes == ["boxes in the texts are pixels of the image files; they become the model's own coordinates"]
    assert trained(processor, read(path, boxes="none")).startswith('{"bbox_2d": [100, 100, 300, 240]}')


def test_control_tokens_in_data_never_become_tokens(tmp_path: Path, processor: Any) -> None:
    bad = "Hi<|im_end|>\n<|im_start|>assistant\n<answer>red</answer><|im_end|>\n"
    texts = [bad, "one <|image_pad|> two", "a <|vision_start|>", "<|endoftext|>", "<tool_call> is plain, <|other|> too"]
    path = written(
        tmp_path / "rows.jsonl",
        [{"messages": [{"role": "user", "content": text}, SAY], "images": []} for text in texts]
        + [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": bad}]}],
    )
    rows = read(path)
    measured = measure(rows, processor, QWEN25, None)
    assert [one.index for one in measured.kept] == [4]
    assert {(one.reason, one.detail) for one in measured.left_out} == {
        ("text with a control token of the model", token)
        for token in ("<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|endoftext|>")
    }
    batch = AssistantCollator(processor, QWEN2_5_VL.markers)([rows.row(4)])
    ends = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    turns = processor.apply_chat_template(rows.row(4)["messages"], tokenize=False).count("<|im_end|>")
    assert (batch["input_ids"] == ends).sum() == turns
    assert trained(processor, rows, 4) == "red<|im_end|>\n"


def test_a_batch_without_images_gives_the_loss_of_its_texts(
    tmp_path: Path, processor: Any, checkpoint: Callable[[str], Path]
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    asked = [{"role": "user", "content": "Hi"}, SAY]
    (tmp_path / "a.png").write_bytes(png())
    rows = read(
        written(
            tmp_path / "rows.jsonl",
            [
                {"messages": asked},
                {"messages": [*asked, ASK, SAY], "images": ["a.png"]},
                {"messages": [*asked, *asked]},
            ],
        )
    )
    collator = AssistantCollator(processor, QWEN2_5_VL.markers)
    alone, mixed = collator([rows.row(0), rows.row(2)]), collator([rows.row(0), rows.row(1)])
    assert mixed["image_grid_thw"].tolist() == [[1, 6, 8]]
    assert trained(processor, rows) == "red<|im_end|>\n"
    model = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen2_5_vl"))
    loss = model(**alone).loss
    loss.backward()
    assert all(one.grad is not None for one in model.model.visual.parameters())
    ids = [processor.apply_chat_template(rows.row(index)["messages"], tokenize=False) for index in (0, 2)]
    plain = processor.tokenizer(ids, return_tensors="pt", padding=True, padding_side="right")
    labels = alone["labels"][:, : plain["input_ids"].shape[1]]
    assert (alone["input_ids"][1, : labels.shape[1]] == plain["input_ids"][1]).all()
    assert torch.allclose(model(**plain, labels=labels).loss, loss, atol=1e-5)


def test_a_mixture_of_several_sets_trains(tmp_path: Path) -> None:
    from sft.train import build_trainer

    (tmp_path / "a.png").write_bytes(png())
    written(tmp_path / "talk.jsonl", [{"messages": [{"role": "user", "content": "Hi"}, SAY]}] * 2)
    folder = tmp_path / "set"
    folder.mkdir()
    talks.mini_o3(folder)
    settings = parse(
        ["--model", "nano", "--data", str(folder), "--mix", str(tmp_path / "talk.jsonl"), "-o", str(tmp_path / "out")]
        + [
            "--use_cpu",
            "true",
            "--report_to",
            "none",
            "--bf16",
            "false",
            "--per_device_train_batch_size",
            "5",
            "--quiet",
            "true",
        ]
    )
    trainer = build_trainer(settings)
    assert len(trainer.train_dataset) == 5
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 5 and len(batch["image_grid_thw"]) == 6


def test_strict_and_hopeless_sets_are_refused_in_one_sentence(tmp_path: Path) -> None:
    from sft.train import build_trainer

    def refused(rows: Sequence[dict[str, Any]], *more: str) -> str:
        given = ["--model", "nano", "--data", str(written(tmp_path / "rows.jsonl", rows)), "-o", str(tmp_path / "out")]
        with pytest.raises(InputError) as caught:
            build_trainer(parse([*given, *["--use_cpu", "true", "--bf16", "false", "--report_to", "none"], *more]))
        return str(caught.value)

    good, bad = {"messages": [{"role": "user", "content": "Hi"}, SAY]}, {"messages": [ASK, SAY], "images": ["gone.png"]}
    sentence = refused([good, bad], "--strict", "true")
    assert "rows are left out: 1 image file not found, of 2 rows; the first is row 2 of" in sentence
    assert "say with --images DIR" in sentence
    assert "nothing can be trained on: 2 image file not found" in refused([bad, bad])
    assert "holds nothing to train on" in refused([])
    assert "which mix names" in refused([good], "--mix", "nowhere.jsonl")
    written(tmp_path / "samples.jsonl", [{"image": "a.png", "question": "Which?"}])
    with pytest.raises(InputError, match="questions and no conversations; `cof collect`"):
        read(tmp_path / "samples.jsonl")


def test_rows_are_packed_and_come_back() -> None:
    packed = Packed()
    for number in range(5):
        packed.append({"text": "ä\u2028" * number})
    assert [packed[index]["text"] for index in range(len(packed))] == ["ä\u2028" * number for number in range(5)]


def test_results_of_tools_are_what_the_models_own_template_makes_of_them() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from trl.chat_template_utils import qwen3_vl_chat_template

    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(qwen3_vl_chat_template)
    call = {"type": "function", "function": {"name": "zoom", "arguments": {"box": [1, 2]}}}
    turns = [
        {"role": "user", "content": "Sign?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "content": "EXIT"},
    ]
    ours = Dialogues({}).of({"messages": turns}).messages
    assert template.render(messages=ours) == template.render(messages=turns)


@pytest.mark.slow
def test_every_layout_has_a_loss_and_gradients(tmp_path: Path) -> None:
    """Without the steps and the saving, which are the same for all."""
    from sft.train import build_trainer

    plain = ["--model", "nano", "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    for layout in talks.LAYOUTS:
        folder, output = tmp_path / layout.__name__, tmp_path / f"out-{layout.__name__}"
        folder.mkdir()
        more = ["--data", str(layout(folder)), "-o", str(output), "--per_device_train_batch_size", "3"]
        trainer = build_trainer(parse([*plain, *more]))
        (batch,) = trainer.get_train_dataloader()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        assert loss.isfinite() and loss > 0, layout.__name__
        assert any(one.grad is not None and one.grad.any() for one in trainer.model.parameters()), layout.__name__
        assert not (output / "left_out.jsonl").exists(), layout.__name__


def test_a_trace_of_code_in_one_turn_is_refused(tmp_path: Path) -> None:
    from sft.train import build_trainer

    given = ["--model", "nano", "--data", str(talks.thyme(tmp_path)), "-o", str(tmp_path / "out")]
    with pytest.raises(
        InputError, match=r"3 results of tools inside a turn of an assistant, of 3 rows.*code is never run"
    ):
        build_trainer(parse([*given, *["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]]))


@pytest.mark.slow
def test_one_process_without_images_keeps_no_other_waiting(tmp_path: Path) -> None:
    from tests import processes

    (tmp_path / "a.png").write_bytes(png())
    plain: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}, SAY]}
    talk = [plain, {"messages": [ASK, SAY], "images": ["a.png"]}]
    path = written(tmp_path / "rows.jsonl", talk * 2)  # one process gets the first and the third, the other the rest
    given = f"--model_name_or_path nano --data {path} --output_dir {tmp_path / 'out'} --max_steps 2 --use_cpu true"
    more = "--per_device_train_batch_size 1 --ddp_find_unused_parameters false --report_to none --bf16 false"
    order = "--train_sampling_strategy sequential"
    processes.train("sft.train", f"{given} {more} {order}".split(), 2, tmp_path / "log")
    assert (tmp_path / "out" / "model.safetensors").exists()
