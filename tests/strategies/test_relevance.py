"""Relevance propagation against a case by hand, and against autograd on whole models with their full relevance matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cof_agent import protocol
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.geometry import Box, Size, View
from cof_agent.strategies.spot import relevance as relevant
from cof_agent.strategies.spot.relevance import relevance
from cof_agent.trajectory import Sample


class _Attention(nn.Module):
    """One head whose attention is given."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self.weights + 0 * values.sum()).view(1, 1, 2, 2)
        return weights[0] @ values, weights


class _Layer(nn.Module):
    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.self_attn = _Attention(weights)

    def forward(self, entered: Tensor) -> Tensor:
        attended: Tensor = self.self_attn(entered)[0]
        return entered + attended


def test_one_layer_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    values = torch.tensor([[[2.0, 1.0], [1.0, -4.0]]])
    gradient = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    before, attention = relevant._through(_Layer(weights), values, {}, gradient)
    # d out / d A[1, j] is v_j . g: 3 for the first value and -3, which counts as 0, for the second.
    assert attention.tolist() == [[0.0, 0.0], [0.75, 0.0]]
    assert before.tolist() == [[[0.25, 0.25], [1.75, 1.75]]]


def asked(policy: LocalPolicy, size: Size) -> tuple[list[protocol.Message], list[Image.Image]]:
    sample = Sample("x", "", "What colour is the circle?")
    overview = View(size, Box(0, 0, size.width, size.height), size)
    opening = protocol.opening(sample, overview, system=policy.coordinates)
    noise = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return [*opening, protocol.assistant(protocol.begin_answer("I see."))], [Image.fromarray(noise)]


def by_autograd(policy: LocalPolicy, ids: list[int], pictures: list[Any], first: int) -> Tensor:
    """The relevance matrix of all tokens, from the attention and gradients of one whole forward pass."""
    model = policy.model
    tokens = torch.tensor([ids])
    inputs = {
        "input_ids": tokens,
        "pixel_values": torch.cat([picture.patches for picture in pictures]),
        "image_grid_thw": torch.tensor([picture.grid for picture in pictures]),
        "mm_token_type_ids": (tokens == model.config.image_token_id).int(),
    }
    before = model.model.language_model.config._attn_implementation
    model.model.language_model.set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True, use_cache=False)
    model.model.language_model.set_attn_implementation(before)
    told = output.logits[0, first - 1 : -1].log_softmax(-1)
    told = told.gather(1, tokens[0, first:, None]).sum()
    gradients = torch.autograd.grad(told, output.attentions)
    found = torch.eye(len(ids))
    for attention, gradient in zip(output.attentions, gradients, strict=True):
        found = found + (attention * gradient)[0].clamp(min=0).mean(0) @ found
    return found.detach()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_map_is_the_row_of_the_full_matrix(checkpoint: Callable[[str], Path], family: str) -> None:
    policy = load(checkpoint(family), dtype="float32")
    grid = policy.limits.grid
    messages, images = asked(policy, Size(5 * grid, 3 * grid))
    before = policy.model.model.language_model.config._attn_implementation
    found = relevance(policy, messages, images, "dark red")
    assert policy.model.model.language_model.config._attn_implementation == before != "eager"
    assert tuple(found.shape) == (3, 5) and float(found.min()) >= 0 and float(found.sum()) == pytest.approx(1)

    start, pictures = policy.read(policy.render(messages), images)
    ids, _ = policy.read(policy.render(messages) + "dark red", images)
    whole = by_autograd(policy, ids, pictures, len(start))
    image = ids.index(policy.model.config.image_token_id)
    rows = whole[len(start) - 1 : -1, image : image + 15]
    assert len(rows) == len(ids) - len(start) > 1
    expected = (rows / rows.sum(1, keepdim=True)).mean(0).view(3, 5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_reply_without_tokens(checkpoint: Callable[[str], Path]) -> None:
    policy = load(checkpoint("qwen2_5_vl"), dtype="float32")
    messages, images = asked(policy, Size(84, 84))
    with pytest.raises(ValueError, match="no tokens"):
        relevance(policy, messages, images, "")
    assert policy.model.model.language_model.config._attn_implementation != "eager"
