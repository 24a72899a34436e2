"""The weights that vLLM gets of a model with LoRA: merged on the way, and rounded once.

TRL merges the adapters into the model in training, sends its weights, and takes the adapters out again. In bfloat16 what is
taken out is not what was put in: each update leaves an error in weights that are frozen, and in what is trained on top of
them, though not in what is saved. After 100 updates of a LoRA of nano one frozen weight in five was another one.

Private to TRL 1.16, and used here: of `VLLMGeneration` the methods `_iter_named_params`, which is replaced, and
`_fix_param_name_to_vllm`, and the attributes `model` and `_dist`. This file can go once TRL leaves the model as it is;
`tests/rl/engines/test_weights.py` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor


def merge_on_the_way(generation: Any) -> None:
    """Lets TRL's `VLLMGeneration` send merged weights without merging them in the model. No change without adapters."""
    if is_peft_model(generation.model):
        generation._iter_named_params = partial(merged, generation)


def merged(generation: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name and in the type that vLLM has it in; under ZeRO-3 all processes iterate alike."""
    model = generation.model
    adapted = {f"{name}.base_layer.weight": one for name, one in model.named_modules() if isinstance(one, LoraLayer)}
    for name, parameter in model.named_parameters():
        if (
            model.prefix in name or "original_module" in name
        ):  # the adapters, and what stands in place of a trained copy
            continue
        layer = adapted.get(name)
        needed = [parameter] if layer is None else list(layer.parameters())
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        with generation._dist.gather_params(needed):
            weight = parameter.data if layer is None else with_adapters(layer)
            yield generation._fix_param_name_to_vllm(plain, extra_prefixes=["modules_to_save.default."]), weight


@torch.no_grad()
def with_adapters(layer: Any) -> Tensor:
    """The weight of an adapted layer with its active adapters, summed in float32 and rounded to the layer's type once."""
    own = layer.get_base_layer().weight.data
    weight = own.float()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_variant:  # such as DoRA's, which scales the sum
            weight = layer.lora_variant[adapter].merge_safe(layer, adapter, weight)
        elif adapter in (*layer.lora_A, *layer.lora_embedding_A):  # a layer need not have all of them
            weight = weight + layer.get_delta_weight(adapter).float()
    rounded: Tensor = weight.to(own.dtype)
    return rounded
