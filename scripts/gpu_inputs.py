"""What `gpu_check.sh` runs on: checkpoints in the layer shapes of published models with random weights, and scenes with ideal
trajectories for a model that sees large images: `python scripts/gpu_inputs.py OUT --shapes 3b 7b --layers 2`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from benches.local import SHAPES
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import CoordinateSystem, PixelLimits, Size
from cof_agent.nano import WEIGHTS, build
from cof_agent.scenes import oracle
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import to_json

VISION = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "fullatt_block_indexes": [0]}
"""Of Qwen2.5-VL's tower, at any size of the language model."""
LIMITS = PixelLimits(28, 56 * 56, 1_003_520, 250_880)  # those of rl/configs/qwen2.5-vl-7b-8gpu.yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("output", type=Path)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["3b", "7b"])
    parser.add_argument("--layers", type=int, default=2, help="of the language model and of the tower")
    parser.add_argument("--samples", type=int, default=64, help="scenes")
    parser.add_argument("--small", action="store_true", help="nano's vocabulary and small images, for a CPU")
    options = parser.parse_args()
    for name in options.shapes:
        write_checkpoint(options.output / name, SHAPES[name], options.layers, small=options.small)
    small = PixelLimits(28, 56 * 56, 112 * 112, 56 * 56)
    write_played(options.output / "scenes", options.samples, small if options.small else LIMITS)


def write_checkpoint(folder: Path, shape: dict[str, Any], layers: int, *, small: bool) -> None:
    """Random weights in bfloat16, made on the GPU where there is one. The tokenizer is nano's: few ids of a real one."""
    tokenizer = build.build_tokenizer()
    tokenizer.chat_template = (WEIGHTS / "chat_template.jinja").read_text("utf-8")
    special = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    base = build.build_config(tokenizer)
    text = shape | {
        "num_hidden_layers": layers,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "layer_types": ["full_attention"] * layers,
        "max_position_embeddings": 128_000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        **({"vocab_size": len(tokenizer)} if small else {}),
    }
    vision = VISION | {"depth": layers, "out_hidden_size": shape["hidden_size"]}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=shape["tie_word_embeddings"],
        **{name: getattr(base, name) for name in special},
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    ends = model.generation_config
    ends.eos_token_id, ends.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}
    Qwen2VLImageProcessorPil(patch_size=14, size=size).save_pretrained(folder)
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder}: {layers} layers, {weights:,} weights")


def write_played(folder: Path, count: int, limits: PixelLimits) -> None:
    """Scenes of 4K, and beside them the ideal trajectories of a model that is shown images within these limits."""
    write_scenes(folder, count=count, seed=5, size=Size(3840, 2160), split="train")
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE, limits))
    played = [oracle.play(one, environment.reset(one), environment) for one in read_samples(folder)]
    (folder / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in played), "utf-8")
    print(f"{folder}: {count} scenes, {sum(one.zooms for one in played)} zooms")


if __name__ == "__main__":
    main()
