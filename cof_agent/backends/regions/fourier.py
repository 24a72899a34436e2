"""Numbers as waves, for networks that are to tell near places apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def waves_of(numbers: Tensor, octaves: int) -> Tensor:
    """Sine and cosine of each number at wavelengths 2, 1, 1/2 ...: [count, n] -> [count, 2 n octaves], all sines first. From the
    numbers alone a network is slow to learn what differs between near ones (Tancik et al., arXiv 2006.10739)."""
    angles = (numbers[:, :, None] * math.pi * 2.0 ** torch.arange(octaves, device=numbers.device)).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
