"""SFT on samples of like length together: the same losses and gradients, of less padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.scenes import oracle
from cof_agent.trajectory import to_json
from sft.settings import parse
from sft.train import build_trainer
from tests.scenes.shared import Scenes

RUN: dict[str, Any] = {
    "model_name_or_path": "nano",
    "use_cpu": "true",
    "report_to": "none",
    "bf16": "false",
    "gradient_checkpointing": "false",
    "threads": 1,
    "freeze_vision": "true",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "max_steps": 1,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": "true",
}


@pytest.fixture(scope="module")
def folder(drawn: Scenes) -> Path:
    path = drawn(6, split="train", seed=5)
    shown = ZoomSettings(CoordinateSystem.ABSOLUTE, PixelLimits(28, 3136, 224 * 126, 84 * 84))
    environment = ZoomEnvironment(shown)
    made = [oracle.play(sample, environment.reset(sample), environment) for sample in read_samples(path)]
    (path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in made))
    return path


@pytest.mark.slow
def test_losses_and_gradients_stay_and_padding_goes(folder: Path, tmp_path: Path) -> None:
    logged, read = [], []
    for even in (True, False):
        options = RUN | {"data": folder, "output_dir": tmp_path / str(even), "overview_pixels": 224 * 126}
        trainer = build_trainer(parse([text for key, value in options.items() for text in (f"--{key}", str(value))]))
        if not even:
            trainer._lengths = None
        batches = list(trainer.get_train_dataloader())
        read.append(sum(batch["input_ids"].numel() for batch in batches))
        trainer.train()
        logged.append(
            [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry]
        )
    assert len(logged[0]) == 1
    for ours, plain in zip(*logged, strict=True):
        assert ours == pytest.approx(plain, rel=1e-4)
    assert read[0] < read[1]
