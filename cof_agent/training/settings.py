"""What a training run is made of: a YAML file, command-line overrides, and the checks on both."""

from __future__ import annotations

import json
import logging
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends.secrets import hidden_addresses
from cof_agent.config import AgentConfig, read_prompt
from cof_agent.data.source import Source
from cof_agent.episodes import Resolutions
from cof_agent.errors import InputError, unknown
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.output.files import write_json
from cof_agent.output.install import how_to_install
from cof_agent.protocol import PROTOCOL_VERSION
from cof_agent.protocol.dialects import beside
from cof_agent.training import keys

if TYPE_CHECKING:
    from transformers import TrainingArguments
    from trl import ModelConfig

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


def like(kind: type[Any], name: str) -> Any:
    """A field with the default and the help text that the field of this name has in another dataclass."""
    (found,) = (one for one in fields(kind) if one.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass
class RunConfig(Source):
    """What is trained on what, and how the agent runs; beside TRL's own configurations."""

    freeze_vision: bool = field(default=False, metadata={"help": "leave the vision tower as it is"})
    freeze_projector: bool = field(
        default=False, metadata={"help": "leave the projector (vision tower to language model) as it is"}
    )
    min_pixels: int | None = field(
        default=None, metadata={"help": "least area of an image, in shown pixels (default: the model's own)"}
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "largest area of an image, in shown pixels (default: the model's own)"}
    )
    eval_data: str | None = field(
        default=None,
        metadata={
            "metavar": "SPEC",
            "help": "held-out samples that the agent answers at each evaluation; set eval_strategy too. They are read with the "
            "same column, boxes and download",
        },
    )
    eval_samples: int = field(default=32, metadata={"help": "number of held-out samples"})
    eval_blank: bool = field(
        default=False, metadata={"help": "also answer with grey crops what it zoomed on, for eval_crop_gain"}
    )
    resolutions: Resolutions = field(
        default_factory=Resolutions,
        metadata={
            "metavar": "A,B",
            "help": "long sides of the overview in shown pixels, one drawn for each sample that the agent plays",
        },
    )
    overview_pixels: int | None = like(AgentConfig, "overview_pixels")
    zoom_pixels: int | None = like(AgentConfig, "zoom_pixels")
    max_zooms: int | None = like(AgentConfig, "max_zooms")
    enlarge: float | None = like(AgentConfig, "enlarge")
    min_side: int | None = like(AgentConfig, "min_side")
    zoom_scale: float | None = like(AgentConfig, "zoom_scale")
    max_source_pixels: int = like(AgentConfig, "max_source_pixels")
    max_tokens: int | None = like(AgentConfig, "max_tokens")
    timeout: float = like(AgentConfig, "timeout")
    strategy: str = like(AgentConfig, "strategy")
    dialect: str | None = like(AgentConfig, "dialect")
    system_prompt: str | None = like(AgentConfig, "system_prompt")
    tools: list[str] = field(
        default_factory=list, metadata={"help": "tools of your own beside the zoom, each as MODULE:FUNCTION"}
    )
    dry_run: bool = field(default=False, metadata={"help": "say what would be done, and load no weights"})
    threads: int = field(default=0, metadata={"help": "number of CPU threads; 0 leaves it to torch"})
    quiet: bool = field(default=False, metadata={"help": "print the result only: no progress and no details"})
    verbose: bool = field(default=False, metadata={"help": "also print debug messages"})

    def agent_config(self) -> AgentConfig:
        """How the agent runs; at evaluation it is greedy.

        Raises:
            InputError: if a value makes no sense, or the system prompt cannot be read.
        """
        shared = {one.name for one in fields(AgentConfig)} & {one.name for one in fields(RunConfig)}
        given = {name: getattr(self, name) for name in shared}
        return AgentConfig(**{**given, "tools": tuple(self.tools), "system_prompt": read_prompt(self.system_prompt)})


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

    def derived(self) -> dict[str, Any]:
        """What follows from the settings and belongs to their record."""
        train = self.training
        return {
            "rows_per_update": train.per_device_train_batch_size * train.gradient_accumulation_steps * train.world_size
        }


_LEAST = {
    "per_device_train_batch_size": 1,
    "learning_rate": 0,
    "samples": 0,
    "eval_samples": 1,
    "threads": 0,
}


def parse(kinds: tuple[type[Any], type[Any]], arguments: Sequence[str] | None = None) -> tuple[Any, Any, ModelConfig]:
    """The `RunConfig` and `TrainingArguments` of these kinds, and the model's, of `--config FILE [--key value ...]`.

    Raises:
        InputError: if the file cannot be read, a key or value is unknown, or what is asked for makes no sense.
    """
    found = keys.given(sys.argv[1:] if arguments is None else arguments)
    whole = {} if {"help", "h"} & set(found) else keys.check(found, kinds[0], kinds[1].__name__)
    from transformers.utils import logging as transformers_logging

    from cof_agent.training.parser import KeyParser  # which imports TRL

    planned = str(whole.get("dry_run", False)).lower() not in ("false", "no", "0")
    run, training, model = KeyParser(*kinds).read(keys.arguments_of(found), planned=planned)
    _check_left_out(training, model)
    if model.model_name_or_path == NANO:
        model.model_name_or_path = str(WEIGHTS)
    if run.dialect is None and (recorded := beside(model.model_name_or_path or "")):
        run.dialect = str(recorded)
    _check(run, training)
    _check_best(run, training, whole)
    training.remove_unused_columns = False
    if run.quiet:
        training.disable_tqdm = True
    if run.quiet or not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # of weights and downloads; a log file is no place for it
    if run.verbose:
        logging.getLogger("cof_agent").setLevel(logging.DEBUG)  # in each process of a training
    return run, training, model


