"""Tiny random checkpoints of each family, with real tokenizers and processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The frame that the stock templates of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share."""


def write_checkpoint(family: str, directory: Path) -> None:
    """A tiny random checkpoint of the family that a `model_type` names."""
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    from cof_agent.nano import build

    torch.set_num_threads(1)
    if family == "qwen2_5_vl":
        build.random_start(0, directory, CHAT_TEMPLATE)
        return
    tokenizer = build.build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    base = build.build_config(tokenizer)
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]},
        "initializer_range": 0.1,
    }
    ids = {
        name: getattr(base, name)
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    torch.manual_seed(0)
    model: Any
    vision: dict[str, Any]
    if family == "qwen2_vl":
        patch = 14
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        patch = 16
        vision = {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        }
        text["head_dim"] = 16
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    limits = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 144 * (2 * patch) ** 2}
    Qwen2VLImageProcessorPil(patch_size=patch, size=limits).save_pretrained(directory)
