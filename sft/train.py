"""Fine-tunes a model on zoom trajectories: `accelerate launch -m sft.train --config sft/configs/NAME.yaml [--key value ...]`.

Loss falls on every assistant turn and on nothing else. The same command on one CPU and on many GPUs; after an
interruption it goes on from the last whole checkpoint, with the same order of data, optimiser and random numbers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import get_worker_info
from transformers import set_seed

from cof_agent.training.command import explained
from cof_agent.training.models import load_model, lora, read_checkpoint
from cof_agent.training.progress import GRADIENT, PACE, RATE, Column, progress
from cof_agent.training.resume import check_continues, says_finished, train_and_save
from cof_agent.training.rows import batches_of
from cof_agent.training.settings import record
from cof_agent.training.trainer import held_out_of
from sft import measure
from sft.collate import AssistantCollator
from sft.dataset import Rows
from sft.frame import frame_of
from sft.settings import Settings, parse
from sft.trainer import ZoomSFTTrainer

COLUMNS = (
    Column("loss", "loss", ".4f"),
    Column("accuracy", "mean_token_accuracy", ".3f"),
    Column("tokens/s", "tokens/second", ".0f"),
    RATE,
    PACE,
    GRADIENT,
    Column("epoch", "epoch", ".2f"),
)
"""Of the progress. Accuracy is that of single tokens whose predecessors are given."""


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    check_continues(settings)
    if settings.run.dry_run:
        from sft import plan

        plan.show(settings)
        return
    if not says_finished(settings.training):
        train_and_save(build_trainer(settings), settings)


def build_trainer(settings: Settings) -> ZoomSFTTrainer:
    """The trainer with its model, processor and data; nothing is trained yet.

    Raises:
        InputError: if the model or the data cannot be read, or nothing in the data can be trained on.
    """
    run, training = settings.run, settings.training
    if run.threads:
        torch.set_num_threads(run.threads)
    set_seed(training.seed)  # also of an adapter's first weights, which are drawn before the trainer sets its own
    config, processor = read_checkpoint(settings)
    frame = frame_of(config, processor)
    rows, measured = measure.read_data(settings, processor, frame)
    batches_of(training, len(measured.kept))  # refuses too few of them before the weights are read
    held_out = held_out_of(settings)
    return ZoomSFTTrainer(
        model=load_model(settings),
        args=training,
        processing_class=processor,
        data_collator=AssistantCollator(processor, frame.family.markers),
        train_dataset=as_dataset(rows, [one.index for one in measured.kept]),
        eval_dataset=as_dataset(rows, [measured.kept[0].index]) if held_out else None,  # the trainer insists on one
        peft_config=lora(settings, config) if settings.model.use_peft else None,
        agent=settings.run.agent_config(),
        held_out=held_out,
        blank_control=run.eval_blank,
        record=record(settings) | {"data": _figures(measured)},
        lengths=[one.tokens for one in measured.kept],
        callbacks=progress(COLUMNS, quiet=run.quiet),
    )


def _figures(measured: measure.Measured) -> dict[str, Any]:
    kept = measured.kept
    return {
        "samples": len(kept),
        "left out": len(measured.left_out),
        "tokens": sum(one.tokens for one in kept),
        "images": sum(one.images for one in kept),
        "digest": zlib.crc32(",".join(str(one.digest) for one in kept).encode()),
    }


def as_dataset(rows: Rows, indices: list[int]) -> Dataset:
    """Rows that are made when they are read, so that nothing is decoded ahead and a resumed run skips in no time."""

    def read(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        yield_to_training()
        made = [rows.row(index) for index in batch["index"]]
        return {key: [entry[key] for entry in made] for key in made[0]}

    return Dataset.from_dict({"index": indices}).with_transform(read)


@cache
def yield_to_training() -> None:
    """Lower the priority of a data worker: a core taken from a two-threaded matrix product stalls the other one too."""
    if get_worker_info() is not None:
        os.nice(19)


if __name__ == "__main__":
    explained("sft.train", main)
