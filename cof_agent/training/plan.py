"""What a dry run of SFT and of RL both say: the configuration, the parameters by part, and the memory of one GPU.

The model is built as in a run, but without memory (torch's meta device). What memory a run needs is an estimate, printed
with its formulas; it counts with as many processes as were launched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cof_agent.output.terminal import console
from cof_agent.training import memory
from cof_agent.training.resume import last_whole_checkpoint, step_of_finished
from cof_agent.training.settings import Settings

HIDDEN = (  # settings that `parse` decides, or that transformers and TRL fill in by themselves
    "max_length",
    "assistant_only_loss",
    "remove_unused_columns",
    "activation_checkpointing",
    "dataloader_pin_memory",
    "disable_tqdm",
    "generation_batch_size",
    "pad_to_multiple_of",
)


@dataclass(frozen=True, slots=True)
class Model:
    """What is trained: the checkpoint's configuration, its parts, and how the processes divide them."""

    config: Any
    parts: list[memory.Part]
    sharding: memory.Sharding


@dataclass(frozen=True, slots=True)
class Steps:
    """Samples of one step (over all processes), steps of an epoch, steps of the run."""

    batch: int
    epoch: int
    total: int


def model_of(settings: Settings, config: Any) -> Model:
    """The model as a run would train it; `config`: the checkpoint's.

    Raises:
        InputError: if LoRA cannot be put on the model.
    """
    sharding = memory.sharding_of(settings)
    parts = memory.parts_of(config, settings, sharding)
    if sharding.engine == "FSDP":
        sharding = replace(sharding, gathered=memory.gathered_by_fsdp(parts, config))
    return Model(config, parts, sharding)


def printer() -> Console:
    """Where a dry run is printed."""
    return console()


def show_setup(console: Console, settings: Settings, model: Model, **resolved: Any) -> None:
    """Prints the configuration (`resolved`: settings that it holds in another place) and the parameters."""
    console.print(_configuration_table(settings, resolved))
    console.print(_parts_table(model.parts))
    if settings.model.use_peft and not settings.run.freeze_projector:
        console.print("PEFT keeps the projector twice: as it was, and as it is trained.")


def show_memory(console: Console, settings: Settings, model: Model, found: memory.Estimate) -> None:
    """Prints from where the run would go on, the estimate, and what speaks against the run."""
    if (done := step_of_finished(settings.training)) is not None:
        console.print(f"It would do nothing: the run has finished with step {done}.")
    elif (checkpoint := last_whole_checkpoint(Path(str(settings.training.output_dir)))) is not None:
        console.print(f"It would go on from {checkpoint}.")
    console.print(memory.table(found, model.sharding))
    console.print(f"This is an estimate. It leaves out {memory.LEFT_OUT}.")
    if names := memory.rounded_away(model.parts, model.sharding):
        console.print(
            f"Warning: {' and '.join(names)} would be trained in 16 bit, with no float32 copy: steps as small as a "
            "learning rate of 1e-5 are then mostly rounded away. Freeze it, set dtype float32, or use DeepSpeed."
        )


def differing(given: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    return {field.name: value for field in fields(given) if (value := getattr(given, field.name)) != _default(field)}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _configuration_table(settings: Settings, resolved: dict[str, Any]) -> Table:
    made = Table("setting", "value", title="Configuration: what differs from the defaults", title_justify="left")
    plain = (str, int, float, bool, list, dict)  # anything else was made from other settings
    training = {name: value for name, value in differing(settings.training).items() if isinstance(value, plain)}
    chosen: dict[str, Any] = {"model_name_or_path": "", **differing(settings.run), **differing(settings.model)}
    chosen |= {name: value for name, value in training.items() if name not in HIDDEN and value != []}
    chosen |= {"output_dir": settings.training.output_dir, **resolved}
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


def steps_of(training: Any, batches: int) -> Steps:
    """The optimiser's steps of an epoch of so many batches on each process, counted as transformers' `Trainer` does."""
    epoch = max(1, math.ceil(batches / training.gradient_accumulation_steps))
    total = training.max_steps if training.max_steps > 0 else math.ceil(training.num_train_epochs * epoch)
    batch = training.per_device_train_batch_size * training.world_size * training.gradient_accumulation_steps
    return Steps(batch, epoch, total)


def add_steps(made: Table, training: Any, steps: Steps, unit: str) -> None:
    """Rows of a table about the run: what a step is made of (`unit`: samples, say), and how many there are."""
    processes = f"{training.world_size} process{'es' * (training.world_size > 1)}"
    product = f"{training.per_device_train_batch_size} a device x {processes}"
    product += f" x {training.gradient_accumulation_steps} accumulated"
    made.add_row(f"{unit} a step", f"{steps.batch:,} = {product}")
    made.add_row("steps", f"{steps.total:,}: {steps.total / steps.epoch:.2f} epochs of {steps.epoch:,}")
    made.add_row("of them warm-up", f"{training.get_warmup_steps(steps.total):,}")
