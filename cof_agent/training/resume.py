"""From where a training goes on: its last whole checkpoint, or nowhere, since it has finished."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from cof_agent.data.unusable import LeftOut
from cof_agent.errors import InputError
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.output.files import json_object, write_atomic
from cof_agent.training.settings import Settings, record, write_record
from cof_agent.trajectory import read_jsonl

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments

    from cof_agent.training.trainer import ZoomTrainer

FINISHED = "finished.json"
"""Is written last, when the model lies in the output folder: the step and the epoch that it was trained to."""
DECIDES = {
    "run": (
        *(
            "data",
            "images",
            "mix",
            "plan",
            "split",
            "samples",
            "column",
            "boxes",
            "rewards",
            "strategy",
            "dialect",
            "tools",
        ),
        *(
            "system_prompt",
            "freeze_vision",
            "freeze_projector",
            "min_pixels",
            "max_pixels",
            "overview_pixels",
            "zoom_pixels",
        ),
        *("max_zooms", "enlarge", "min_side", "zoom_scale", "resolutions", "distill", "distill_rate"),
        *("judge", "redraws", "max_tokens", "max_length", "rows_per_update"),
        *("stage", "as_text", "zooming"),
    ),
    "model": (
        *("model_name_or_path", "use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
        *("lora_modules_to_save", "use_rslora", "use_dora", "load_in_4bit", "load_in_8bit", "lora_target_parameters"),
    ),
    "training": (
        *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_grad_norm", "seed"),
        *("train_sampling_strategy", "reward_weights", "num_generations"),
        *("beta", "loss_type", "epsilon", "epsilon_high", "scale_rewards", "temperature", "top_p", "num_iterations"),
        *("max_completion_length", "mask_truncated_completions", "multi_objective_aggregation", "delta"),
        *("importance_sampling_level", "top_entropy_quantile", "generation_batch_size"),
        *("shuffle_dataset", "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "entropy_coef"),
        *("sapo_temperature_neg", "sapo_temperature_pos", "off_policy_mask_threshold", "use_bias_correction_kl"),
        *("data_seed", "label_smoothing_factor", "neftune_noise_alpha", "optim_args", "dataloader_drop_last"),
        *("router_aux_loss_coef", "cast_lm_head_to_fp32", "disable_dropout", "use_adaptive_entropy", "entropy_target"),
        *("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta"),
        *("vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max"),
        *("vllm_importance_sampling_clip_min",),
        *("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
    ),
}
"""The settings, as `run.json` has them, that a training must keep to go on: what is trained, on what, and how."""
_ROUNDING = 1e-6  # of an epoch


def last_whole_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that was written to its end; one that a kill cut off has no `trainer_state.json`, which
    is written last."""
    whole = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    numbered = [(int(found[1]), path) for path in whole if (found := re.fullmatch(r"checkpoint-(\d+)", path.name))]
    return str(max(numbered)[1]) if numbered else None


def check_continues(settings: Settings) -> None:
    """Refuses to go on with a training whose model, data or method were others.

    Raises:
        InputError: which of them differ; or if there is no checkpoint with a state of the optimizer to go on with.
    """
    output = Path(str(settings.training.output_dir))
    checkpoint, finished = last_whole_checkpoint(output), _read(output / FINISHED)
    if checkpoint is None and not (output / FINISHED).exists():
        return
    earlier, now = _earlier(output), record(settings)
    different = [
        f"{name} was {_shown(before)}, and is {_shown(after)}"
        for part, names in DECIDES.items()
        for name in names
        if part in earlier
        and (part == "model" or (name in earlier[part] and name in now[part]))  # which leaves out None
        for before, after in [(_place(earlier[part].get(name)), _place(now[part].get(name)))]
        if before != after
    ]
    if different:
        raise InputError(
            f"{output} holds a training with other settings: {'; '.join(different)}. Give the same to go on with it, or name "
            f"another output_dir; --model {output} trains its model further there."
        )
    if finished is not None and _reached(finished, settings.training):
        return
    if checkpoint is None or not _has_optimizer(Path(checkpoint)):
        raise InputError(
            f"{checkpoint or output} holds the model alone (save_only_model, or save_strategy no), so the training cannot go on "
            f"from it as it was. Name another output_dir; --model {checkpoint or output} begins anew with its weights."
        )


def check_data(output: Path, data: Mapping[str, Any]) -> None:
    """Refuses to go on with other samples: those that were trained on are passed over by their number.

    Raises:
        InputError: if they are others than `run.json` has figures of.
    """
    before = _earlier(output).get("data") or {}
    if before and any(before.get(name) != value for name, value in data.items()):
        counts = f"{before.get('samples')} then, {data.get('samples')} now"
        raise InputError(
            f"{output} was trained on other samples ({counts}), though the data have the same name: give those back to go on, or "
            f"name another output_dir{_unusable(output)}."
        )


