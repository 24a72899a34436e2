"""What a run holds beside the model in training: no reference without a KL term or with LoRA, nothing after an evaluation."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from cof_agent.training.tower import is_frozen
from rl.trainer import ZoomGRPOTrainer
from tests.rl.small import trainer_of
from tests.scenes.shared import Scenes

LORA = {"use_peft": "true", "lora_r": 4, "lora_dropout": 0.0, "beta": 0.04, "freeze_projector": "true"}
INPUTS = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")


@pytest.fixture(scope="module")
def folder(drawn: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference")
    drawn(2, into=path / "scenes")
    return path


def played(trainer: ZoomGRPOTrainer) -> dict[str, Any]:
    """A group of four conversations, as the loss takes them."""
    rows: Any = trainer.train_dataset
    trainer.model.train()
    return trainer._generate_and_score_completions([dict(rows[0]) for _ in range(4)])


def test_without_a_kl_term_there_is_no_reference(folder: Path) -> None:
    trainer = trainer_of(folder, beta=0.0)
    assert trainer.ref_model is None
    assert "ref_per_token_logps" not in played(trainer)
    assert trainer_of(folder, beta=0.04).ref_model is not None


def test_the_reference_shares_a_frozen_tower(folder: Path) -> None:
    trainer = trainer_of(folder, beta=0.04, freeze_vision="true", freeze_projector="true")
    reference = trainer.accelerator.unwrap_model(trainer.ref_model)
    assert is_frozen(trainer.model, projectors=True) and is_frozen(reference, projectors=True)


def test_with_lora_the_reference_is_the_model_without_adapters(folder: Path) -> None:
    trainer = trainer_of(folder, **LORA)
    assert trainer.ref_model is None
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    found = played(trainer)
    ids = torch.cat([found["prompt_ids"], found["completion_ids"]], 1)
    mask = torch.cat([found["prompt_mask"], found["completion_mask"]], 1)
    wrote = found["completion_mask"].bool()

    def scores() -> torch.Tensor:
        arguments = (trainer, trainer.model, ids, mask, wrote.shape[1])
        with torch.no_grad():
            logps, *_ = GRPOTrainer._get_per_token_logps_and_entropies(
                *arguments, **{name: found[name] for name in INPUTS}
            )
        scored: torch.Tensor = logps[wrote]
        return scored

    adapted = scores()
    with trainer.model.disable_adapter():
        plain = scores()
    assert torch.allclose(found["ref_per_token_logps"][wrote], plain, atol=1e-5)
    assert (adapted - plain).abs().max() > 1e-3


def held() -> int:
    """Bytes of all tensors."""
    gc.collect()
    tensors = (one for one in gc.get_objects() if isinstance(one, torch.Tensor))
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


@pytest.mark.slow
def test_an_evaluation_leaves_nothing_behind(folder: Path) -> None:
    held_out = {"eval_data": folder / "scenes", "eval_strategy": "steps", "eval_steps": 1, "eval_samples": 2}
    trainer = trainer_of(folder, **held_out)
    trainer.evaluate()  # which makes the policy
    before = held()
    metrics = trainer.evaluate()
    assert "eval_accuracy" in metrics
    assert held() == before
    trainer.current_gradient_accumulation_steps = 1
    output = played(trainer)
    with torch.no_grad():
        trainer._compute_loss(trainer.model, output)
    assert trainer._tower.held > 0  # of the images of a generation
    del output
    trainer.evaluate()
    assert trainer._tower.held == 0
