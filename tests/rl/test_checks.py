"""What TRL would find late is one sentence before anything is loaded."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl import GRPOConfig

from cof_agent.errors import InputError
from rl.checks import CHOICES, check_devices, check_epochs
from rl.settings import parse
from rl.trainer import micro_batches


def settings(**changes: Any) -> Any:
    fixed = {"model_name_or_path": "nowhere", "data": "nowhere", "use_cpu": "true", "bf16": "false", "use_vllm": "true"}
    return parse([text for key, value in (fixed | changes).items() for text in (f"--{key}", str(value))])


def test_it_is_found_before_anything_is_loaded() -> None:
    for changes, sentence in (
        ({"loss_type": "grop"}, "loss_type must be one of grpo, .* not grop; did you mean grpo"),
        ({"scale_rewards": "groups"}, "scale_rewards must be one of group, batch, none"),
        ({"importance_sampling_level": "turn"}, "importance_sampling_level must be one of token, sequence, not turn"),
        ({"multi_objective_aggregation": "sum"}, "multi_objective_aggregation must be one of"),
        ({"vllm_mode": "colocated"}, "vllm_mode must be one of server, colocate, not colocated; did you mean colocate"),
        ({"vllm_importance_sampling_mode": "mask"}, "vllm_importance_sampling_mode must be one of"),
        (
            {"loss_type": "vespo"},
            "vespo needs vllm_importance_sampling_mode token_truncate or token_mask, not sequence_mask",
        ),
        ({"sync_ref_model": "true"}, "sync_ref_model needs a reference model"),
        ({"sync_ref_model": "true", "beta": 0.1, "use_peft": "true", "lora_dropout": 0}, "with LoRA the reference is"),
        ({"sync_ref_model": "true", "beta": 0.1}, "checkpoints do not hold the reference"),
        ({"num_iterations": 2, "save_steps": 0.5}, "save_steps must be a multiple of 2, with save_strategy steps"),
        (
            {"num_iterations": 2, "save_strategy": "epoch"},
            "save_steps must be a multiple of 2, with save_strategy steps",
        ),
        ({"train_sampling_strategy": "sequential"}, "set shuffle_dataset to false"),
        ({"data_seed": 1}, "seed orders the samples"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is not for RL"),
        ({"neftune_noise_alpha": 5}, "rollouts are played without noise"),
        ({"ignore_data_skip": "true"}, "would play the first samples again"),
        ({"rewards": "math:pow"}, "the reward math:pow must be a function of a trajectory alone"),
        ({"lora_target_modules": "lm_head"}, "leave lm_head out"),
        ({"top_entropy_quantile": 0}, "top_entropy_quantile must be above 0"),
        ({"strategy": "tree"}, "the strategy tree writes turns of its own, so that it cannot be trained by RL"),
        ({"strategy": "coroi"}, "the strategy coroi writes turns of its own"),
        ({"num_iterations": 0}, "num_iterations must be at least 1"),
        ({"use_transformers_continuous_batching": "true"}, "takes no images"),
        ({"load_in_4bit": "true"}, "use_vllm takes no packed weights"),
        # These GRPOConfig finds itself.
        ({"num_generations": 1}, "at least 2 generations"),
        ({"per_device_train_batch_size": 5, "num_generations": 4}, "must be divisible by num_generations"),
        ({"generation_batch_size": 12, "steps_per_generation": 2}, "can not be both configured"),
        ({"vllm_importance_sampling_clip_min": 5}, "must be less than"),
    ):
        with pytest.raises(InputError, match=sentence):
            settings(**changes)
    settings(sync_ref_model="true", beta=0.1, scale_rewards="none", save_strategy="no")


def test_a_reward_written_for_trl_is_refused_with_what_one_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    heads = ("completions, **more", "prompts, completions, **more", "completion_ids=None, **more", "*, trajectory")
    (tmp_path / "own_part_11.py").write_text(
        "".join(f"def reward{number}({head}): return 1.0\n" for number, head in enumerate(heads))
    )
    for number, first in enumerate(("completions", "prompts", "completion_ids")):
        with pytest.raises(
            InputError, match=rf"written for TRL, which hands it lists \({first}\); here a reward takes one"
        ):
            settings(rewards=f"own_part_11:reward{number}")
    with pytest.raises(InputError, match="must be a function of a trajectory alone"):
        settings(rewards="own_part_11:reward3")


def test_the_choices_are_those_that_trl_names() -> None:
    """Its documentation of each setting lists them."""
    text = " ".join((GRPOConfig.__doc__ or "").split())
    for name, known in CHOICES.items():
        described = text.partition(f"{name} (`")[2].partition(" (`")[0]
        for value in known:
            assert f'"{value}"' in described, (name, value)


def refused(training: Any, samples: int) -> str:
    """Why checkpoints of later epochs are refused; empty if they are not."""
    try:
        check_epochs(training, samples)
    except InputError as error:
        return str(error)
    return ""


def test_a_training_can_go_on_from_checkpoints_of_later_epochs() -> None:
    """Whatever is accepted saves only where the next samples are played."""
    count = 0
    for steps, update, times, generations, most in product(
        (1, 2, 3, 4, 6), (1, 2, 3, 4, 6), (1, 2), (1, 5, 6), (-1, 2, 30)
    ):
        training: Any = SimpleNamespace(
            steps_per_generation=steps,
            gradient_accumulation_steps=update,
            num_iterations=times,
            generation_batch_size=4,
            num_generations=2,
            save_strategy="steps",
            max_steps=most,
            num_train_epochs=4,
        )
        played, samples = steps * times, 2 * generations + 1  # one of which fills no generation
        epoch, every = generations * played, math.lcm(played, update) // update
        if sentence := refused(training, samples):
            count += 1
            told = (
                f"{samples} samples has {epoch} micro-batches, no multiple of gradient_accumulation_steps {update}, so"
            )
            assert told in sentence
            training.save_strategy = "no"
            assert not refused(training, samples)
            continue
        last = most if most > 0 else 4 * math.ceil(epoch / update)
        assert not any(micro_batches(one, epoch, update) % played for one in range(every, last + 1, every)), training
    assert 0 < count < 100


def test_one_epoch_may_end_with_a_short_update() -> None:
    """As the shipped configurations may."""
    training = settings(
        steps_per_generation=3, gradient_accumulation_steps=2, save_steps=3, num_train_epochs=1
    ).training
    assert not refused(training, 5 * training.generation_batch_size)
    training.num_train_epochs = 2
    assert "leave steps_per_generation and generation_batch_size out" in refused(training, 5)


def test_a_run_is_divided_among_its_processes() -> None:
    training = settings(vllm_tensor_parallel_size=2, vllm_mode="colocate").training
    with pytest.raises(InputError, match="size 2 does not divide the 1 process of the run"):
        check_devices(training)
    training.use_vllm = False
    check_devices(training)
    training._n_gpu = 8
    with pytest.raises(InputError, match="one process sees 8 GPUs; start a process for each with --processes 8"):
        check_devices(training)
