"""What is different on a CPU: small models, and the attention of a language model that is trained in 16 bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cof_agent.backends import families
from cof_agent.backends.local.vision import speed_up_vision

_SMALL = 50_000_000
"""Weights below which a step of the model is a matter of overhead, not of arithmetic."""


def is_small(model: Any) -> bool:
    """Whether the model is so small that neither a second core nor 16 bit make it faster on a CPU."""
    return bool(model.num_parameters() < _SMALL)


def speed_up_training(model: Any) -> None:
    """Changes a model that is trained in place: its vision tower, and the attention of its language model unless another than
    the fused kernel was chosen."""
    speed_up_vision(model)
    language = model.get_submodule(families.of(model.config).modules.language)
    if language.config._attn_implementation == "sdpa":
        language.set_attn_implementation(_BLOCKS)


_BLOCKS = "causal_blocks"
_BLOCK = 192  # queries; of 128 to 256 the fastest for 350 to 620 tokens


def _causal_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Plain products, some queries at a time, each with the keys up to its last: half the time of the fused kernel, forward
    and backward, where whole sequences are trained in 16 bit. Everything else is the kernel's.

    query, key, value: [batch, heads, tokens, size]. Returns [batch, tokens, heads, size].
    """
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else query.dtype
    whole = attention_mask is None and query.shape[2] == key.shape[2] and not options.get("dropout")
    if not (whole and query.requires_grad and query.device.type == "cpu" and dtype.itemsize == 2):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    groups, scale = query.shape[1] // key.shape[1], options.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast("cpu", enabled=False):
        query = (query * scale).to(dtype)
        keys, values = repeat_kv(key.to(dtype), groups).transpose(2, 3), repeat_kv(value.to(dtype), groups)
        seen = []
        for start in range(0, query.shape[2], _BLOCK):
            block = query[:, :, start : start + _BLOCK]
            end = start + block.shape[2]
            later = torch.ones(block.shape[2], end, dtype=torch.bool).triu(start + 1)
            scores = (block @ keys[..., :end]).masked_fill(later, -torch.inf)
            seen.append(scores.softmax(-1) @ values[:, :, :end])
        return torch.cat(seen, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(_BLOCKS, _causal_blocks)
AttentionMaskInterface.register(_BLOCKS, sdpa_mask)
