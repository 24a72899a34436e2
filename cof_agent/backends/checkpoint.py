"""Loads a checkpoint from a folder or the hub into this process, as the policy that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from cof_agent.backends import families
from cof_agent.backends.local.cpu import is_small
from cof_agent.backends.local.policy import CAPACITY, LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.reader import unreadable
from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.backends.names import check_name, folder_of
from cof_agent.backends.regions.features import RegionQwen
from cof_agent.backends.regions.policy import RegionPolicy
from cof_agent.data.spec import IN_VLLM
from cof_agent.errors import InputError


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs, and in which precision."""

    device: str
    dtype: torch.dtype


def place(device: str | None = None, dtype: str | None = None, *, small: bool = False) -> Placement:
    """The device and precision to use: what is asked for, else the best there is.

    CUDA in bfloat16; a CPU in bfloat16 where its instructions have it and the model is not `small` (`is_small`), else
    in float32: a small model gains nothing by 16 bit, and its answers would depend on who else is answered.

    Raises:
        InputError: for a name that torch does not know, or a device that is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
        usable = kind != "meta"
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise InputError(f"there is no device {device!r} here; leave it out to use what there is.")
    return Placement(device, precision(dtype, kind, small=small))


def precision(dtype: str | None, kind: str, *, small: bool) -> torch.dtype:
    """As `place`, for a device of this kind (`cuda`, `cpu`, ...).

    Raises:
        InputError: for a name that torch does not know.
    """
    if dtype is None:
        wide = kind != "cuda" and (small or not _cpu_has_bfloat16(kind))
        return torch.float32 if wide else torch.bfloat16
    chosen = getattr(torch, dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise InputError(f"{dtype!r} is no precision of torch; use bfloat16, float16 or float32.")
    return chosen


def attention_of(attn: str) -> dict[str, str]:
    """The attention of transformers of this name, part by part: flash attention is for the vision tower alone.

    The rows of a batch begin at different columns. That takes a mask, and flash attention knows none. The prompt of one
    conversation needs no mask: there sdpa is flash attention, torch's own.
    """
    return {"text_config": attn if attn == "eager" else "sdpa", "vision_config": attn}


def _cpu_has_bfloat16(kind: str) -> bool:
    found = torch.cpu.get_capabilities()
    return kind == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _kind(config: Any) -> tuple[Any, type[LocalPolicy]]:
    """What a checkpoint is loaded as, and the policy it makes: those with region embeddings have their own."""
    if getattr(config, "region_config", None) is None:
        return AutoModelForImageTextToText, LocalPolicy
    return RegionQwen, RegionPolicy


def is_small_checkpoint(config: Any) -> bool:
    """`is_small` for a model that is not loaded."""
    with torch.device("meta"):  # no memory for weights
        return is_small(AutoModelForImageTextToText.from_config(config))


def load(
    model: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attn: str | None = None,
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
    capacity: int = CAPACITY,
) -> LocalPolicy:
    """Loads `nano`, or a checkpoint from a directory or the hub.

    name: how the policy is called in the record, by default as `model`. device, dtype: see `place`. attn: see `attention_of`.
    For the rest see `LocalPolicy`.

    Raises:
        InputError: if there is no such checkpoint, it cannot be read, or it is of another family.
    """
    where = folder_of(str(model))
    check_name(where)
    place(device, dtype)  # what is wrong with these is said first
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False)
        families.of(config)  # another one is refused before its weights are read
        processor: Any = load_processor(where, config)
        kind, policy = _kind(config)
        placement = place(device, dtype, small=is_small_checkpoint(config))
        chosen = {} if attn is None else {"attn_implementation": attention_of(attn)}
        weights: Any
        weights, found = kind.from_pretrained(
            where, config=config, dtype=placement.dtype, output_loading_info=True, **chosen
        )
        check_whole(found, where)
        speed_up_vision(weights)
        return policy(
            _moved(weights, placement.device, where).eval(),
            processor,
            name=name or str(model),
            max_pixels=max_pixels,
            zoom_pixels=zoom_pixels,
            capacity=capacity,
            folder=Path(where) if Path(where).is_dir() else None,
        )
    except InputError:
        raise
    except Exception as error:  # what a broken or missing checkpoint makes the loaders raise is not limited
        raise unreadable(where, error) from None


def check_whole(found: Mapping[str, Any], where: str) -> None:
    """Refuses a checkpoint that lacks weights, in whose place transformers puts random ones. found: its `loading_info`.

    Raises:
        InputError: if it does.
    """
    if missing := found["missing_keys"]:
        raise InputError(f"the model {where} is not whole: {len(missing)} weights are missing, such as {min(missing)}.")


def _moved(weights: Any, device: str, where: str) -> Any:
    """The model on its device.

    Raises:
        InputError: if the device has no room for it.
    """
    try:
        return weights.to(device)
    except torch.OutOfMemoryError:
        raise InputError(
            f"{where} has {weights.num_parameters() / 1e9:.1f} billion weights, for which {device} has no room; run it on "
            f"several GPUs in vLLM: --model {IN_VLLM}{where} --vllm-options tensor-parallel-size=N."
        ) from None
