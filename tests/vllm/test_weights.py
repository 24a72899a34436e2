"""The weights that vLLM has of a model with LoRA are those of base and adapters summed and rounded once, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from cof_agent.nano import WEIGHTS
from rl.engines.options import colocated_with
from rl.engines.weights import merge_on_the_way
from tests.ports import free_port


def test_merged_weights_arrive_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from accelerate import Accelerator
    from trl.generation.vllm_generation import VLLMGeneration
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (launched | {"MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    base = AutoModelForImageTextToText.from_pretrained(str(WEIGHTS), dtype=torch.bfloat16)
    targets = r".*language_model.*(q_proj|k_proj|v_proj|down_proj)"
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data += torch.randn(weight.shape) * 1e-2
    with colocated_with(["dtype=bfloat16", "enforce-eager", "max-num-seqs=2"]):
        processor = AutoProcessor.from_pretrained(str(WEIGHTS))
        generation = VLLMGeneration(model, Accelerator(cpu=True), processor, mode="colocate", max_model_length=512)
    merge_on_the_way(generation)
    generation.sync_weights()
    sent = {name: weight.clone() for name, weight in generation._iter_named_params()}
    engine = generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    held = dict(engine.named_parameters())
    for layer in range(base.config.text_config.num_hidden_layers):
        ours, theirs = f"model.language_model.layers.{layer}", f"language_model.model.layers.{layer}"
        fused = torch.cat([sent[f"{ours}.self_attn.{part}_proj.weight"] for part in "qkv"])
        assert (held[f"{theirs}.self_attn.qkv_proj.weight"] == fused).all()
        assert (held[f"{theirs}.mlp.down_proj.weight"] == sent[f"{ours}.mlp.down_proj.weight"]).all()
    del generation.llm
    cleanup_dist_env_and_memory()
