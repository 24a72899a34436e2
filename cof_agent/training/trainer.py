"""What a trainer of zoom agents does beside training: it lets the agent answer held-out samples, free-running, and it writes
and reads whole checkpoints.

The loss of a conversation whose words are given says little of whether the model finds anything by itself.
"""

from __future__ import annotations

import ctypes
import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from trl.models.utils import unwrap_model_for_generation

from cof_agent.agent import Agent
from cof_agent.backends import families
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.reader import Reader
from cof_agent.backends.scenes_only import IN_TRAINING
from cof_agent.config import AgentConfig
from cof_agent.data.columns import FIELDS
from cof_agent.data.samples import read_samples
from cof_agent.environment import CropMode
from cof_agent.episodes import Episode, by_key, drawn
from cof_agent.errors import InputError
from cof_agent.evaluation.metrics import figures as figures_of
from cof_agent.nano import WEIGHTS
from cof_agent.output.files import write_atomic
from cof_agent.protocol import dialects
from cof_agent.training import card
from cof_agent.training.order import SameOrder
from cof_agent.training.settings import Settings
from cof_agent.trajectory import Trajectory, from_json, to_json

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object  # a mixin, so that any of TRL's trainers can be the base

_log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reader)


def policy_of(model: Any, processor: Any, config: AgentConfig, kind: Callable[..., R], **options: Any) -> R:
    """A `Reader` of this kind for a model in training (for its base, where it is an adapter)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    overview, zoom = config.areas
    pixels = {"max_pixels": overview, "zoom_pixels": zoom}
    name = IN_TRAINING if base.name_or_path == str(WEIGHTS) else "in training"
    return kind(base, processor, name=name, **pixels, **options)


class ZoomTrainer(Base):
    """Mixed into a trainer of TRL: the agent answers held-out samples, and checkpoints are whole.

    `evaluate` gives `eval_accuracy`, `eval_zooms`, `eval_malformed` and `eval_answered` of the free-running agent; with
    `blank_control` also `eval_crop_gain`: how much more often it is right on the samples that it zoomed on than it is with
    grey crops.

    agent: how the agent runs. held_out: what it answers at each evaluation. record: what the model card is made from.
    A checkpoint that cannot be written whole is removed.
    """

    def __init__(
        self,
        *arguments: Any,
        agent: AgentConfig,
        held_out: Sequence[Episode] | None,
        record: dict[str, Any],
        blank_control: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        for spoken in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):  # all figures of a step; see `training.progress`
            self.remove_callback(spoken)
        # On Hopper GPUs cuDNN's attention, torch's choice since 2.11, has gradients that are NaN where there is a mask and
        # the length is 64 beyond a multiple of 128 (pytorch issue 196678); the other kernels have not.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self._agent, self._held_out, self.record = agent, held_out, record
        self._blank_control = blank_control
        _leave_alone_what_is_frozen(self.model)
        self.add_callback(SameOrder())
        if self.args.use_cpu:
            self.add_callback(_FlatMemory())
        if not (self.args.fp16 or self.is_deepspeed_enabled or self.is_fsdp_enabled):  # fp16's scaler sees to it itself
            self.add_callback(_FiniteSteps())
        if (self.args.bf16 or self.args.fp16) and not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            _widen_what_is_trained(self.model)
        self._policy: LocalPolicy | None = None
        if held_out is not None and self.is_fsdp_enabled:
            raise InputError(
                "under FSDP the agent cannot answer while it is trained; leave eval_strategy out and measure the "
                "checkpoints with `cof eval`."
            )

    @contextmanager
    def agent_policy(self) -> Iterator[LocalPolicy]:
        """The model in training as a policy: with all of its weights, and nothing kept of what earlier ones read."""
        checkpointing: Any = self.args.gradient_checkpointing_kwargs  # with which it is turned on again afterwards
        threads = torch.get_num_threads()
        with unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=checkpointing
        ) as model:
            training = model.training
            model.eval()
            self._policy = self._policy or policy_of(model, self.processing_class, self._agent, LocalPolicy)
            self._policy.forget()
            try:
                yield self._policy
            finally:
                self._policy.forget()
                model.train(training)
                torch.set_num_threads(threads)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The agent's figures on the held-out samples; each process answers its share of them."""
        assert self._held_out is not None, "eval_strategy without held-out samples"
        trajectories = self._answered(self._held_out)
        figures = figures_of(trajectories)
        answered = figures["stop_reasons"].get("answered", 0) / len(trajectories)
        found = {
            "accuracy": figures["accuracy"],
            "zooms": figures["mean_zooms"],
            "malformed": figures["malformed_rate"],
            "answered": answered,
        }
        if self._blank_control:
            zoomed = [one for one in trajectories if one.zooms]
            found["crop_gain"] = self._crop_gain(zoomed) if zoomed else None
        metrics = {f"{metric_key_prefix}_{name}": float(value) for name, value in found.items() if value is not None}
        if self.is_world_process_zero():
            lines = "".join(to_json(trajectory) + "\n" for trajectory in trajectories)
            write_atomic(Path(self.args.output_dir) / "eval" / f"step-{self.state.global_step}.jsonl", lines)
        training = self.model.training
        self.model.eval()  # TRL's trainers would otherwise put the figures of the training steps since the last log in here
        self.log(dict(metrics))
        self.model.train(training)
        self.control = self.callback_handler.on_evaluate(  # type: ignore[has-type]
            self.args,
            self.state,
            self.control,  # type: ignore[has-type]
            metrics,
        )
        return metrics

    def _crop_gain(self, zoomed: Sequence[Trajectory]) -> float | None:
        """How much more often than with grey crops these were right; None where no true answer is known."""
        blank = self._answered([Episode(one.sample, one.resolution) for one in zoomed], crop="blank")
        real, grey = (figures_of(found)["accuracy"] for found in (zoomed, blank))
        return None if real is None else float(real - grey)

    def _answered(self, wanted: Sequence[Episode], crop: CropMode = "real") -> list[Trajectory]:
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        with self.agent_policy() as policy:
            agent = Agent(replace(self._agent, crop=crop), policy=policy)
            mine = agent.ask_many(wanted[rank::ranks], concurrency=16, progress=False)
        gathered = [from_json(line, Trajectory) for line in gather_object([to_json(one) for one in mine])]
        by_key = {trajectory.key: trajectory for trajectory in gathered}
        return [by_key[episode.key] for episode in wanted]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer's; an evaluation without the figure, as one in which nothing was zoomed on, is not the best."""
        name = str(self.args.metric_for_best_model or "").removeprefix("eval_")
        return (not name or f"eval_{name}" in metrics) and super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        directory = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise _unwritable(directory, error) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights of a checkpoint, by `from_pretrained`, which knows the names that they are saved under.

        The Trainer of transformers 5.23 takes the file's names as they are, finds none of them in such a model, says
        so in a warning, and goes on from the weights that the run began with.
        """
        model = self.model if model is None else model
        if hasattr(model, "get_base_model") or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # What is trained is wider than what is frozen, see `_widen_what_is_trained`; it must not be rounded on the way.
        kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
        widest = max(kinds, key=lambda kind: kind.itemsize)
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=widest)
        model.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if hasattr(self.model, "get_base_model") or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        elif self.state.best_model_checkpoint is not None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As TRL's.

        Raises:
            InputError: if the files cannot be written.
        """
        try:
            super().save_model(output_dir, _internal_call)
            if self.is_world_process_zero():
                dialects.record(self._agent.spoken, Path(output_dir or str(self.args.output_dir)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise _unwritable(Path(output_dir or self.args.output_dir), error) from error

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """`README.md` in the output folder, from the run's own record; TRL calls this with each checkpoint."""
        if self.is_world_process_zero():
            scores = [entry for entry in self.state.log_history if "eval_accuracy" in entry]
            write_atomic(Path(self.args.output_dir) / "README.md", card.text(self.record, scores))


class _FlatMemory(TrainerCallback):
    """Gives freed memory back now and then: on a CPU every batch has other sizes, and what the allocator keeps for each of
    them adds up to gigabytes. Too seldom to be felt."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % 50 == 0 and sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
            if trim is not None:
                trim(0)


class _FiniteSteps(TrainerCallback):
    """Leaves out a step whose gradient is not finite: taken, it would turn every weight into NaN, and with them the run."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if gradients and not torch.nn.utils.get_total_norm(gradients).isfinite():
            optimizer.zero_grad()
            _log.warning("the gradient of step %d is not finite; the step is left out.", state.global_step + 1)


def _leave_alone_what_is_frozen(model: Any) -> None:
    """For LoRA with gradient checkpointing TRL makes the embedded patches want gradients; a frozen tower would then be
    differentiated for nothing, and hold its activations."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = families.of(base.config).modules
    tower = base.get_submodule(modules.tower)
    patches, blocks = tower.get_submodule(modules.patches), tower.get_submodule(modules.blocks)
    if not any(parameter.requires_grad for parameter in (*patches.parameters(), *blocks.parameters())):
        patches.register_forward_hook(lambda module, inputs, output: output.detach())


def _widen_what_is_trained(model: Any) -> None:
    """Weights that are trained in float32, as DeepSpeed and FSDP see to themselves: in bfloat16 a step as small as a
    learning rate of 1e-5 is mostly rounded away. Forward passes run under autocast all the same."""
    if getattr(model, "is_quantized", False):
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def _unwritable(directory: Path, error: Exception) -> Exception:
    """One sentence for a full disk or a folder that is closed to us; other errors are our own and stay."""
    text = " ".join(str(error).split())
    found = re.search(r"No space left on device|File too large|Permission denied|Read-only file system|quota", text)
    if isinstance(error, InputError) or not (found or isinstance(error, (OSError, SafetensorError))):
        return error
    reason = found[0] if found else text[:200]
    return InputError(
        f"cannot write the checkpoint {directory} ({reason}); make room there, and the same command goes on from the "
        "last whole checkpoint."
    )


def held_out_of(settings: Settings) -> list[Episode] | None:
    """The samples of the evaluation that the settings ask for, each at its resolution.

    Raises:
        InputError: if they cannot be read.
    """
    run, training = settings.run, settings.training
    if run.eval_data is None or training.eval_strategy == "no":
        return None
    images = Path(str(training.output_dir)) / "images"
    columns = {
        name: column for name, column in run.columns.items() if name in FIELDS
    }  # SFT names columns of its own, too
    samples = read_samples(
        run.eval_data,
        keep_images=images,
        columns=columns,
        boxes=run.boxes,
        download=run.download,
        limit=run.eval_samples,
    )
    if (metric := training.metric_for_best_model) is not None and not any(sample.answers for sample in samples):
        raise InputError(
            f"metric_for_best_model {metric} needs known answers, and no sample of eval_data {run.eval_data} has one."
        )
    found = drawn(samples, run.resolutions, training.seed)
    by_key(found)  # refuses two of one id before anything is loaded
    return found