def _check_left_out(training: TrainingArguments, model: ModelConfig) -> None:
    """Refuses what `keys.INSTEAD` does with some values only."""
    if model.model_revision not in (None, "main"):
        raise InputError(
            f"model_revision: download {model.model_revision} first (hf download REPOSITORY --revision ... --local-dir DIR), and "
            "name that folder: the engine and a reference model must be of the same revision."
        )
    if getattr(training, "trust_remote_code", False):
        raise InputError("trust_remote_code: a checkpoint's own code is never run; leave it out.")
    if str(training.resume_from_checkpoint or "true").lower() != "true":
        raise InputError(
            "resume_from_checkpoint: leave it out; a run goes on from the newest checkpoint of its output_dir. To begin with the "
            "weights of another: --model CHECKPOINT, and an output_dir of its own."
        )
    if training.push_to_hub:
        raise InputError(
            "push_to_hub: leave it out, since it publishes the whole output_dir, with images, rollouts, verdicts and paths of "
            f"this machine; when the run has finished, give: {upload_of(str(training.output_dir))}"
        )
    if not getattr(training, "ds3_gather_for_generation", True):
        raise InputError("ds3_gather_for_generation: the agent always plays with gathered weights; leave it out.")


def upload_of(output: str) -> str:
    """The command that uploads the model of an output folder: its weights, configurations, tokenizer, templates and dialect."""
    files = ("*.safetensors*", "*config.json", "token*", "*.jinja", "dialect.yaml")
    wanted = " ".join(f"--include {shlex.quote(name)}" for name in files)
    return f"hf upload REPO {shlex.quote(output)} . {wanted} --exclude 'checkpoint-*'"


def _check(run: RunConfig, training: TrainingArguments) -> None:
    from cof_agent.agent import check as check_agent

    if training.eval_on_start and training.eval_strategy == "no":
        raise InputError("eval_on_start needs eval_strategy, and samples for the agent to answer: --eval-data.")
    if run.eval_data is None and training.eval_strategy != "no":
        raise InputError(
            "eval_strategy needs samples for the agent to answer: --eval-data DIR of `cof scenes`, or a set."
        )
    if run.eval_data is not None and training.eval_strategy == "no":
        raise InputError(
            "eval_data does nothing without eval_strategy: say when the agent answers them, steps or epoch."
        )
    check_agent(run.agent_config())
    for name, least in _LEAST.items():
        value = getattr(run if hasattr(run, name) else training, name)
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}.")
    if training.train_sampling_strategy not in ("random", "sequential"):
        raise InputError(
            f"train_sampling_strategy must be random or sequential, not {training.train_sampling_strategy}: rows of like length "
            "are trained on together anyway."
        )
    _check_trackers(training.report_to)


_BETTER = {"accuracy": True, "answered": True, "crop_gain": True, "malformed": False, "zooms": False}
"""The figures of an evaluation, and whether more of them is better."""


def _check_best(run: RunConfig, training: TrainingArguments, whole: Mapping[str, Any]) -> None:
    """Refuses to choose the best checkpoint by what no evaluation tells, or the wrong way round. whole: what was given."""
    metric = str(training.metric_for_best_model or "").removeprefix("eval_")
    if not metric:
        return
    if whole.get("metric_for_best_model") is None:  # transformers chooses the loss, which is not measured
        raise InputError(f"load_best_model_at_end needs metric_for_best_model: one of {', '.join(_BETTER)}.")
    if metric not in _BETTER:
        raise InputError(unknown("metric_for_best_model", metric, list(_BETTER)))
    if metric == "crop_gain" and not run.eval_blank:
        raise InputError("metric_for_best_model crop_gain needs eval_blank: the same questions with grey crops.")
    if whole.get("greater_is_better") is None:
        training.greater_is_better = _BETTER[metric]


_PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""Packages that are not called as their tracker in `report_to`."""


def _check_trackers(named: Sequence[str]) -> None:
    from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    there = {*get_available_reporting_integrations(), "flyte"}  # which that leaves out
    for tracker in named:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"report_to: {unknown('tracker', tracker, sorted(INTEGRATION_TO_CALLBACK))}")
        if tracker not in there:
            package = how_to_install(_PACKAGES.get(tracker, tracker))
            raise InputError(f"report_to: {tracker} is not installed here: {package}.")


def write_record(settings: Settings, data: Mapping[str, Any] | None = None) -> None:
    """`run.json` beside the checkpoints: the resolved configuration, versions, and the command. data: figures of what is trained
    on."""
    path = Path(str(settings.training.output_dir)) / "run.json"
    write_json(path, record(settings) | {"data": data})


def record(settings: Settings) -> dict[str, Any]:
    """What a run depends on, as JSON values."""
    made = {
        "command": sys.argv,
        "run": vars(settings.run) | settings.derived(),
        "model": {name: value for name, value in vars(settings.model).items() if value is not None},
        "training": settings.training.to_dict(),
        "protocol_version": PROTOCOL_VERSION,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }
    plain: dict[str, Any] = json.loads(hidden_addresses(json.dumps(made, default=str)))
    return plain
