"""What one SFT run is made of, beside what every training run is (`cof_agent.training.settings`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.data.boxes import form_named
from cof_agent.data.samples import NO_BOXES
from cof_agent.data.spec import is_local
from cof_agent.errors import InputError, unknown
from cof_agent.scenes.imperfect import Faults
from cof_agent.training import settings
from cof_agent.training.distill import Distillation
from cof_agent.training.values import JsonMapping

if TYPE_CHECKING:
    from trl import SFTConfig

TRAINER = "SFTConfig"
"""TRL's part of the configuration, by name: importing TRL takes seconds."""
CURRICULUM = "curriculum"


@dataclass
class RunConfig(Distillation, settings.RunConfig):
    """What is trained on what, and how it is looked at. The rest is TRL's `SFTConfig` and `ModelConfig`.

    `--column` names the columns of conversations: messages=NAME, images=NAME, system=NAME, id=NAME; or question=NAME and
    answer=NAME.
    """

    data: str = field(
        default="",
        metadata={
            "metavar": "SPEC",
            "help": "trajectories (JSONL or their folder), or conversations: a file or folder of JSON, JSONL or Parquet, or a "
            "dataset of the hub; or curriculum, the rows that nano learns from",
        },
    )
    mix: list[str] = field(
        default_factory=list,
        metadata={"metavar": "SPEC", "help": "more data to train on, in one mixture with the first"},
    )
    plan: JsonMapping = field(
        default_factory=JsonMapping, metadata={"help": "of the curriculum: fields of sft.nano.curriculum.Plan, as JSON"}
    )


@dataclass(frozen=True)
class Settings(settings.Settings):
    """A run's resolved configuration; samples of more than `max_length` tokens are left out."""

    run: RunConfig
    training: SFTConfig
    max_length: int | None

    def derived(self) -> dict[str, Any]:
        """See `cof_agent.training.settings.Settings`."""
        return super().derived() | {"max_length": self.max_length}


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of `--config FILE [--key value ...]`.

    Raises:
        InputError: if the file cannot be read, a key or value is unknown, or what is asked for makes no sense.
    """
    from trl import SFTConfig

    run, training, model = settings.parse((RunConfig, SFTConfig), arguments)
    _check_data(run)
    if run.data == CURRICULUM and not run.samples:
        raise InputError("the curriculum has no end: say how many rows with --samples.")
    if run.data == CURRICULUM:
        _check_plan(run.plan)
    if training.packing or training.padding_free:
        raise InputError("packing and padding_free do not work with images; leave them out.")
    # Ours filters by length and masks by turn, whatever the template; TRL's would cut images in two.
    max_length, training.max_length, training.assistant_only_loss = training.max_length, None, False
    return Settings(run, training, model, max_length)


def _check_data(run: RunConfig) -> None:
    if CURRICULUM in run.mix or ((run.mix or run.distill) and run.data == CURRICULUM):
        raise InputError("the curriculum cannot be mixed with other data, nor distilled.")
    for place in run.mix:
        if is_local(place) and not Path(place).exists():
            raise InputError(f"there is no file or folder {place}, which mix names.")
    if run.boxes not in (None, NO_BOXES):
        form_named(run.boxes)


def _check_plan(plan: dict[str, Any]) -> None:
    from cof_agent.scenes.questions import CATEGORIES
    from sft.nano.curriculum import Plan

    if wrong := [name for name in plan if name not in Plan.__dataclass_fields__]:
        raise InputError(unknown("field of the curriculum's plan", wrong[0], list(Plan.__dataclass_fields__)))
    try:
        made = Plan(**plan)
        Faults(**made.faults)
        if min(made.long_sides) < 112:  # shown pixels: four cells
            raise ValueError("long_sides must be at least 112")
        if not all(0.1 <= part <= 1 for part in made.parts):
            raise ValueError("parts must lie between 0.1 and 1")
        if len(made.weights) != len(CATEGORIES) or min(made.weights) < 0 or not any(made.weights):
            raise ValueError(f"weights must be {len(CATEGORIES)} numbers from 0 on, for {', '.join(CATEGORIES)}")
    except (TypeError, ValueError) as error:
        raise InputError(f"the plan of the curriculum is not right: {error}; see `sft.nano.curriculum.Plan`.") from None
