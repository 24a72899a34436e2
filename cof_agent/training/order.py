"""A training that goes on after an interruption draws the rows of an epoch in the order of one that was not interrupted."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

_ROUNDING = 1e-6  # of an epoch


class SameOrder(TrainerCallback):
    """Tells the sampler which epoch begins.

    The Trainer of transformers 5.23 and accelerate's loaders tell it too, but not a sampler of ours where batches are skipped and
    several processes share them: there the epoch that a run goes on with would have the order of the first one.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        sampler = sampler_of(train_dataloader)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int((state.epoch or 0) + _ROUNDING))


def sampler_of(loader: Any) -> Any:
    """What draws rows, behind the batches and their shares for each process."""
    batches = loader.batch_sampler
    while hasattr(batches, "batch_sampler"):
        batches = batches.batch_sampler
    return batches.sampler
