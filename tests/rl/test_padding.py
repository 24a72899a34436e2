"""Rows of like length together, without what pads them, give the log-probabilities, loss and gradients of TRL's batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import (
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from rl.padding import evened
from rl.trainer import ZoomGRPOTrainer
from tests.rl.small import trainer_of
from tests.scenes.shared import Scenes


@pytest.fixture(scope="module")
def folder(drawn: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("padding")
    drawn(4, into=path / "scenes")
    return path


@pytest.fixture(scope="module")
def trainer(folder: Path) -> ZoomGRPOTrainer:
    return trainer_of(folder)


@pytest.fixture(scope="module")
def generation(trainer: ZoomGRPOTrainer) -> dict[str, Any]:
    """Two groups of four conversations, with the log-probabilities of another model, so that ratios are not 1."""
    rows: Any = trainer.train_dataset
    trainer.model.train()
    found = trainer._generate_and_score_completions([dict(rows[number // 4]) for number in range(8)])
    noise = torch.randn(found["completion_ids"].shape, generator=torch.Generator().manual_seed(1))
    return found | {"old_per_token_logps": -2 + noise, "advantages": torch.linspace(-1, 1, 8)}


def micro_batches(generation: dict[str, Any]) -> list[dict[str, Any]]:
    """As TRL makes them."""
    shuffled = shuffle_sequence_dict(split_pixel_values_by_grid(generation))
    return [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(shuffled, 4)]


def step(trainer: ZoomGRPOTrainer, batches: list[dict[str, Any]]) -> tuple[float, list[Tensor]]:
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        total += loss.item()
    return total, [one.grad.clone() for one in trainer.model.parameters() if one.grad is not None]


def lengths(batch: dict[str, Any]) -> list[int]:
    found: list[int] = (batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1)).tolist()
    return found


@pytest.mark.slow
def test_log_probabilities_are_those_of_padded_rows(trainer: ZoomGRPOTrainer, generation: dict[str, Any]) -> None:
    names = ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")
    ids = torch.cat([generation["prompt_ids"], generation["completion_ids"]], 1)
    mask = torch.cat([generation["prompt_mask"], generation["completion_mask"]], 1)
    kept = generation["completion_mask"].shape[1]
    arguments = (trainer.model, ids, mask, kept, 3)
    inputs = {name: generation[name] for name in names} | {"compute_entropy": True}
    with torch.no_grad():
        expected = GRPOTrainer._get_per_token_logps_and_entropies(trainer, *arguments, **inputs)
        found = trainer._get_per_token_logps_and_entropies(*arguments, **inputs)
    written = generation["completion_mask"].bool()
    assert not written.all() and not generation["prompt_mask"].all()
    for ours, stock in zip(found[:2], expected[:2], strict=True):
        assert ours is not None and stock is not None
        assert torch.allclose(ours[written], stock[written], atol=1e-5)
    assert found[2] is None
    assert trainer._tower.computed < len(generation["image_grid_thw"])  # a group sees the same overview


def test_loss_and_gradients_of_a_step_are_those_of_trls_batches(
    trainer: ZoomGRPOTrainer, generation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = micro_batches(generation)
    even = evened(batches, 8)
    assert sorted(row for batch in batches for row in lengths(batch)) == sorted(
        row for batch in even for row in lengths(batch)
    )
    order = [row for batch in even for row in lengths(batch)]
    assert order == sorted(order, reverse=True) != [row for batch in batches for row in lengths(batch)]
    for loss_type in ("dapo", "grpo"):
        monkeypatch.setattr(trainer, "loss_type", loss_type)
        found, gradients = step(trainer, even)
        with monkeypatch.context() as patched:
            for name in ("_get_per_token_logps_and_entropies",):
                patched.setattr(ZoomGRPOTrainer, name, getattr(GRPOTrainer, name))
            expected, stock = step(trainer, batches)
        assert found == pytest.approx(expected, abs=1e-6), loss_type
        largest = max(gradient.abs().max().item() for gradient in stock)
        assert largest > 1e-4
        for ours, theirs in zip(gradients, stock, strict=True):
            assert (ours - theirs).abs().max() < 1e-5 * max(1.0, largest), loss_type


@pytest.mark.slow
def test_a_generation_is_evened_within_the_steps_that_it_is_used_in(folder: Path) -> None:
    for changes, window in (
        ({}, 8),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 4}, 4),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 4, "loss_type": "bnpo"}, 1),
    ):
        trainer = trainer_of(folder, **changes)
        rows: Any = trainer.train_dataset
        trainer.model.train()
        first = trainer._prepare_inputs([dict(rows[number // 4]) for number in range(8)])
        made = trainer._buffered_inputs
        assert first is made[0] and len(made) == 4
        order = [row for batch in made for row in lengths(batch)]
        parts = [order[start : start + window] for start in range(0, 8, window)]
        assert all(part == sorted(part, reverse=True) for part in parts)
        assert (order == sorted(order, reverse=True)) == (window == 8)
