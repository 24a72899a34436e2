"""The model of a training run: its checkpoint, what of it is frozen, and where LoRA goes."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForImageTextToText
from trl.trainer.utils import get_quantization_config

from cof_agent.backends import families
from cof_agent.backends.checkpoint import check_whole
from cof_agent.backends.families import Family
from cof_agent.backends.local.cpu import speed_up_training
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.reader import unreadable
from cof_agent.backends.names import check_name
from cof_agent.errors import InputError, said
from cof_agent.training.settings import Settings


def read_checkpoint(settings: Settings) -> tuple[Any, Any]:
    """Configuration and processor of the model; no weights.

    Raises:
        InputError: if there is no such checkpoint, it is an adapter, or of an unknown family.
    """
    path, run = settings.model_path, settings.run
    check_name(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        families.of(config)  # another one is refused here
        processor: Any = load_processor(path, config)
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise unreadable(path, error) from None
    size = dict(processor.image_processor.size)
    size["shortest_edge"] = run.min_pixels or size["shortest_edge"]
    size["longest_edge"] = run.max_pixels or size["longest_edge"]
    processor.image_processor.size = size
    return config, processor


def load_model(settings: Settings) -> Any:
    """The model with its weights, frozen as the settings say.

    Raises:
        InputError: if it cannot be loaded.
    """
    _know_of_each_other(settings)
    path, asked = settings.model_path, settings.model
    options: dict[str, Any] = {"dtype": asked.dtype if asked.dtype in ("auto", None) else getattr(torch, asked.dtype)}
    if asked.attn_implementation:
        options["attn_implementation"] = asked.attn_implementation
    family = families.of(AutoConfig.from_pretrained(path, trust_remote_code=False))
    if (quantization := quantization_of(settings, family)) is not None:
        options |= {"quantization_config": quantization, "device_map": {"": settings.training.device}}
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(
            path, **options, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:  # with what to do: a package to install, a setting to change
        raise InputError(f"cannot load the model {path}: {said(error)}") from None
    check_whole(found, path)
    freeze(model, settings)
    if settings.training.use_cpu:
        speed_up_training(model)
    return model


def quantization_of(settings: Settings, family: Family) -> Any:
    """How the settings have the weights quantised, None where they do not. The head and the tower with its projectors stay as
    they are: they are small, and in 4 bits the projectors would have no gradients."""
    found = get_quantization_config(settings.model)
    if found is not None:
        found.llm_int8_skip_modules = [family.modules.head, family.modules.tower]
    return found


def _know_of_each_other(settings: Settings) -> None:
    """Under ZeRO-3 the weights are shared out while they are read, and by then DeepSpeed must know of all processes."""
    if settings.training.deepspeed:
        if "RANK" not in os.environ:
            raise InputError(
                "DeepSpeed needs a launcher, for one process too: torchrun --nproc_per_node 1 -m ..., or --deepspeed ''."
            )
        import deepspeed

        if settings.training.use_cpu:
            # Else it compiles C++ for its own way of talking between processes, and waits forever for a compiler that
            # was killed; gloo does as well.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo" if settings.training.use_cpu else None)


def freeze(model: Any, settings: Settings) -> None:
    """Takes out of training what the settings leave as it is: the tower, the projector."""
    modules = families.of(model.config).modules
    for name, parameter in model.get_submodule(modules.tower).named_parameters():
        projector = modules.in_projector(f"{modules.tower}.{name}")
        if settings.run.freeze_projector if projector else settings.run.freeze_vision:
            parameter.requires_grad_(False)


def lora(settings: Settings, config: Any) -> LoraConfig:
    """LoRA on all linear layers of the language model, and of the tower unless it is frozen; the projector is trained in
    full unless it is frozen. `lora_target_modules` and `lora_modules_to_save` of the settings come first. `config`: the
    model's."""
    asked, run, modules = settings.model, settings.run, families.of(config).modules
    language, tower = modules.language_targets(), modules.tower_targets()
    projector = modules.projectors(config.vision_config)
    projectors = None if run.freeze_projector else projector
    # Where "all-linear" and names such as up_proj are found, too.
    left = [rf".*{re.escape(modules.tower)}\..*"] if run.freeze_vision else []
    left += [rf".*{re.escape(name)}(\..*)?" for name in projector] if run.freeze_projector else []
    return LoraConfig(
        r=asked.lora_r,
        lora_alpha=asked.lora_alpha,
        lora_dropout=asked.lora_dropout,
        target_modules=asked.lora_target_modules or (language if run.freeze_vision else f"({language}|{tower})"),
        target_parameters=asked.lora_target_parameters,
        exclude_modules="|".join(left) if left and asked.lora_target_modules else None,
        modules_to_save=asked.lora_modules_to_save or projectors,
        use_rslora=asked.use_rslora,
        use_dora=asked.use_dora,
        task_type="CAUSAL_LM",
    )
