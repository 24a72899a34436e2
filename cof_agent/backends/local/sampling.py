"""Chooses the next token of conversations: the likeliest, or one drawn with random numbers of each conversation's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cof_agent.policy import Sampling

COLDEST = 1e-5
"""Temperature below which the likeliest token is taken, as vLLM does: logits divided by less are too large for float32."""


class Drawing(NamedTuple):
    """How the tokens of one conversation are chosen; `numbers` are its random ones, None for greedy."""

    sampling: Sampling
    numbers: torch.Generator | None


def drawing(sampling: Sampling) -> Drawing:
    """For one request, whose random numbers are its own, whatever else is in the batch."""
    if sampling.temperature <= COLDEST:
        return Drawing(sampling, None)
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return Drawing(sampling, generator)


def chosen(logits: Tensor, rows: Sequence[Drawing]) -> list[int]:
    """The next token of each row of logits [rows, vocabulary]: the likeliest, or drawn where a row has random numbers."""
    sampled = [index for index, row in enumerate(rows) if row.numbers is not None]
    found: list[int] = logits.argmax(-1).tolist() if len(sampled) < len(rows) else [0] * len(rows)
    if sampled:
        drawn = logits if len(sampled) == len(rows) else logits[sampled]
        for index, token in zip(sampled, _drawn(drawn, [rows[index] for index in sampled]), strict=True):
            found[index] = token
    return found


def logprobs_of(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """The natural logarithm of each token's probability by its row of logits [rows, vocabulary]."""
    wanted = torch.tensor(tokens, device=logits.device)[:, None]
    found: list[float] = logits.float().log_softmax(-1).gather(1, wanted)[:, 0].tolist()
    return found


def _drawn(logits: Tensor, rows: Sequence[Drawing]) -> list[int]:
    """One token for each row of logits [rows, vocabulary]: temperature, then the smallest set of tokens that holds `top_p`.

    All rows at once and where the logits lie: row by row, a large vocabulary would take longer than the model on a GPU.
    Only the point that decides comes from each row's own random numbers.
    """
    logits = logits.float() if logits.device.type in ("cpu", "cuda") else logits.float().cpu()  # others lack float64
    temperatures, bounds = (
        torch.tensor(values, device=logits.device)[:, None]
        for values in zip(*((row.sampling.temperature, row.sampling.top_p) for row in rows), strict=True)
    )
    chances = torch.softmax(logits / temperatures, -1)
    if any(row.sampling.top_p < 1 for row in rows):
        ranked, order = chances.sort(descending=True, stable=True)
        beyond = (ranked.cumsum(-1) - ranked >= bounds) & (bounds < 1)
        chances = chances.scatter(1, order, ranked.masked_fill(beyond, 0))
    # Along the vocabulary, not along the ranks: rounding may swap two ranks, and with them the token that is drawn.
    total = chances.double().cumsum(-1)
    points = total.new_tensor([float(torch.rand((), generator=row.numbers, dtype=torch.float64)) for row in rows])
    whole = total[:, -1:]
    # Below the whole, whatever rounding does: there the sum still grows, so what is found has a chance.
    points = torch.minimum(points[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
    found = torch.searchsorted(total, points, right=True)[:, 0]
    drawn: list[int] = found.clamp(max=total.shape[1] - 1).tolist()  # of NaN, a broken model's, it is beyond the last
    return drawn
