"""A small run of RL on a CPU, with a frozen tower and conversations of uneven length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cof_agent.nano import NANO
from rl.settings import parse
from rl.train import build_trainer
from rl.trainer import ZoomGRPOTrainer

RUN: dict[str, Any] = {
    "model_name_or_path": NANO,
    "use_cpu": "true",
    "bf16": "false",
    "gradient_checkpointing": "false",
    "report_to": "none",
    "threads": 1,
    "freeze_vision": "true",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_generations": 4,
    "max_completion_length": 120,
    "max_tokens": 48,
    "overview_pixels": 224 * 126,
    "zoom_pixels": 84 * 84,
    "temperature": 2.0,  # conversations of uneven length
}


def words(given: dict[str, Any]) -> list[str]:
    """Settings as a command line."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    return [text for key, values in lists.items() for text in (f"--{key}", *map(str, values))]


def trainer_of(folder: Path, **changes: Any) -> ZoomGRPOTrainer:
    """The trainer of such a run, on `folder/scenes`."""
    given = RUN | {"data": folder / "scenes", "output_dir": folder / "run"} | changes
    return build_trainer(parse(words(given)))
