"""What a training run is made of: a YAML file, command-line overrides, and the checks on both."""

from __future__ import annotations

import difflib
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from trl import ModelConfig, TrlParser

from cof_agent.errors import InputError, said
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.protocol import PROTOCOL_VERSION
from cof_agent.training.shipped import shipped
from cof_agent.trajectory import write_atomic

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "datasets",
    "pillow",
    "chain-of-focus",
)


@dataclass
class RunConfig:
    """What is trained on what, and how it is looked at; beside TRL's own configurations."""

    data: str = field(default="", metadata={"help": "What to train on."})
    split: str = field(default="train", metadata={"help": "Of a dataset."})
    samples: int | None = field(default=None, metadata={"help": "At most so many samples, the first ones."})
    freeze_vision: bool = field(default=False, metadata={"help": "Leave the vision tower as it is."})
    freeze_projector: bool = field(
        default=False, metadata={"help": "Leave the projector, from the tower to the language model, as it is."}
    )
    min_pixels: int | None = field(default=None, metadata={"help": "Least area of an image, in shown pixels."})
    max_pixels: int | None = field(default=None, metadata={"help": "Largest area of an image, in shown pixels."})
    eval_data: str | None = field(
        default=None, metadata={"help": "Held-out samples that the agent answers at each evaluation (`eval_steps`)."}
    )
    eval_samples: int = field(default=32, metadata={"help": "How many of them."})
    eval_blank: bool = field(
        default=False, metadata={"help": "Those that it zooms on also with grey crops, for `eval_crop_gain`."}
    )
    overview_pixels: int | None = field(
        default=None, metadata={"help": "Largest area of the overview that the agent is shown."}
    )
    resolutions: list[int] = field(
        default_factory=list,
        metadata={
            "help": "Long sides of the overview, one drawn for each sample that the agent plays; over overview_pixels."
        },
    )
    zoom_pixels: int | None = field(default=None, metadata={"help": "Largest area of a crop that it is shown."})
    max_zooms: int = field(default=6, metadata={"help": "Zooms that it may make."})
    turn_tokens: int = field(default=512, metadata={"help": "Tokens of one of its turns."})
    dry_run: bool = field(default=False, metadata={"help": "Say what would be done; load no weights."})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})


@dataclass(frozen=True)
class Settings:
    """A run's resolved configuration."""

    run: RunConfig
    training: TrainingArguments
    model: ModelConfig

    @property
    def model_path(self) -> str:
        """Directory or hub id of the checkpoint that training starts from."""
        return self.model.model_name_or_path or ""


_LEAST = {
    "per_device_train_batch_size": 1,
    "learning_rate": 0,
    "eval_samples": 1,
    "turn_tokens": 1,
    "max_zooms": 0,
    "threads": 0,
}


class _Parser(TrlParser):
    """TRL's parser; what is wrong is one sentence, not the usage of several hundred options."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}.")

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        """As TRL does it; a configuration may name another one that is shipped, such as DeepSpeed's."""
        named = {key: shipped(value) if isinstance(value, str) else value for key, value in config.items()}
        unknown: list[str] = super().set_defaults_with_config(**named)
        return unknown


def parse(kinds: tuple[type[Any], type[Any]], arguments: Sequence[str] | None = None) -> tuple[Any, Any, ModelConfig]:
    """The `RunConfig` and `TrainingArguments` of these kinds, and the model's, of `--config FILE [--key value ...]`.

    Raises:
        InputError: if the file cannot be read, a key or value is unknown, or what is asked for makes no sense.
    """
    parser = _Parser((*kinds, ModelConfig), allow_abbrev=False)
    given = [shipped(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    if not given:
        raise InputError("say what to train: --config FILE.yaml, or --help for all settings.")
    try:
        run, training, model, unknown = parser.parse_args_and_config(args=given, return_remaining_strings=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read the config {error.filename}: {error.strerror}.") from None
    except Exception as error:  # YAML that is none, a key of nobody, values that exclude each other
        raise InputError(f"the configuration is not right: {said(error)}") from None
    if unknown:
        raise InputError(_unknown(unknown[0], [option for one in parser._actions for option in one.option_strings]))
    if not model.model_name_or_path:
        raise InputError("say which model to train: --model_name_or_path DIR or hub id, or nano.")
    if model.model_name_or_path == NANO:
        model.model_name_or_path = str(WEIGHTS)
    _check(run, training)
    training.remove_unused_columns = False
    return run, training, model


def _check(run: RunConfig, training: TrainingArguments) -> None:
    if not run.data:
        raise InputError("say what to train on: --data FILE, folder or dataset.")
    if run.eval_data is None and training.eval_strategy != "no":
        raise InputError(
            "eval_strategy needs samples for the agent to answer: --eval_data DIR of `cof scenes`, or a set."
        )
    if any(long_side < 1 for long_side in run.resolutions):
        raise InputError("resolutions are long sides in pixels, at least 1.")
    for name, least in _LEAST.items():
        value = getattr(run if hasattr(run, name) else training, name)
        if value < least:
            raise InputError(f"{name} must be at least {least}, not {value}.")
    loggers = {*get_available_reporting_integrations(), "flyte"}  # which that leaves out
    for logger in training.report_to:
        if logger not in loggers:
            raise InputError(f"report_to: there is no {logger}, or its package is not installed here.")


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"there is no setting {key.lstrip('-')}" + (f"; is {close[0].lstrip('-')} meant?" if close else ".")


def write_record(settings: Settings) -> None:
    """`run.json` beside the checkpoints: the resolved configuration, versions, and the command."""
    path = Path(str(settings.training.output_dir)) / "run.json"
    write_atomic(path, json.dumps(record(settings), indent=2) + "\n")


def record(settings: Settings) -> dict[str, Any]:
    """What a run depends on, as JSON values."""
    made = {
        "command": sys.argv,
        "run": vars(settings.run),
        "model": {name: value for name, value in vars(settings.model).items() if value is not None},
        "training": settings.training.to_dict(),
        "protocol_version": PROTOCOL_VERSION,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return plain
