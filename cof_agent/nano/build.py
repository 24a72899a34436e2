"""The tokenizer, the architecture and the random start of nano.

Choices made for a model this small:
- weights start at a standard deviation of 0.06, not 0.02, which is far too small at these widths;
- heads of 64 with a rotary base of 1,000 and most frequencies given to height and width, so that the width axis
  turns noticeably over a few columns;
- a coordinate is one token, and the fixed strings of the wire format are one token each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from cof_agent import protocol
from cof_agent.backends import families
from cof_agent.geometry import Box, CoordinateSystem
from cof_agent.scenes.scene import COLOURS, LETTERS, SHAPES

FAMILY = families.QWEN2_5_VL
_MARKERS, _VISION = FAMILY.markers, FAMILY.vision
SPECIAL = (
    _MARKERS.end_of_text,
    _MARKERS.start_of_turn,
    _MARKERS.end_of_turn,
    _MARKERS.before_image,
    _MARKERS.after_image,
    _MARKERS.image,
    _MARKERS.video,
)
OVERVIEW_PIXELS = 4 * 176 * 176  # a 16:9 picture becomes 448 x 252: 16 x 9 cells of 28 pixels
ZOOM_PIXELS = 176 * 176  # room for rounding: a nearly square crop becomes 168 x 168, not 168 x 140
IMAGE_MEAN, IMAGE_STD = (
    [0.48145466, 0.4578275, 0.40821073],
    [0.26862954, 0.26130258, 0.27577711],
)  # CLIP's, as in Qwen-VL

# A whole coordinate only where one can stand (before a comma or a bracket); other digits and capitals alone, so that
# a label is spelt; lower-case words with their space.
_PIECES = r"\d+(?=[,\]])|\d|[A-Z](?![a-z])| ?[A-Z]?[a-z_]+|, |[^\w\s]+ ?|\s+|."


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE over the words of the scenes and the wire format, with every coordinate as one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    bpe.add_tokens([AddedToken(text, normalized=False, special=False) for text in _fixed_strings()])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=_MARKERS.end_of_turn,
        pad_token=_MARKERS.end_of_text,
        padding_side="left",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> list[str]:
    """Each word and each raster coordinate often enough to become one token."""
    names = [f"the {colour} {shape} object" for colour in COLOURS for shape in SHAPES]
    sentences = [
        "What is written on the sign on",
        "What colour is",
        "What shape is",
        "What is in",
        "Show the",
        "Is it to the left or to the right of, above or below",
        "The sign on it is too small to see. can be seen well. is at",
        "Image 1, 168 x 168 pixels.",
        "system\nuser\nassistant\n",
    ]
    numbers = [f"[{number}]" for number in range(0, 452, 4)]
    return [*names, *sentences * 8, *numbers * 40, *LETTERS]


def _fixed_strings() -> list[str]:
    """Literal pieces of the wire format, one token each; a bracket stays outside, for the coordinate before it to see."""
    think, call = protocol.write_zoom("X", Box(1, 2, 3, 4)).split("X")
    head, end = call.split("1, 2, 3, 4]")
    nested = protocol.write_zoom("X", Box(1, 2, 3, 4), 5).split("4]")[1].split("5")[0]
    answer_head, answer_tail = protocol.write_answer("X", "Y").split("X")[1].split("Y")
    prompt = protocol.system_prompt(CoordinateSystem.ABSOLUTE)
    return [prompt, think, head, end, nested, answer_head, answer_tail]


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    spread = 0.06
    return Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=3,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            initializer_range=spread,
            rope_parameters=dict(rope_type="default", rope_theta=1000.0, mrope_section=[0, 6, 26]),
            bos_token_id=None,
            eos_token_id=ids[_MARKERS.end_of_turn],
            pad_token_id=ids[_MARKERS.end_of_text],
        ),
        vision_config=dict(
            depth=4,
            hidden_size=128,
            intermediate_size=352,
            num_heads=4,
            out_hidden_size=192,
            window_size=1120,  # at least the overview: one window is faster on a CPU than many small ones
            fullatt_block_indexes=[0, 1, 2, 3],
            initializer_range=spread,
        ),
        image_token_id=ids[_MARKERS.image],
        video_token_id=ids[_MARKERS.video],
        vision_start_token_id=ids[_MARKERS.before_image],
        vision_end_token_id=ids[_MARKERS.after_image],
        tie_word_embeddings=True,
        initializer_range=spread,
    )


def random_start(seed: int, directory: Path, chat_template: str) -> None:
    """Write a random-weight nano that stock transformers loads (`AutoProcessor` where torchvision exists)."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat_template
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(_MARKERS.end_of_turn)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    save(model, tokenizer, directory)


def save(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write weights, tokenizer and the processor files a stock `AutoProcessor` reads."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for name, content in _processor_files().items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")


def _processor_files() -> dict[str, dict[str, Any]]:
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
        "merge_size": _VISION.merge,
        "patch_size": _VISION.patch,
        "temporal_patch_size": 2,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "processor_class": "Qwen2_5_VLProcessor",
    }
    size = {"shortest_edge": _VISION.min_cells * _VISION.grid**2, "longest_edge": OVERVIEW_PIXELS}
    return {
        "preprocessor_config.json": common | {"image_processor_type": "Qwen2VLImageProcessor", "size": size},
        "video_preprocessor_config.json": common | {"video_processor_type": "Qwen2VLVideoProcessor", "size": size},
    }
