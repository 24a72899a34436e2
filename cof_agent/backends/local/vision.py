"""The vision tower in fewer calls: images, and windows of an image, attend together where they are of one size.

The stock tower calls its attention once for each window: 700 times a layer for an overview of 3840 x 2160 pixels. Here it is
once for each size of window: four at most for an image alone, since only those at its right and lower edge are smaller. No
scores are made between windows.

Measured on one core for an overview of 448 x 252 pixels: the patch embedding 7.0 -> 1.1 ms, attention 5.1 -> 2.0 ms a layer.
Results agree with the stock modules to rounding; names and shapes of the weights stay.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cof_agent.backends import families

_FEW_PATCHES = 1024
"""Up to here all scores of an image can lie in memory: 4 MiB a head."""


def speed_up_vision(model: Any) -> None:
    """Changes the vision tower of a model of a known family in place. Flash attention stays: it takes windows of all sizes in
    one call itself."""
    modules = families.of(model.config).modules
    tower = model.get_submodule(modules.tower)
    patches = tower.get_submodule(modules.patches)
    patches.proj = _PatchProjection(patches.proj)
    if "flash" in str(tower.config._attn_implementation):
        return
    windows = _Windows()
    for block in tower.get_submodule(modules.blocks):
        block.attn = _Attention(block.attn, windows)


class _PatchProjection(nn.Module):
    """A convolution whose kernel is as large as its input: one matrix product, which neither a CPU's nor cuDNN's makes of it."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        """[patches, channels, time, height, width] -> [patches, width of the tower]."""
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


class _Groups(NamedTuple):
    """The windows by their size. sizes: how many windows of how many patches, in this order. order: of the patches, window by
    window; back: from there to how they stand. None for both where all windows are of one size."""

    sizes: list[tuple[int, int]]
    order: Tensor | None = None
    back: Tensor | None = None


class _Windows:
    """The groups of the windows that a pass through the tower has, worked out once for all of its layers: to read the sizes, a
    GPU has to be waited for."""

    def __init__(self) -> None:
        self._known: list[tuple[weakref.ref[Tensor], _Groups]] = []

    def of(self, ends: Tensor) -> _Groups:
        """ends: [windows + 1], as `cu_seqlens` of flash attention."""
        self._known = [entry for entry in self._known if entry[0]() is not None]
        for known, groups in self._known:
            if known() is ends:
                return groups
        groups = _groups(ends)
        self._known.append((weakref.ref(ends), groups))
        return groups


def _groups(ends: Tensor) -> _Groups:
    starts, lengths = ends[:-1], ends.diff()
    sizes = sorted(Counter(lengths.tolist()).items())
    counted = [(count, size) for size, count in sizes if size]
    if len(counted) == 1:
        return _Groups(counted)
    places = [
        (starts[lengths == size][:, None] + torch.arange(size, device=ends.device)).flatten() for _, size in counted
    ]
    order = torch.cat(places)
    return _Groups(counted, order, order.argsort())


class _Attention(nn.Module):
    """The tower's attention, with images (or windows) of one size taken in one call."""

    def __init__(self, stock: Any, windows: _Windows) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = stock.qkv, stock.proj, stock.num_heads
        self._windows = windows

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """[patches, width] -> [patches, width]; `cu_seqlens` says where each image ends."""
        count = len(hidden_states)
        query, key, value = self.qkv(hidden_states).view(count, 3, self.num_heads, -1).unbind(1)
        cos, sin = (part.unsqueeze(1).float() for part in position_embeddings)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        sizes, order, back = self._windows.of(cu_seqlens)
        parts = [part if order is None else part[order] for part in (query, key, value)]
        seen, start = [], 0
        for windows, size in sizes:
            run = slice(start, start := start + windows * size)
            own = (part[run].view(windows, size, self.num_heads, -1).transpose(1, 2) for part in parts)
            seen.append(_attend(*own).transpose(1, 2).reshape(windows * size, -1))
        whole = seen[0] if len(seen) == 1 else torch.cat(seen)
        return self.proj(whole if back is None else whole[back])  # type: ignore[no-any-return]


def _rotated(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """In float32, as the stock tower has it: in 16 bit the angles themselves would be rounded."""
    first, second = vectors.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (vectors.float() * cos + turned * sin).to(vectors.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[images, heads, patches, size] each -> the same shape.

    On a CPU plain products where gradients are wanted, since the fused kernel's backward pass is the slower one there, and for
    images of few patches in 16 bit, where the kernel takes twice as long. Elsewhere the kernel, which is slow on
    interleaved heads; a copy is not.
    """
    few = query.element_size() == 2 and query.shape[-2] <= _FEW_PATCHES
    if query.device.type == "cpu" and (query.requires_grad or few):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        weights: Tensor = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        return weights @ value
    return F.scaled_dot_product_attention(query.contiguous(), key.contiguous(), value.contiguous())
