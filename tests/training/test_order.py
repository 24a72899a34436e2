"""The rows of an epoch have one order, whether a training was interrupted or not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader, RandomSampler
from trl.trainer.utils import RepeatSampler

from cof_agent.training.order import SameOrder
from cof_agent.training.rows import EvenSampler
from rl.order import EpochSampler

ROWS = 24
EPOCHS = 3


DATA: Any = list(range(ROWS))


def sft(processes: int) -> Any:
    return shared(DataLoader(DATA, 2, sampler=RandomSampler(DATA)), processes)


def sft_evened(processes: int) -> Any:
    loader = sft(processes)
    loader.set_sampler(EvenSampler(loader.get_sampler(), list(range(ROWS)), 4))
    return loader


def rl(processes: int) -> Any:
    sampler = EpochSampler(RepeatSampler(range(ROWS), mini_repeat_count=2, batch_size=4, seed=7))
    return shared(DataLoader(DATA, 4, sampler=sampler), processes)


def shared(loader: Any, processes: int) -> Any:
    """The share of the last process."""
    return prepare_data_loader(
        loader,
        num_processes=processes,
        process_index=processes - 1,
        put_on_device=False,
        use_seedable_sampler=True,
        data_seed=3,
    )


def drawn(loader: Any, epoch: float, skipped: int = 0) -> list[list[int]]:
    """The batches of an epoch, as the Trainer draws them."""
    SameOrder().on_epoch_begin(None, SimpleNamespace(epoch=epoch), None, train_dataloader=loader)
    found = skip_first_batches(loader, skipped) if skipped else loader
    found.set_epoch(int(epoch))
    return [batch.tolist() for batch in found]


@pytest.mark.parametrize("made", [sft, sft_evened, rl])
def test_an_epoch_goes_on_in_its_own_order(made: Callable[[int], Any]) -> None:
    for processes in (1, 2):
        undisturbed = made(processes)
        whole = [drawn(undisturbed, epoch) for epoch in range(EPOCHS)]
        assert len({str(epoch) for epoch in whole}) == EPOCHS
        for epoch in range(EPOCHS):
            for skipped in (0, 2):
                resumed = made(processes)
                left = drawn(resumed, epoch + skipped / len(whole[epoch]), skipped)
                assert left == whole[epoch][skipped:], (processes, epoch, skipped)
                if epoch + 1 < EPOCHS:
                    assert drawn(resumed, epoch + 1) == whole[epoch + 1]


def test_the_order_of_rl_is_trls() -> None:
    theirs = RepeatSampler(range(ROWS), mini_repeat_count=2, batch_size=4, seed=7)
    ours = EpochSampler(RepeatSampler(range(ROWS), mini_repeat_count=2, batch_size=4, seed=7))
    for epoch in range(EPOCHS):
        ours.set_epoch(epoch)
        assert list(ours) == list(theirs)
    plain = EpochSampler(RepeatSampler(range(ROWS), mini_repeat_count=1, shuffle=False))
    plain.set_epoch(2)
    assert list(plain) == list(range(ROWS)) and len(plain) == ROWS
