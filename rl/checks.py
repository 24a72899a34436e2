"""What TRL finds wrong in a configuration only once everything is loaded, or at the first step: found before that.

Other values, such as a batch that cannot be divided into groups, TRL's `GRPOConfig` refuses when it is made.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cof_agent.errors import InputError

if TYPE_CHECKING:
    from trl import GRPOConfig, ModelConfig

CHOICES = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "luspo", "cispo", "sapo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
"""Values that TRL 1.16 knows of settings that take any text."""


def check(training: GRPOConfig, model: ModelConfig) -> None:
    """Refuses what TRL would refuse later.

    Raises:
        InputError: for the first such setting.
    """
    for name, known in CHOICES.items():
        value = getattr(training, name)
        if value not in known:
            near = get_close_matches(str(value), known, 1)
            hint = f"; did you mean {near[0]}" if near else ""
            raise InputError(f"{name} must be one of {', '.join(known)}, not {value}{hint}.")
    packed = bool(training.use_vllm and (model.load_in_4bit or model.load_in_8bit))
    for wrong, sentence in (
        (
            packed,
            "use_vllm takes no packed weights: leave load_in_4bit and load_in_8bit out, or use_vllm.",
        ),
        *_of_the_reference(training, model),
        *_of_the_rest(training),
    ):
        if wrong:
            raise InputError(sentence)


def check_devices(training: GRPOConfig) -> None:
    """Refuses processes among which TRL does not divide the run, before it starts; a dry run may have others.

    Raises:
        InputError: if one process sees several GPUs, or an engine does not fill whole groups of processes.
    """
    tensor, processes = training.vllm_tensor_parallel_size, training.world_size
    if training.use_vllm and training.vllm_mode == "colocate" and processes % tensor:
        raise InputError(
            f"vllm_tensor_parallel_size {tensor} does not divide the {processes} process{'es' * (processes > 1)} of the run."
        )
    if training.n_gpu > 1:
        raise InputError(
            f"one process sees {training.n_gpu} GPUs; start a process for each with --processes {training.n_gpu}, or let it "
            "see one, with CUDA_VISIBLE_DEVICES."
        )


def check_epochs(training: GRPOConfig, samples: int) -> None:
    """Refuses checkpoints that a training could not go on from: after an epoch whose last update is a short one, updates and
    what is played for them no longer begin together where `save_steps` has them do so.

    Raises:
        InputError: if there would be such checkpoints with so many samples.
    """
    played, update = _played_for(training), training.gradient_accumulation_steps
    epoch = samples // (training.generation_batch_size // training.num_generations) * played
    updates = math.ceil(epoch / update)
    longer = training.max_steps > updates if training.max_steps > 0 else training.num_train_epochs > 1
    if training.save_strategy != "no" and _updates_between(training) > 1 and epoch % update and longer:
        raise InputError(
            f"an epoch of {samples} samples has {epoch} micro-batches, no multiple of gradient_accumulation_steps {update}, so "
            "that the training could not go on from checkpoints of later epochs: leave steps_per_generation and "
            "generation_batch_size out, or set save_strategy to no."
        )


def _played_for(training: GRPOConfig) -> int:
    """Micro-batches that are trained on what is played at once."""
    return int(training.steps_per_generation * training.num_iterations)


def _updates_between(training: GRPOConfig) -> int:
    """Updates until one begins together with what is played for it."""
    played = _played_for(training)
    return max(1, played) // math.gcd(played, training.gradient_accumulation_steps)


def _of_the_reference(training: GRPOConfig, model: ModelConfig) -> list[tuple[bool, str]]:
    synchronised = bool(training.sync_ref_model)
    return [
        (
            synchronised and training.beta == 0,
            "sync_ref_model needs a reference model: set beta above 0, or leave it out.",
        ),
        (
            synchronised and bool(model.use_peft),
            "with LoRA the reference is the model without adapters, which cannot be synchronised: leave sync_ref_model out.",
        ),
        (
            synchronised and training.save_strategy != "no",
            "sync_ref_model: checkpoints do not hold the reference, so that the training could not go on as it was; set "
            "save_strategy to no, or leave it out.",
        ),
        (
            "lm_head" in (model.lora_target_modules or []),
            "lora_target_modules: leave lm_head out; the loss takes the head's own weight, and would not train an adapter.",
        ),
    ]


def _of_the_rest(training: GRPOConfig) -> list[tuple[bool, str]]:
    mode = training.vllm_importance_sampling_mode
    vespo = training.loss_type == "vespo" and training.use_vllm and training.vllm_importance_sampling_correction
    between = _updates_between(training)
    steps = training.save_strategy == "steps" and training.save_steps >= 1
    saves = training.save_strategy != "no" and between > 1
    fused = (training.liger_kernel_config or {}).get("fused_linear_cross_entropy")
    return [
        (
            bool(training.use_transformers_continuous_batching),
            "use_transformers_continuous_batching takes no images; use vLLM (use_vllm), or leave it out.",
        ),
        (
            vespo and not mode.startswith("token"),
            f"loss_type vespo needs vllm_importance_sampling_mode token_truncate or token_mask, not {mode}.",
        ),
        (not 0 < training.top_entropy_quantile <= 1, "top_entropy_quantile must be above 0 and at most 1."),
        (
            saves and (not steps or bool(training.save_steps % between)),
            f"save_steps must be a multiple of {between}, with save_strategy steps: what was played once is trained on in "
            f"{between} updates, and a training cannot go on from between them.",
        ),
        (
            training.train_sampling_strategy != "random",
            "train_sampling_strategy is not for RL: set shuffle_dataset to false to play the samples in their order.",
        ),
        (training.data_seed is not None, "data_seed is not for RL: seed orders the samples, too."),
        (bool(training.label_smoothing_factor), "label_smoothing_factor is not for RL, whose loss has no labels."),
        (
            bool(training.neftune_noise_alpha),
            "neftune_noise_alpha is not for RL: rollouts are played without noise, so that the model that is trained would be "
            "another one.",
        ),
        (
            bool(training.ignore_data_skip),
            "ignore_data_skip: leave it out; a training that goes on would play the first samples again.",
        ),
        (training.num_iterations < 1, f"num_iterations must be at least 1, not {training.num_iterations}."),
        (
            bool(training.use_liger_kernel and fused),
            "liger_kernel_config: leave fused_linear_cross_entropy out; TRL brings a fused loss of its own.",
        ),
    ]
