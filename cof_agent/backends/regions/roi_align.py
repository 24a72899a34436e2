"""RoIAlign (He et al., Mask R-CNN, arXiv 1703.06870): features of a box, sampled without rounding its edges.

As Detectron2's `ROIAlign(aligned=True)` and `torchvision.ops.roi_align(..., aligned=True)` compute it: the centre of the
feature at index i lies at i + 0.5; a sample more than one feature outside the map is 0, one less far outside takes the
value at the edge; a bin is the mean of `sampling` x `sampling` samples.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor


def roi_align(features: Tensor, boxes: Tensor, *, size: int, scale: float, sampling: int = 2) -> Tensor:
    """The features of some boxes of one map, by torchvision where it is installed, else by `plain_roi_align`.

    features: [channels, height, width]. boxes: [boxes, 4] as x0, y0, x1, y1 in shown pixels. size: bins along each side.
    scale: features per shown pixel.

    Returns:
        [boxes, channels, size, size].
    """
    if find_spec("torchvision") is None:
        return plain_roi_align(features, boxes, size=size, scale=scale, sampling=sampling)
    from torchvision.ops import roi_align as compiled  # type: ignore[import-not-found,unused-ignore]

    # On a GPU it knows no bfloat16, whose eight bits would move edges by a pixel anyway.
    found: Tensor = compiled(features[None].float(), [boxes.float()], size, scale, sampling, aligned=True)
    return found.to(features.dtype)


def plain_roi_align(features: Tensor, boxes: Tensor, *, size: int, scale: float, sampling: int = 2) -> Tensor:
    """`roi_align` in plain PyTorch. The samples of a box lie on a grid, and bilinear weights are products of a row's and a
    column's, so that all bins of a box are two matrix products."""
    _, height, width = features.shape
    edges = boxes.float() * scale - 0.5
    rows = _weights(edges[:, 1], edges[:, 3], height, size, sampling).to(features.dtype)
    columns = _weights(edges[:, 0], edges[:, 2], width, size, sampling).to(features.dtype)
    found: Tensor = torch.einsum("bph,chw,bqw->bcpq", rows, features, columns)
    return found


def _weights(low: Tensor, high: Tensor, length: int, size: int, sampling: int) -> Tensor:
    """How much of each of `length` features goes into each bin between `low` and `high`, [boxes]: [boxes, size, length]."""
    steps = (torch.arange(size * sampling, device=low.device) + 0.5) / (size * sampling)
    at = low[:, None] + (high - low)[:, None] * steps
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    features = torch.arange(length, device=low.device)
    near = (1 - (at[..., None] - features).abs()).clamp(min=0) * inside[..., None]
    shares: Tensor = near.unflatten(1, (size, sampling)).mean(2)
    return shares
