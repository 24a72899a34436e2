"""Fine-tunes a Qwen-VL on zoom trajectories: `accelerate launch -m sft.train --config sft/configs/NAME.yaml [--key value ...]`.

Loss falls on every assistant turn and on nothing else. The nano model is trained by the same command, after
`sft.vision` and `sft.ground` (`data: curriculum`).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import get_worker_info
from transformers import AutoModelForImageTextToText
from trl import SFTConfig, SFTTrainer, TrlParser

from cof_agent.backends.cpu import speed_up_vision
from cof_agent.backends.processor import load_processor
from cof_agent.errors import InputError
from cof_agent.protocol import PROTOCOL_VERSION
from cof_agent.trajectory import write_atomic
from sft.collate import AssistantCollator
from sft.curriculum import Plan, nano_environment, row


@dataclass
class RunConfig:
    """What is trained on what. Everything else is TRL's `SFTConfig`."""

    model: str = field(metadata={"help": "Checkpoint directory or hub id."})
    data: str = field(metadata={"help": "`curriculum`: endless drawn scenes, made for nano."})
    samples: int = field(default=0, metadata={"help": "Rows of the curriculum."})
    freeze_vision: bool = field(
        default=False, metadata={"help": "Leave the vision tower and its projector as they are."}
    )
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves torch's choice."})
    plan: dict[str, Any] = field(default_factory=dict, metadata={"help": "Fields of `sft.curriculum.Plan`."})


def main(arguments: list[str] | None = None) -> None:
    parser = TrlParser((RunConfig, SFTConfig))
    config, training = parser.parse_args_and_config(args=arguments)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.data != "curriculum" or config.samples < 1:
        raise InputError("data must be `curriculum` with `samples` of at least 1.")
    trainer = build_trainer(config, training)
    _save_run_record(config, training)
    resume = any(Path(training.output_dir).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()


def build_trainer(config: RunConfig, training: SFTConfig) -> SFTTrainer:
    """The trainer with its model, processor and data; nothing is trained yet.

    Raises:
        InputError: if the model cannot be read.
    """
    try:
        model = AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32)
        processor = load_processor(config.model)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the model {config.model}: {str(error).splitlines()[0]}") from None
    if config.freeze_vision:
        model.model.visual.requires_grad_(False)
    if training.use_cpu:
        speed_up_vision(model)
    return SFTTrainer(
        model=model,
        args=training,
        processing_class=processor,
        data_collator=AssistantCollator(processor),
        train_dataset=curriculum(config, training.seed),
    )


def curriculum(config: RunConfig, seed: int) -> Dataset:
    """Rows that are drawn when they are read, so that a run resumes without drawing what it has seen."""
    plan, environment, count = Plan(**config.plan), nano_environment(), config.samples

    def draw(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        yield_to_training()
        made = [row(plan, environment, f"train:{seed}:{index}") for index in batch["index"]]
        return {key: [entry[key] for entry in made] for key in ("messages", "images")}

    return Dataset.from_dict({"index": list(range(count))}).with_transform(draw)


@cache
def yield_to_training() -> None:
    """Lower the priority of a data worker: a core taken from a two-threaded matrix product stalls the other one too."""
    if get_worker_info() is not None:
        os.nice(19)


def _save_run_record(config: RunConfig, training: SFTConfig) -> None:
    packages = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "pillow", "chain-of-focus")
    record = {
        "command": sys.argv,
        "run": vars(config),
        "training": training.to_dict(),
        "protocol_version": PROTOCOL_VERSION,
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }
    write_atomic(Path(training.output_dir) / "run.json", json.dumps(record, indent=2, default=str) + "\n")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"sft.train: {error}", file=sys.stderr)
        sys.exit(2)
