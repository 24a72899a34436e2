"""Rows of like length stand together, in the steps that they were drawn for, on any number of processes and after any resume."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from torch.utils.data import DataLoader

from cof_agent.errors import InputError
from cof_agent.training.rows import EvenSampler, batches_of, by_length, window_of

LENGTHS = [37 * row % 101 for row in range(48)]
STEP = 12  # rows: of two processes, three micro-batches of two


def test_rows_stay_in_their_windows() -> None:
    assert by_length([3, 9, 1, 7, 5, 5, 8], 3) == [1, 0, 2, 3, 4, 5, 6]
    assert by_length([1, 2, 3], 1) == [0, 1, 2]
    assert [window_of(*sizes) for sizes in ((4, 4, 2), (8, 4, 2), (2, 4, 3), (4, 3, 5))] == [8, 8, 6, 5]


@pytest.mark.parametrize(("rows", "processes"), [(1, 1), (7, 1), (8, 1), (15, 2), (16, 2), (49, 3)])
def test_batches_are_counted_as_the_trainer_makes_them(rows: int, processes: int) -> None:
    def training(drop: bool) -> SimpleNamespace:
        return SimpleNamespace(per_device_train_batch_size=8, world_size=processes, dataloader_drop_last=drop)

    def made(drop: bool) -> int:
        batches: DataLoader[int] = DataLoader(list(range(rows)), batch_size=8, drop_last=drop)  # type: ignore[arg-type]
        return len(prepare_data_loader(batches, num_processes=processes, process_index=0, put_on_device=False))

    assert batches_of(training(False), rows) == made(False)
    if made(True):
        assert batches_of(training(True), rows) == made(True)
        return
    sentence = rf"dataloader_drop_last leaves out all of the {rows} rows, which fill no batch of {8 * processes} \("
    with pytest.raises(InputError, match=sentence):
        batches_of(training(True), rows)


def loader(process: int, processes: int, *, even: bool) -> DataLoader[int]:
    rows = list(range(len(LENGTHS)))
    drawn = SeedableRandomSampler(rows, data_seed=5)  # type: ignore[no-untyped-call]
    sampler = EvenSampler(drawn, LENGTHS, STEP) if even else drawn
    batches: DataLoader[int] = DataLoader(rows, batch_size=2, sampler=sampler, collate_fn=list)  # type: ignore[arg-type]
    prepared: DataLoader[int] = prepare_data_loader(
        batches, num_processes=processes, process_index=process, put_on_device=False
    )
    return prepared


def steps(loaders: list[DataLoader[int]]) -> list[list[list[int]]]:
    """The micro-batches of each step, over all processes."""
    in_order = [list(found) for together in zip(*loaders, strict=True) for found in together]
    return [in_order[start : start + STEP // 2] for start in range(0, len(in_order), STEP // 2)]


def test_each_step_has_its_own_rows_in_like_lengths() -> None:
    for processes in (1, 2):
        plain, even = (
            steps([loader(one, processes, even=choice) for one in range(processes)]) for choice in (False, True)
        )
        assert len(plain) == 4 and plain != even
        for before, after in zip(plain, even, strict=True):
            rows = [row for batch in after for row in batch]
            assert sorted(rows) == sorted(row for batch in before for row in batch)
            assert [LENGTHS[row] for row in rows] == sorted((LENGTHS[row] for row in rows), reverse=True)


def test_a_resumed_epoch_goes_on_where_it_was() -> None:
    whole = loader(0, 1, even=True)
    whole.set_epoch(1)  # type: ignore[attr-defined]
    expected = list(whole)
    assert expected != list(loader(0, 1, even=True))  # of epoch 0
    resumed = skip_first_batches(loader(0, 1, even=True), 7)
    resumed.set_epoch(1)
    assert list(resumed) == expected[7:]
