"""What vLLM gets of a model with LoRA: base and adapters summed and rounded once, while the model stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForImageTextToText
from trl.distributed import DistributedBackend
from trl.generation.vllm_generation import VLLMGeneration

from cof_agent.nano import WEIGHTS
from rl.engines.weights import merge_on_the_way


def generation_of(dtype: torch.dtype, **lora: Any) -> Any:
    """The part of TRL's class that reads the weights, for nano with adapters and a projector that have been trained."""
    base: Any = AutoModelForImageTextToText.from_pretrained(str(WEIGHTS), dtype=dtype)
    asked = {"target_modules": r".*language_model.*(q_proj|down_proj)", "modules_to_save": ["visual.merger"]}
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, **asked, **lora))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
        elif "modules_to_save" in name:
            weight.data *= 2
    found: Any = VLLMGeneration.__new__(VLLMGeneration)
    found.model, found._dist = model, DistributedBackend(Accelerator(cpu=True))
    return found


def weights(generation: Any) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in generation._iter_named_params()}


def held(generation: Any) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in generation.model.named_parameters()}


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_adapters_are_merged_on_the_way(lora: dict[str, Any]) -> None:
    exact, rounded = weights(generation_of(torch.float32, **lora)), generation_of(torch.bfloat16, **lora)
    before = held(rounded)
    merge_on_the_way(rounded)
    found = weights(rounded)
    assert found.keys() == exact.keys()
    for name, weight in exact.items():  # TRL's own in float32, where its rounding is no matter
        assert torch.allclose(found[name].float(), weight, rtol=2**-8, atol=1e-3 * bool(lora) + 1e-6), name
    merged = [name for name in found if name.endswith(("q_proj.weight", "down_proj.weight")) and "visual" not in name]
    assert len(merged) == 2 * rounded.model.config.text_config.num_hidden_layers
    after = held(rounded)
    assert all((after[name] == weight).all() for name, weight in before.items())
    base = rounded.model.base_model.model.model.language_model.layers[0].self_attn.q_proj
    if not lora:
        sum_of_both = base.base_layer.weight.float() + base.get_delta_weight("default").float()
        assert (found["model.language_model.layers.0.self_attn.q_proj.weight"] == sum_of_both.bfloat16()).all()


def test_trl_leaves_errors_in_the_model() -> None:
    """Once it does not, `rl.engines.weights` can go."""
    generation = generation_of(torch.bfloat16)
    before = held(generation)
    for _ in generation._iter_named_params():
        pass
    after = held(generation)
    assert any((after[name] != weight).any() for name, weight in before.items())


def test_a_model_without_adapters_is_left_to_trl() -> None:
    generation = generation_of(torch.float32)
    generation.model = generation.model.unload()
    merge_on_the_way(generation)
    assert generation._iter_named_params.__func__ is VLLMGeneration._iter_named_params
