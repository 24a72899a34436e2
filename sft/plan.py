"""Says what a run would do, without loading any weights: `accelerate launch -m sft.train --config FILE --dry_run true`.

The model is built as in a run, but without memory (torch's meta device). What memory a run needs is an estimate, printed
with its formulas; it counts with as many processes as were launched.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from cof_agent.errors import InputError
from cof_agent.training import memory
from cof_agent.training.models import read_checkpoint
from cof_agent.training.trainer import last_whole_checkpoint
from sft import measure
from sft.curriculum import CurriculumRows, Plan
from sft.frame import Frame, frame_of
from sft.settings import CURRICULUM, Settings

SAMPLED = 16  # rows of the curriculum that are measured
HIDDEN = (  # settings that `settings.parse` decides, or that transformers fills in by itself
    "max_length",
    "assistant_only_loss",
    "remove_unused_columns",
    "activation_checkpointing",
    "dataloader_pin_memory",
    "disable_tqdm",
)


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on; with `exact` False, reckoned from a few samples."""

    samples: int
    tokens: int
    images: int
    longest: measure.Measure
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Steps:
    """Samples of one step (over all processes), steps of an epoch, steps of the run."""

    batch: int
    epoch: int
    total: int


def show(settings: Settings) -> None:
    """Prints the configuration, the parameters, the data, the steps, and the memory of one GPU.

    Raises:
        InputError: if the model or the data cannot be read, or LoRA cannot be put on the model.
    """
    if settings.training.process_index:
        return  # the others would say the same
    config, processor = read_checkpoint(settings)
    data = data_of(settings, processor, frame_of(config, processor))
    sharding = memory.sharding_of(settings)
    parts = memory.parts_of(config, settings, sharding)
    if sharding.engine == "FSDP":
        sharding = replace(sharding, gathered=memory.gathered_by_fsdp(parts, config))
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(_configuration_table(settings))
    console.print(_parts_table(parts))
    if settings.model.use_peft and not settings.run.freeze_projector:
        console.print("PEFT keeps the projector twice: as it was, and as it is trained.")
    console.print(_run_table(settings, data))
    if (checkpoint := last_whole_checkpoint(Path(settings.training.output_dir))) is not None:
        console.print(f"It would go on from {checkpoint}.")
    console.print(memory.table(settings, config, data.longest, parts, sharding))
    console.print(f"This is an estimate. It leaves out {memory.LEFT_OUT}.")
    if names := memory.rounded_away(parts, sharding):
        console.print(
            f"Warning: {' and '.join(names)} would be trained in 16 bit, with no float32 copy: steps as small as a "
            "learning rate of 1e-5 are then mostly rounded away. Freeze it, set dtype float32, or use DeepSpeed."
        )


def differing(given: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    return {field.name: value for field in fields(given) if (value := getattr(given, field.name)) != _default(field)}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _configuration_table(settings: Settings) -> Table:
    made = Table("setting", "value", title="Configuration: what differs from the defaults", title_justify="left")
    plain = (str, int, float, bool, list, dict)  # anything else was made from other settings
    training = {name: value for name, value in differing(settings.training).items() if isinstance(value, plain)}
    chosen: dict[str, Any] = {"model_name_or_path": "", **differing(settings.run), **differing(settings.model)}
    chosen |= {name: value for name, value in training.items() if name not in HIDDEN and value != []}
    chosen |= {"output_dir": settings.training.output_dir, "max_length": settings.max_length}
    chosen.pop("dry_run", None)
    for name, value in chosen.items():
        made.add_row(name, str(getattr(value, "value", value)))
    return made


def _parts_table(parts: Sequence[memory.Part]) -> Table:
    total, trained = sum(part.weights for part in parts), sum(part.trained for part in parts)
    made = Table(title="Parameters", title_justify="left", show_footer=True)
    made.add_column("part", "in all")
    for heading, footer in (("in all", f"{total:,}"), ("trained", f"{trained:,}"), ("share", f"{trained / total:.1%}")):
        made.add_column(heading, footer, justify="right")
    for part in parts:
        made.add_row(part.name, f"{part.weights:,}", f"{part.trained:,}", f"{part.trained / part.weights:.1%}")
    return made


def data_of(settings: Settings, processor: Any, frame: Frame) -> Data:
    """What a run would train on. Of the curriculum, whose rows are drawn when they are read, a few are measured.

    Raises:
        InputError: if it cannot be read, or nothing in it can be trained on.
    """
    from sft.train import read_data

    run = settings.run
    if run.data != CURRICULUM:
        kept = read_data(settings, processor, frame)[1].kept
        return _data(kept, len(kept))
    rows = CurriculumRows(Plan(**run.plan), settings.training.seed, min(SAMPLED, run.samples or 0))
    kept = measure.measure(rows, processor, frame, settings.max_length).kept
    if not kept:
        raise InputError(f"none of the first {len(rows)} rows of the curriculum can be trained on; raise max_length.")
    return _data(kept, run.samples or 0)


def _data(measured: Sequence[measure.Measure], samples: int) -> Data:
    tokens, images = fmean(one.tokens for one in measured), fmean(one.images for one in measured)
    longest = max(measured, key=lambda one: one.tokens)
    return Data(samples, round(samples * tokens), round(samples * images), longest, samples == len(measured))


def steps_of(training: Any, samples: int) -> Steps:
    """The optimiser's steps, counted as transformers' `Trainer` does."""
    share = training.per_device_train_batch_size * training.world_size
    batches = samples // share if training.dataloader_drop_last else math.ceil(samples / share)
    epoch = max(1, math.ceil(batches / training.gradient_accumulation_steps))
    total = training.max_steps if training.max_steps > 0 else math.ceil(training.num_train_epochs * epoch)
    return Steps(share * training.gradient_accumulation_steps, epoch, total)


def _run_table(settings: Settings, data: Data) -> Table:
    training, about = settings.training, "" if data.exact else "about "
    steps, size = steps_of(training, data.samples), training.per_device_train_batch_size
    made = Table(title="Run", title_justify="left", show_header=False)
    made.add_row("samples", f"{data.samples:,}")
    made.add_row("tokens", f"{about}{data.tokens:,}; the longest sample {about}{data.longest.tokens:,}")
    made.add_row("images", f"{about}{data.images:,}")
    processes = f"{training.world_size} process{'es' * (training.world_size > 1)}"
    product = f"{size} a device x {processes} x {training.gradient_accumulation_steps} accumulated"
    made.add_row("samples a step", f"{steps.batch:,} = {product}")
    made.add_row("steps", f"{steps.total:,}: {steps.total / steps.epoch:.2f} epochs of {steps.epoch:,}")
    made.add_row("of them warm-up", f"{training.get_warmup_steps(steps.total):,}")
    return made
