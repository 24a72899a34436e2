"""Training rows: the same tokens and images as the agent's, labels on assistant turns only, as TRL would have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.backends import families
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.trajectory import Answer, Observation, Sample, StopReason, Trajectory, Turn, Zoom
from sft.dataset import to_row

NANO = families.QWEN2_5_VL


@pytest.fixture(scope="module")
def nano(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen2_5_vl")


def conversation(crops: int, grid: int) -> tuple[list[protocol.Message], list[Image.Image]]:
    """A trajectory of so many zooms, one image more, sized on the grid."""
    sizes = [Size(grid * (4 + k % 3), grid * (3 + k % 2)) for k in range(crops + 1)]
    views = [View(Size(900, 700), Box(0, 0, 900 - k, 700 - k), size) for k, size in enumerate(sizes)]
    turns = [
        Turn(protocol.write_zoom("Too small.", Box(1, 2, 30, 40)), (Zoom((1, 2, 30, 40)),), (Observation(view),))
        for view in views[1:]
    ]
    turns.append(Turn(protocol.write_answer("I see it.", "red"), (Answer("red"),)))
    sample = Sample("s", "x.png", "What colour is it?")
    trajectory = Trajectory(sample, views[0], tuple(turns), StopReason.ANSWERED, answer="red")
    pictures = [Image.new("RGB", (size.width, size.height), (k * 30, 90, 120)) for k, size in enumerate(sizes)]
    return protocol.render(trajectory, system=CoordinateSystem.ABSOLUTE), pictures


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("crops", [0, 1, 5])
def test_labels_are_the_assistants_words_and_nothing_else(
    checkpoint: Callable[[str], Path], family: families.Family, crops: int
) -> None:
    from cof_agent.backends.local.processor import load_processor
    from cof_agent.backends.local.template import opened
    from sft.collate import IGNORED, AssistantCollator

    processor = load_processor(str(checkpoint(family.model_types[0])))
    messages, pictures = conversation(crops, family.vision.grid)
    labels = AssistantCollator(processor, family.markers)([to_row(messages, pictures)])["labels"]
    spoken = [message["content"][0]["text"] for message in messages if message["role"] == "assistant"]
    if begun := opened(processor, family.markers):  # it stands before each turn, and the thought on lines of its own
        assert begun == "<think>\n"
        spoken = ["{}\n</think>\n\n{}".format(*protocol.taken_apart(text)) for text in spoken]
    assert processor.tokenizer.decode(labels[labels != IGNORED]) == "".join(f"{text}<|im_end|>\n" for text in spoken)


@pytest.mark.parametrize("begins", ["", "\n", "\n\n", "\n\nI see. "])
def test_a_reply_that_begins_with_a_line_break_is_trained_on(weightless: Path, tmp_path: Path, begins: str) -> None:
    """Qwen's tokenizer joins it with that of the header; nano's does not, and is made to here."""
    from cof_agent.backends.local.processor import load_processor
    from sft.collate import IGNORED, AssistantCollator

    shutil.copytree(weightless, tmp_path / "joins")
    tokenizer = json.loads((tmp_path / "joins" / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"]["ĊĊ"] = 9_999  # free: those behind the vocabulary are given to nano's special tokens
    tokenizer["model"]["merges"].append(["Ċ", "Ċ"])
    (tmp_path / "joins" / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    processor = load_processor(str(tmp_path / "joins"))
    messages, pictures = conversation(1, 28)
    first = next(message for message in messages if message["role"] == "assistant")["content"][0]
    first["text"] = begins + first["text"]
    labels = AssistantCollator(processor, NANO.markers)([to_row(messages, pictures)])["labels"]
    spoken = [message["content"][0]["text"] for message in messages if message["role"] == "assistant"]
    trained = processor.tokenizer.decode(labels[labels != IGNORED])
    joined = 1 if begins else 0  # as many line breaks as the header's last token takes
    assert trained == "".join(f"{text}<|im_end|>\n" for text in (spoken[0][joined:], *spoken[1:]))


def test_labels_and_ids_are_trls(nano: Path) -> None:
    from trl.chat_template_utils import get_training_chat_template, qwen2_5_vl_chat_template
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from cof_agent.backends.local.processor import load_processor
    from sft.collate import AssistantCollator

    processor = load_processor(str(nano))
    processor.chat_template = processor.tokenizer.chat_template = qwen2_5_vl_chat_template
    rows = [to_row(*conversation(crops, 28)) for crops in (2, 0, 1)]
    ours = AssistantCollator(processor, NANO.markers)(rows)
    theirs = DataCollatorForVisionLanguageModeling(
        processor, assistant_only_loss=True, chat_template=get_training_chat_template(processor)
    )(rows)
    for key in ("input_ids", "labels", "pixel_values", "image_grid_thw", "mm_token_type_ids"):
        assert (ours[key] == theirs[key]).all(), key


def test_agent_and_training_row_have_the_same_tokens_and_images(nano: Path) -> None:
    """Each prompt of the agent is the beginning of the training row, token for token."""
    from cof_agent.backends.local.processor import load_processor
    from sft.collate import AssistantCollator

    processor = load_processor(str(nano))
    messages, pictures = conversation(2, 28)
    whole = AssistantCollator(processor, NANO.markers)([to_row(messages, pictures)])
    for turn in (2, 4, 6):
        before = to_row(messages[:turn], pictures[: turn // 2])
        text = processor.apply_chat_template(before["messages"], tokenize=False, add_generation_prompt=True)
        prompt = processor(text=[text], images=[before["images"]], return_tensors="pt")
        length = prompt["input_ids"].shape[1]
        assert (whole["input_ids"][0, :length] == prompt["input_ids"][0]).all()
        assert (whole["labels"][0, length - 3 : length] == -100).all()
        assert whole["labels"][0, length] != -100
        assert (whole["pixel_values"][: len(prompt["pixel_values"])] == prompt["pixel_values"]).all()


def test_rows_that_miscount_images_are_refused() -> None:
    messages, pictures = conversation(1, 28)
    with pytest.raises(ValueError, match=r"views \[0, 1\], but there are 1"):
        to_row(messages, pictures[:1])
