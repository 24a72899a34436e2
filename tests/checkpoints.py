"""Tiny random checkpoints of each family, with real tokenizers and processors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The frame that the stock templates of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share."""


LINEAR_ATTENTION: dict[str, Any] = {
    "num_hidden_layers": 4,  # the fourth has full attention
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [4, 2, 2],
    },
}
"""What Qwen3.5 has beside other families."""
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}

INDEXED_ATTENTION = {
    "hc_count": 2,
    "hc_lowrank": 16,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
    "ple_layer_ids": [1],
    "ngram_vocab_size_base": 100,
    "split_ngram_parts": 1,
}
"""What Qwen4-Exp has beside Qwen3.5: its cache holds more than keys and states."""


def published_template(name: str) -> str:
    """A chat template that TRL brings."""
    return (Path(find_spec("trl").origin).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")  # type: ignore[union-attr, arg-type]


def write_checkpoint(family: str, directory: Path) -> None:
    """A tiny random checkpoint of the family that a `model_type` names."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from cof_agent.nano import build

    torch.set_num_threads(1)
    if family == "qwen2_5_vl":
        build.random_start(0, directory, CHAT_TEMPLATE)
        return
    tokenizer = build.build_tokenizer()
    tokenizer.chat_template = published_template("qwen3_5_think") if "qwen3_5" in family else CHAT_TEMPLATE
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
    patch = 14 if family == "qwen2_vl" else 16
    vision: dict[str, Any] = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 256,
    }
    if family == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    elif "qwen3_5" in family or family == "qwen4_exp":
        text |= LINEAR_ATTENTION
    else:
        text["head_dim"] = 16
        vision["deepstack_visual_indexes"] = [0, 1]
    if family.endswith("_moe") or family == "qwen4_exp":
        text |= EXPERTS
    if family == "qwen4_exp":
        text |= {**INDEXED_ATTENTION, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(family, text_config=text, vision_config=vision, **ids)
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_processor(patch, 144, directory)


def write_processor(patch: int, cells: int, directory: Path) -> None:
    """A processor of images of up to so many cells."""
    from transformers import Qwen2VLImageProcessorPil

    limits = {"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": cells * (2 * patch) ** 2}
    Qwen2VLImageProcessorPil(patch_size=patch, size=limits).save_pretrained(directory)


LAYERS: dict[str, dict[str, Any]] = {
    "qwen2.5-vl-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "qwen2.5-vl-3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    "qwen3-vl-2b": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "qwen3-vl-8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""Shapes of one layer, from the configurations of the published checkpoints."""


def write_shallow(name: str, directory: Path, layers: int = 1) -> None:
    """A checkpoint with so few layers of each kind in the shapes of a published one, in bfloat16 with nano's small vocabulary."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    from cof_agent.nano import build

    third = name.startswith("qwen3")
    tokenizer = build.build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    base = build.build_config(tokenizer)
    ids = {
        key: getattr(base, key)
        for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    shape = LAYERS[name]
    text = shape | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": layers,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [24, 20, 20] if third else [16, 24, 24],
            # Published with it, and vLLM goes by it; transformers does so in any case.
            **({"mrope_interleaved": True} if third else {}),
        },
        "tie_word_embeddings": False,
    }
    vision: dict[str, Any] = {"depth": layers, "out_hidden_size": shape["hidden_size"]}
    if third:
        text["head_dim"] = 128
        wide = {"hidden_size": 1152, "intermediate_size": 4304} if name.endswith("8b") else {"hidden_size": 1024}
        vision |= {"intermediate_size": 4096, **wide, "deepstack_visual_indexes": list(range(layers))}
    else:
        vision |= {"hidden_size": 1280, "intermediate_size": 3420, "fullatt_block_indexes": [layers - 1]}
    torch.manual_seed(0)
    make, configuration = (
        (Qwen3VLForConditionalGeneration, Qwen3VLConfig)
        if third
        else (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig)
    )
    model: Any = make(configuration(text_config=text, vision_config=vision, **ids)).to(torch.bfloat16)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    _never_asks_for(model, [ids["image_token_id"], ids["video_token_id"]])
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    write_processor(16 if third else 14, 16384, directory)


def _never_asks_for(model: Any, tokens: list[int]) -> None:
    """Makes tokens improbable that no engine may write, as they are to a model that was trained: with random weights each of
    500 tokens has a share, which the trainer counts and the sampler does not. One dimension of all states says so."""
    model.get_input_embeddings().weight.data[:, 0] = 1.0
    for name, weight in model.model.language_model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.data[0] = 0.0
    head = model.get_output_embeddings().weight.data
    head[:, 0] = 0.0
    head[tokens, 0] = -50.0
