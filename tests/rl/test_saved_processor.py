"""The image processor that a run of RL saves prepares images as that of the model it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoImageProcessor

from cof_agent.nano import WEIGHTS
from rl.trainer import unresized
from tests.rl.small import trainer_of
from tests.scenes.shared import Scenes


def test_rollouts_are_not_resized_and_what_is_saved_still_resizes(
    drawn: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torchvision our processor writes the files that it read, so here its image part writes its own."""
    drawn(1, into=tmp_path / "scenes")
    trainer = trainer_of(tmp_path, samples=1, gradient_accumulation_steps=2)
    images, resized = trainer.processing_class.image_processor, []
    preprocess = type(images).preprocess

    def seen(self: Any, *arguments: Any, **options: Any) -> Any:
        resized.append(options.get("do_resize", self.do_resize))
        return preprocess(self, *arguments, **options)

    monkeypatch.setattr(type(images), "preprocess", seen)
    rows: Any = trainer.train_dataset
    trainer.model.train()
    trainer._generate_and_score_completions([dict(rows[0]) for _ in range(4)])
    assert resized and not any(resized)
    images.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text())["do_resize"] is True


def test_it_is_as_it_was_after_an_error_too() -> None:
    images: Any = AutoImageProcessor.from_pretrained(WEIGHTS)
    picture = Image.new("RGB", (2016, 1008))
    with pytest.raises(ValueError, match="broken"), unresized(images):
        assert images(images=[picture], return_tensors="pt")["image_grid_thw"].tolist() == [[1, 72, 144]]
        raise ValueError("broken")
    assert images.do_resize is True