def _unusable(output: Path) -> str:
    """The first rows that could not be used when the samples were read, in words; empty if all could."""
    path = output / "left_out.jsonl"
    rows = list(read_jsonl(path, LeftOut)) if path.exists() else []
    told = [f"row {one.row} of {one.file} ({one.reason} {one.detail})".replace(" )", ")") for one in rows[:3]]
    more = f", and {len(rows) - 3} more in {path}" if len(rows) > 3 else ""
    return f"; what could not be used: {', '.join(told)}{more}" if rows else ""


def _earlier(output: Path) -> dict[str, Any]:
    """What `run.json` has; empty where there is none that can be read."""
    return json_object(output / "run.json") or {}


def _has_optimizer(checkpoint: Path) -> bool:
    """Whether it holds the state of the optimizer: the Trainer's own, FSDP's, or DeepSpeed's."""
    return any(next(checkpoint.glob(pattern), None) for pattern in ("optimizer*", "global_step*"))


def _place(value: Any) -> Any:
    """A value as it is compared: a path in full, nano's wherever it is installed."""
    if not isinstance(value, str) or not value:
        return value
    if Path(value).parts[-3:] == WEIGHTS.parts[-3:]:
        return NANO
    return str(Path(value).resolve()) if Path(value).exists() else value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def says_finished(training: TrainingArguments) -> bool:
    """Whether an earlier run has trained as far as these settings ask for, of which a sentence is printed then."""
    done = step_of_finished(training)
    if done is not None and training.process_index == 0:
        print(
            f"finished already: {training.output_dir} holds the model of step {done}. Raise max_steps or num_train_epochs to "
            "train on, or name another output_dir."
        )
    return done is not None


def step_of_finished(training: TrainingArguments) -> int | None:
    """The last step of an earlier run that has trained as far as these settings ask for; None without one."""
    found = _read(Path(str(training.output_dir)) / FINISHED)
    return int(found["global_step"]) if found is not None and _reached(found, training) else None


class _Reached(Exception):
    """The checkpoint that was loaded is as far as the settings ask for."""


class _StopWhereReached(TrainerCallback):
    """Ends a training before its first step, where none is left: the Trainer looks after a step only."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        """See `TrainerCallback`; the weights of the checkpoint are loaded by now, those of DeepSpeed and FSDP, too."""
        if _reached({"global_step": state.global_step, "epoch": state.epoch}, args):
            raise _Reached


def train_and_save(trainer: ZoomTrainer, settings: Settings) -> None:
    """Trains from where an earlier run was interrupted, if it was, and writes the model with its record and card.

    An interruption may come between the last checkpoint and the model: then no step is trained any more.

    Raises:
        InputError: if the samples are others than before, or not a single step was trained.
    """
    training = trainer.args
    output = Path(str(training.output_dir))
    checkpoint = last_whole_checkpoint(output)
    data = trainer.record.get("data") or {}
    if checkpoint is not None:
        check_data(output, data)
    if trainer.is_world_process_zero():
        write_record(settings, data)
        (output / FINISHED).unlink(missing_ok=True)
    trainer.add_callback(_StopWhereReached())
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except _Reached:
        if training.load_best_model_at_end and trainer.state.best_model_checkpoint is not None:
            trainer._load_best_model()
    if not trainer.state.global_step:
        raise InputError(
            f"nothing was trained, so that no model is written to {output}: the data or num_train_epochs are too little for a "
            "single step; train on more, or for longer."
        )
    trainer.save_model()
    trainer.save_state()  # `trainer_state.json`, with the log of the whole run
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        done = {"global_step": trainer.state.global_step, "epoch": trainer.state.epoch}
        write_atomic(output / FINISHED, json.dumps(done) + "\n")
        print(f"written: {output}" + (", an adapter; `cof merge` makes a model of it" * bool(settings.model.use_peft)))


def _reached(state: Mapping[str, Any], training: TrainingArguments) -> bool:
    """Whether a state is as far as the settings ask for; `max_steps` goes before `num_train_epochs`, as in the Trainer."""
    if training.max_steps > 0:
        return bool(state["global_step"] >= training.max_steps)
    return bool((state["epoch"] or 0) >= training.num_train_epochs - _ROUNDING)


def _read(path: Path) -> dict[str, Any] | None:
    found = json_object(path)
    return found if found is not None and {"global_step", "epoch"} <= set(found) else None
