"""A frozen tower whose outputs are shared gives the loss and the gradients of one that is run each time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText

from cof_agent.backends import families
from cof_agent.backends.local.budget import budget_of
from cof_agent.backends.local.memory import FeatureCache, Picture
from cof_agent.training.tower import TowerCache, is_frozen, key_of
from cof_agent.training.trainer import _widen_what_is_trained
from tests.checkpoints import write_checkpoint

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
GRIDS = ((1, 8, 12), (1, 6, 4), (1, 8, 12))
PLENTY = 2**30


@cache
def saved(family: str) -> Any:
    with TemporaryDirectory() as folder:
        write_checkpoint(family, Path(folder))
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def fresh(family: str, *, projector: bool = False, checkpointing: bool = False) -> Any:
    """A model in training with a frozen tower. projector: whether the projectors are trained."""
    with torch.random.fork_rng():
        model: Any = type(saved(family))(saved(family).config).train()
    model.load_state_dict(saved(family).state_dict())
    modules = families.of(model.config).modules
    for name, parameter in model.get_submodule(modules.tower).named_parameters():
        parameter.requires_grad_(projector and modules.in_projector(f"{modules.tower}.{name}"))
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def batch_of(model: Any, places: tuple[int, ...] = (0, 1, 0, 2)) -> dict[str, Tensor]:
    """One row that shows the images at these places of GRIDS; the third is as large as the first, and another one."""
    config, generator = model.config, torch.Generator().manual_seed(3)
    vision = config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    images = [torch.randn(h * w, width, generator=generator) for _, h, w in GRIDS]
    row: list[int] = []
    for place in places:
        _, high, wide = GRIDS[place]
        cells = [config.image_token_id] * (high * wide // 4)
        row += [50, config.vision_start_token_id, *cells, config.vision_end_token_id]
    ids = torch.tensor([[*row, 60, 61, 62]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids,
        "pixel_values": torch.cat([images[place] for place in places]),
        "image_grid_thw": torch.tensor([GRIDS[place] for place in places]),
        "mm_token_type_ids": (ids == config.image_token_id).int(),
    }


def step(model: Any, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def assert_same(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-6, rtol=1e-5), name


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_a_tower_that_is_run() -> None:
    for family in FAMILIES:
        for options in ({}, {"projector": True}, {"projector": True, "checkpointing": True}):
            expected = step(fresh(family, **options), batch_of(saved(family)))
            model, cache = fresh(family, **options), TowerCache(PLENTY)
            cache.attach(model)
            batch = batch_of(model)
            assert any("merger" in name for name in expected[1]) == bool(options)
            for computed in (3, 3):  # of four images two are the same, and the second time all are known
                with cache.used():
                    assert_same(step(model, batch), expected)
                assert cache.computed == computed, family
            assert_same(step(model, batch), expected)
            assert cache.computed == 3  # elsewhere the tower runs as ever


def test_images_are_shared_among_batches_and_models() -> None:
    model, reference, cache = fresh("qwen3_vl"), fresh("qwen3_vl"), TowerCache(PLENTY)
    cache.attach(model)
    cache.attach(reference)
    with cache.used(), torch.no_grad():
        model(**batch_of(model, (0, 1)))
        found = reference(**batch_of(model, (2, 1, 1))).logits
    assert cache.computed == 3
    assert torch.allclose(found, fresh("qwen3_vl")(**batch_of(model, (2, 1, 1))).logits, atol=1e-5)


def test_what_does_not_fit_is_computed_again() -> None:
    model, expected = fresh("qwen2_5_vl"), step(fresh("qwen2_5_vl"), batch_of(saved("qwen2_5_vl")))
    width = model.config.vision_config.out_hidden_size
    small = 4 * width * (1 * 8 * 12 + 1 * 6 * 4) // 4  # bytes of the first image and the second
    cache = TowerCache(small)
    cache.attach(model)
    for computed in (3, 4):
        with cache.used():
            assert_same(step(model, batch_of(model)), expected)
        assert (cache.computed, cache.held) == (computed, small)
    cache.forget()
    assert cache.held == 0
    with cache.used():
        assert_same(step(model, batch_of(model)), expected)
    assert cache.computed == 7


def test_a_tower_that_is_trained_or_random_is_left_alone() -> None:
    trained, random, off = fresh("qwen2_5_vl"), fresh("qwen2_5_vl"), fresh("qwen2_5_vl")
    next(trained.model.visual.blocks.parameters()).requires_grad_(True)
    random.model.visual.blocks[0].dropout = torch.nn.Dropout(0.1)
    assert is_frozen(off) and not is_frozen(trained) and not is_frozen(random)
    for model, limit in ((trained, PLENTY), (random, PLENTY), (off, 0)):
        cache = TowerCache(limit)
        cache.attach(model)
        with cache.used(), torch.no_grad():
            model(**batch_of(model))
        assert cache.computed == 0


def test_keys_tell_images_apart() -> None:
    image = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))
    nearly, turned, halved = image.clone(), image.flip(0), image.bfloat16()
    nearly[7, 3] += 1e-6
    keys = [key_of(one, (1, 4, 4)) for one in (image, nearly, turned, image.flip(1), halved)]
    assert len({*keys, key_of(image, (1, 2, 8))}) == 6
    assert key_of(torch.cat([nearly, image])[16:], [1, 4, 4]) == keys[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agent_sees_with_a_projector_in_float32_behind_a_tower_in_bfloat16(family: str) -> None:
    """As `ZoomTrainer` has both where a projector is trained in bfloat16 without DeepSpeed."""
    model = fresh(family, projector=True).to(torch.bfloat16)
    _widen_what_is_trained(model)
    vision, (_, high, wide) = model.config.vision_config, GRIDS[0]
    patches = torch.randn(high * wide, 3 * vision.temporal_patch_size * vision.patch_size**2).to(torch.bfloat16)
    picture = Picture(b"a", GRIDS[0], Image.new("RGB", (1, 1)), lambda: patches)
    with torch.inference_mode():
        (features,) = FeatureCache(model, budget_of(model, 4)).of([picture]).pooler_output
    assert features.shape[0] == high * wide // 4 and features.isfinite().all()
