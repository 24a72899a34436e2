"""Cuts what pads the rows of a generation, which TRL makes as long as the longest of all of them.

A row is a conversation: its prompt, padded on the left, and its completion, padded on the right. Of TRL's functions for rows
with images, those are used here that its trainer uses itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from cof_agent.training.rows import by_length

Rows = dict[str, Any]
"""Tensors by name, the rows along their first dimension, but that of the images, of which `num_images` tells those of a row."""

Scores = tuple[Tensor, Tensor | None, Tensor | None]
"""What TRL's `_get_per_token_logps_and_entropies` returns: log-probabilities and entropies, [rows, completion], a loss."""

COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Tensors whose second dimension runs over prompt and completion."""


def scored(
    score: Callable[..., Scores], rows: Rows, kept: int, batch_size: int | None = None, multiple: int | None = None
) -> Scores:
    """What `score` gives for rows, of which `kept` tokens are completion, without what pads them: so many rows at a time
    (`batch_size`), each time rows of like length. multiple: of this many tokens prompts and completions shall be.

    score: takes the rows as keywords, and `logits_to_keep`.
    """
    rows = {name: value for name, value in rows.items() if value is not None}
    count = len(rows["input_ids"])
    size = batch_size or count
    if size >= count:
        return _scored(score, rows, kept, multiple)
    order = by_length(rows["attention_mask"].sum(1).tolist(), count)
    split = split_pixel_values_by_grid(rows)
    parts = (take(split, order[start : start + size]) for start in range(0, count, size))
    found = [_scored(score, part, kept, multiple) for part in parts]
    places = torch.tensor(order).argsort().to(rows["input_ids"].device)
    logps, entropies, losses = zip(*found, strict=True)
    return (
        torch.cat(logps)[places],
        None if entropies[0] is None else torch.cat(entropies)[places],
        None if losses[0] is None else torch.stack(losses).mean(),
    )


def _scored(score: Callable[..., Scores], rows: Rows, kept: int, multiple: int | None) -> Scores:
    mask = rows["attention_mask"]
    prompt, completion = (_longest(part, multiple) for part in (mask[:, :-kept], mask[:, -kept:]))
    first, last = mask.shape[1] - kept - prompt, mask.shape[1] - kept + completion
    cut = {name: value[:, first:last] if name in COLUMNS else value for name, value in rows.items()}
    logps, entropies, loss = score(logits_to_keep=completion, **cut)
    padding = (0, kept - completion)
    return F.pad(logps, padding), None if entropies is None else F.pad(entropies, padding), loss


def _longest(mask: Tensor, multiple: int | None) -> int:
    """Columns that the longest row of a mask needs."""
    longest = max(1, int(mask.sum(1).max()))
    whole = longest if multiple is None else -(-longest // multiple) * multiple
    return min(whole, mask.shape[1])


def take(split: Rows, places: Sequence[int]) -> Rows:
    """Some of the rows, images included; `split`: with images by the row, as `split_pixel_values_by_grid` gives them."""
    index = torch.tensor(list(places))

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[index.to(value.device)] if value.ndim else value
        return [value[place] for place in places]

    return dict(unsplit_pixel_values_by_grid({name: part(value) for name, value in split.items()}))


def alike_wherever(trainer: Any) -> bool:
    """Whether a row adds the same to its step in whichever micro-batch it stands.

    It does not where TRL takes a mean over the tokens of a micro-batch (the loss bnpo, the entropy bonus, the balance of
    experts), or a quantile (`top_entropy_quantile`).
    """
    means = trainer.loss_type == "bnpo" or trainer._entropy_bonus_enabled or trainer.aux_loss_enabled
    return not means and trainer.top_entropy_quantile >= 1


def evened(batches: Sequence[Rows], window: int) -> list[Rows]:
    """Micro-batches of the same rows, those of like length together, each row in its window of so many rows."""
    split = together([split_pixel_values_by_grid(batch) for batch in batches])
    lengths = (split["prompt_mask"].sum(1) + split["completion_mask"].sum(1)).tolist()
    order = by_length(lengths, window)
    size = len(order) // len(batches)
    return [take(split, order[start : start + size]) for start in range(0, len(order), size)]


def together(batches: Sequence[Rows]) -> Rows:
    """All rows of several batches; `batches`: with images by the row."""

    def joined(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(values) if values[0].ndim else values[0]
        return None if values[0] is None else [entry for value in values for entry in value]

    return {name: joined([batch[name] for batch in batches]) for name in batches[0]}
