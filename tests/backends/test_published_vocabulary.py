"""The published vocabulary, chat templates, attention heads and positions: conversations are those of stock `generate`. The
weights are random; the layers are few, and a quarter as wide as those of published checkpoints."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerBase, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from cof_agent import protocol
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.config import AgentConfig
from cof_agent.geometry import Box
from tests.checkpoints import published_template, write_processor
from tests.stock_turns import played, stock_text

pytestmark = pytest.mark.slow

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
PLAIN = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
"""Added tokens from id 151,643 on, in the order of the published tokenizers of Qwen2.5 and Qwen3."""

SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen2_5_vl": (
        "qwen2_5_vl",
        {  # each key serves eight heads of 128 numbers, as in the one of 3B
            **{"hidden_size": 1024, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 1},
            **{"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}},
        },
        {
            **{"depth": 2, "out_hidden_size": 1024, "fullatt_block_indexes": [1]},
            **{"hidden_size": 320, "intermediate_size": 640, "num_heads": 4},
        },
    ),
    "qwen3_vl": (
        "qwen3_vl",
        {  # each key serves two heads of 128 numbers, as in the one of 2B
            **{"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 4, "num_key_value_heads": 2},
            **{"head_dim": 128},
            **{"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}},
        },
        {
            **{"depth": 2, "hidden_size": 256, "intermediate_size": 1024, "num_heads": 4, "out_hidden_size": 512},
            **{"deepstack_visual_indexes": [0, 1]},
        },
    ),
    "qwen3_5": (  # its own vocabulary is larger
        "qwen3_5_think",
        {
            **{"hidden_size": 256, "intermediate_size": 896, "num_attention_heads": 4, "num_key_value_heads": 1},
            **{"linear_num_key_heads": 4, "linear_num_value_heads": 4},
        },
        {"depth": 2, "hidden_size": 256, "intermediate_size": 768, "num_heads": 4, "out_hidden_size": 256},
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of Qwen2.5 and Qwen3, from the vocabulary that dashscope brings."""
    found = find_spec("dashscope")
    if found is None or found.origin is None:
        pytest.skip("needs the vocabulary of dashscope: pip install --no-deps dashscope==2.0.2")
    lines = (Path(found.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}

    class Converter(TikTokenConverter):  # type: ignore[misc]
        @staticmethod
        def load_tiktoken_bpe(_: str) -> dict[bytes, int]:
            return ranks

    vocabulary, merges = Converter().extract_vocab_merges_from_model("")
    tokenizer = Qwen2Tokenizer(vocabulary, merges, padding_side="left")
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.add_tokens(list(PLAIN))
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def policy_of(family: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> LocalPolicy:
    """A checkpoint of few narrow layers, as a policy."""
    template, text, vision = SHAPES[family]
    tokenizer.chat_template = published_template(template)
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    layers = 4 if family == "qwen3_5" else 2  # of four, one has full attention
    text = {**text, "vocab_size": 151936, "num_hidden_layers": layers, "tie_word_embeddings": True}
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_processor(14 if family == "qwen2_5_vl" else 16, 16384, folder)
    return LocalPolicy(model, load_processor(str(folder)), name=family, max_pixels=60_000)


def test_the_tokenizer_is_the_published_one(tokenizer: PreTrainedTokenizerBase) -> None:
    known = {
        "Hello": [9707],
        " world": [1879],
        "<|endoftext|>": [151643],
        "<|image_pad|>": [151655],
        "</think>": [151668],
    }
    assert {text: tokenizer.encode(text, add_special_tokens=False) for text in known} == known
    text = "Zoom: [12, 3456]\n\n<tool_call> h\u00e9 \u56fe"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("family", SHAPES)
def test_four_turns_are_those_of_stock_generate(
    family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, config = policy_of(family, tokenizer, tmp_path), AgentConfig(max_tokens=8, overview_pixels=60_000)
    zooms = ((Box(100, 100, 300, 400), 0), (Box(20, 20, 120, 130), 1), (Box(10, 10, 60, 60), 2))
    script = [protocol.write_zoom("Closer.", box, image) for box, image in zooms]
    trajectory, asked = played(policy, config, [*script, protocol.write_answer("Seen.", "red")], picture, monkeypatch)
    assert (trajectory.answer, trajectory.zooms, len(asked)) == ("red", 3, 4)
    for messages, images, text in asked:
        assert text == stock_text(policy.model, policy, messages, images, 8)
