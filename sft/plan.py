"""Says what a run would do, without loading any weights: `accelerate launch -m sft.train --config FILE --dry_run true`.

What RL says too is in `cof_agent.training.plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.table import Table

from cof_agent.training import memory, plan
from cof_agent.training.models import read_checkpoint
from cof_agent.training.rows import batches_of
from sft import measure
from sft.conversations.ruler import Measure
from sft.frame import Frame, frame_of
from sft.settings import CURRICULUM, Settings

SAMPLED = 16  # rows of the curriculum that are measured


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on; with `exact` False, reckoned from a few samples."""

    samples: int
    tokens: int
    images: int
    longest: Measure
    exact: bool = True


def show(settings: Settings) -> None:
    """Prints the configuration, the parameters, the data, the steps, and the memory of one GPU.

    Raises:
        InputError: if the model or the data cannot be read, or LoRA cannot be put on the model.
    """
    if settings.training.process_index:
        return  # the others would say the same
    config, processor = read_checkpoint(settings)
    data = data_of(settings, processor, frame_of(config, processor))
    model = plan.model_of(settings, config)
    console = plan.printer()
    plan.show_setup(console, settings, model, max_length=settings.max_length)
    console.print(_run_table(settings, data))
    found = memory.estimate(settings, config, data.longest, model.parts, model.sharding)
    plan.show_memory(console, settings, model, found)


def data_of(settings: Settings, processor: Any, frame: Frame) -> Data:
    """What a run would train on. Of the curriculum, whose rows are drawn when they are read, a few are measured.

    Raises:
        InputError: if it cannot be read, or nothing in it can be trained on.
    """
    run = settings.run
    if run.data != CURRICULUM:
        kept = measure.read_data(settings, processor, frame)[1].kept
        return _data(kept, len(kept))
    from sft.nano.curriculum import CurriculumRows, Plan

    rows = CurriculumRows(Plan(**run.plan), settings.training.seed, min(SAMPLED, run.samples or 0))
    kept = measure.measure(rows, processor, frame, None).kept  # max_length is for data that might be longer
    return _data(kept, run.samples or 0)


def _data(measured: Sequence[Measure], samples: int) -> Data:
    tokens, images = fmean(one.tokens for one in measured), fmean(one.images for one in measured)
    longest = max(measured, key=lambda one: one.tokens)
    return Data(samples, round(samples * tokens), round(samples * images), longest, samples == len(measured))


def steps_of(training: Any, samples: int) -> plan.Steps:
    """The optimiser's steps, counted as transformers' `Trainer` does."""
    return plan.steps_of(training, batches_of(training, samples))


def _run_table(settings: Settings, data: Data) -> Table:
    about = "" if data.exact else "about "
    made = Table(title="Run", title_justify="left", show_header=False)
    made.add_row("samples", f"{data.samples:,}")
    made.add_row("tokens", f"{about}{data.tokens:,}; the longest sample {about}{data.longest.tokens:,}")
    made.add_row("images", f"{about}{data.images:,}")
    plan.add_steps(made, settings.training, steps_of(settings.training, data.samples), "samples")
    return made
