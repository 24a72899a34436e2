"""The order in which RL draws samples: TRL's, by the number of the epoch.

`RepeatSampler` of TRL 1.16 draws one order after another from random numbers of its own, which no checkpoint holds: a run that
goes on after an interruption began with the order of the first epoch again, and played other samples than it would have played.
This file can go once it takes the number of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


class EpochSampler(Sampler[int]):
    """Gives in epoch n what TRL's sampler gives when it is asked for the n-th time, both counted from 0."""

    def __init__(self, sampler: RepeatSampler) -> None:
        self._sampler, self._epoch = sampler, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            generator = self._sampler.generator.manual_seed(self._sampler.seed)
            for _ in range(self._epoch):
                torch.randperm(self._sampler.num_samples, generator=generator)
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)
