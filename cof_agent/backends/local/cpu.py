"""What is different on a CPU: small models, three operations of a vision tower that are slow there for no reason in
the arithmetic, and the attention of a language model that is trained in 16 bit.

Measured on one core for an overview of 448 x 252 pixels: the patch embedding 7.0 -> 1.1 ms, attention 5.1 -> 2.0 ms a
layer. Results agree with the stock modules to rounding; names and
shapes of the weights stay.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cof_agent.backends import families

_SMALL = 50_000_000
"""Weights below which a step of the model is a matter of overhead, not of arithmetic."""


_FEW_PATCHES = 1024
"""Up to here all scores of an image can lie in memory: 4 MiB a head."""


def is_small(model: Any) -> bool:
    """Whether the model is so small that neither a second core nor 16 bit make it faster on a CPU."""
    return bool(model.num_parameters() < _SMALL)


def speed_up_vision(model: Any) -> None:
    """Changes the vision tower of a model of a known family in place."""
    modules = families.of(model.config).modules
    tower = model.get_submodule(modules.tower)
    patches = tower.get_submodule(modules.patches)
    patches.proj = _PatchProjection(patches.proj)
    for block in tower.get_submodule(modules.blocks):
        block.attn = _Attention(block.attn)


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


class _PatchProjection(nn.Module):
    """A convolution whose kernel is as large as its input: one matrix product, which the CPU's convolution is not."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        """[patches, channels, time, height, width] -> [patches, width of the tower]."""
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


class _Attention(nn.Module):
    """The tower's attention, with images (or windows) of one size that follow each other taken in one call."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = stock.qkv, stock.proj, stock.num_heads

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """[patches, width] -> [patches, width]; `cu_seqlens` says where each image ends."""
        count = len(hidden_states)
        query, key, value = self.qkv(hidden_states).view(count, 3, self.num_heads, -1).unbind(1)
        cos, sin = (part.unsqueeze(1).to(query.dtype) for part in position_embeddings)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        seen, start = [], 0
        for length, same in groupby(cu_seqlens.diff().tolist()):
            images = len(list(same))
            run = slice(start, start + images * length)
            parts = (part[run].view(images, length, self.num_heads, -1).transpose(1, 2) for part in (query, key, value))
            seen.append(_attend(*parts).transpose(1, 2).reshape(images * length, -1))
            start = run.stop
        return self.proj(seen[0] if len(seen) == 1 else torch.cat(seen))  # type: ignore[no-any-return]


def _rotated(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat((-second, first), dim=-1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[images, heads, patches, size] each -> the same shape.

    Plain products where gradients are wanted, since the fused kernel's backward pass is the slower one on a CPU, and for
    images of few patches in 16 bit, where the kernel takes twice as long. Elsewhere the kernel, which is slow on
    interleaved heads; a copy is not.
    """
    if query.requires_grad or (query.element_size() == 2 and query.shape[-2] <= _FEW_PATCHES):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        weights: Tensor = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        return weights @ value
    return F.scaled_dot_product_attention(query.contiguous(), key.contiguous(), value.contiguous())
