"""Rows of a batch: how many batches they fill, and those of like length together, so that little of a micro-batch is padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, gcd
from typing import Any

from torch.utils.data import Sampler

from cof_agent.errors import InputError


def batches_of(training: Any, rows: int) -> int:
    """Batches of an epoch on each process, counted as transformers' `Trainer` does.

    Raises:
        InputError: if there are none, for then the `Trainer` trains nothing, and says nothing of it.
    """
    batch, processes = int(training.per_device_train_batch_size), int(training.world_size)
    if not training.dataloader_drop_last:
        return ceil(rows / (batch * processes))
    if rows < batch * processes:
        raise InputError(
            f"dataloader_drop_last leaves out all of the {rows} rows, which fill no batch of {batch * processes} "
            f"(per_device_train_batch_size {batch} x {processes} process{'es' * (processes > 1)}): set it to false, or train "
            "on more rows."
        )
    return rows // (batch * processes)


def by_length(lengths: Sequence[int], window: int) -> list[int]:
    """The places of rows in an order in which each window of so many rows holds the same rows as before, the longest first.

    What an optimiser step is made of stays, where a step is a number of windows. The longest rows come first, so that a run
    whose memory does not suffice fails at once.
    """
    places = list(range(len(lengths)))
    windows = (places[start : start + window] for start in range(0, len(places), window))
    return [place for part in windows for place in sorted(part, key=lambda place: -lengths[place])]


def window_of(micro_batches: int, accumulated: int, rows: int) -> int:
    """How many rows may be put in another order, where so many micro-batches of `rows` rows are made at a time, and so many are
    accumulated for a step: none of them leaves its step, wherever in a step they begin to be used."""
    return gcd(micro_batches, accumulated) * rows


class EvenSampler(Sampler[int]):
    """The rows of another sampler, with those of like length together in each step.

    lengths: of all rows of the data set. step: rows of an optimiser step, over all processes.
    """

    def __init__(self, sampler: Any, lengths: Sequence[int], step: int) -> None:
        self._sampler, self._lengths, self._step = sampler, lengths, step

    def __iter__(self) -> Iterator[int]:
        drawn: Iterable[int] = self._sampler
        rows = list(drawn)
        return iter([rows[place] for place in by_length([self._lengths[row] for row in rows], self._step)])

    def __len__(self) -> int:
        return len(self._sampler)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the random numbers of the epoch, where the other sampler has any."""
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)
