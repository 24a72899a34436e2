"""Loads a checkpoint into vLLM's engine, as the policy that asks it. On several GPUs: `--vllm-options tensor-parallel-size=2`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from cof_agent.backends import families
from cof_agent.backends.checkpoint import is_small_checkpoint, precision
from cof_agent.backends.local.processor import generation_config_of, load_processor
from cof_agent.backends.local.reader import limits_of, unreadable
from cof_agent.backends.names import check_name, folder_of
from cof_agent.backends.vllm.engine import VLLMEngine
from cof_agent.backends.vllm.options import as_keywords
from cof_agent.backends.vllm.policy import VLLMPolicy
from cof_agent.errors import InputError, said


@dataclass(frozen=True, slots=True)
class _Described:
    """What `Reader` asks of a model whose weights vLLM has."""

    config: Any
    generation_config: Any


def load(
    model: str,
    *,
    dtype: str | None = None,
    options: Sequence[str] = (),
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
) -> VLLMPolicy:
    """`nano`, or a checkpoint from a directory or the hub, in an engine of its own.

    model: also what the policy is called in the record. dtype: by default as for a model that transformers runs. options: of
    the engine, as `options.as_keywords` reads them. For the rest see `Reader`.

    Raises:
        InputError: if there is no such checkpoint, it cannot be read, it is of another family, or vLLM cannot run it.
    """
    where = folder_of(model)
    check_name(where)
    described = _described(where)
    try:
        processor = load_processor(where, described.config)
    except InputError:
        raise
    except Exception as error:  # what a broken checkpoint makes the loaders raise is not limited
        raise unreadable(where, error) from None
    chosen = precision(
        dtype, "cuda" if torch.cuda.is_available() else "cpu", small=is_small_checkpoint(described.config)
    )
    limits = limits_of(described.config, processor, max_pixels, zoom_pixels)
    sizes = {"min_pixels": limits.min_pixels, "max_pixels": max(limits.max_pixels, limits.zoom_pixels)}
    engine = _engine(where, {"dtype": str(chosen).removeprefix("torch."), "mm_processor_kwargs": sizes}, options)
    return VLLMPolicy(
        described,
        processor,
        name=model,
        max_pixels=max_pixels,
        zoom_pixels=zoom_pixels,
        longest=engine.model_config.max_model_len,
        ask=VLLMEngine(engine, described.config.image_token_id).ask,
    )


def _described(where: str) -> _Described:
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
    except Exception as error:  # as above
        raise unreadable(where, error) from None
    families.of(config)  # another one is refused
    if getattr(config, "region_config", None) is not None:
        raise InputError(f"{where} reads regions as embeddings, which vLLM does not; run it without `vllm:`.")
    return _Described(config, generation_config_of(where, config))


def _engine(where: str, ours: dict[str, Any], options: Sequence[str]) -> Any:
    """vLLM's engine; `options` come before `ours`."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    fixed = {
        "limit_mm_per_prompt": {"video": 0},
        "max_model_len": -1,  # what the memory has room for
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**{"model": where, **fixed, **ours, **as_keywords(options)}))
    except Exception as error:  # what vLLM raises is not limited
        raise InputError(f"vLLM cannot run {where}: {said(error)}") from error
