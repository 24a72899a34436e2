"""SFT of nano through `sft.train`, against a bare PyTorch loop over the same batches.

Prints tokens per second of both (padding not counted), the share of time in which training waits for data, and the
memory of the process at the beginning and the end of a long run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benches import memory
from cof_agent.nano import WEIGHTS
from sft.settings import Settings, parse
from sft.train import build_trainer
from sft.trainer import ZoomSFTTrainer

COMPARED = 40  # steps of each side
WARM = 5  # steps that are not counted
ROUNDS = 2  # the two sides take turns, so that a machine that slows down slows both
BATCH = 8
CONFIG = Path(__file__).parents[2] / "sft" / "configs" / "nano.yaml"


def run(steps: int) -> None:
    """steps: of the run whose memory is watched."""
    with tempfile.TemporaryDirectory() as folder:
        ours, bare, waits = 0.0, 0.0, []
        for _ in range(ROUNDS):
            rate, waited = _trained(_settings(Path(folder), COMPARED))
            ours, bare = max(ours, rate), max(bare, _bare(_settings(Path(folder), COMPARED)))
            waits.append(waited)
        print(f"bare PyTorch loop   {bare:8.0f} tokens/s   1.00 x")
        print(f"sft.train           {ours:8.0f} tokens/s   {ours / bare:.2f} x")
        print(f"waiting for data    {100 * min(waits):.1f} % of the time")
        watch = memory.Resident()
        trainer = build_trainer(_settings(Path(folder), steps))
        trainer.add_callback(watch)
        trainer.train()
        first = watch.mib[steps // 5 - 1]
        print(f"memory              {first} MiB after {steps // 5} steps, {watch.mib[-1]} MiB after {steps}")


def _settings(folder: Path, steps: int) -> Settings:
    given = {
        "model_name_or_path": WEIGHTS,
        "output_dir": folder,
        "samples": BATCH * steps,
        "per_device_train_batch_size": BATCH,
        "logging_steps": 10,
        "save_strategy": "no",
        "quiet": "true",
    }
    return parse(
        ["--config", str(CONFIG), *(text for key, value in given.items() for text in (f"--{key}", str(value)))]
    )


class _Clock(TrainerCallback):
    """When each step ended, and how many tokens it had."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def _trained(settings: Settings) -> tuple[float, float]:
    """Tokens per second after the warm-up, and the share of that time spent waiting for batches."""
    trainer, clock = build_trainer(settings), _Clock()
    trainer.add_callback(clock)
    batches = _Batches(trainer)
    trainer.get_batch_samples = batches.fetch  # type: ignore[method-assign]
    trainer.train()
    seconds = clock.ends[-1] - clock.ends[WARM - 1]
    return sum(batches.tokens[WARM:]) / seconds, sum(batches.waited[WARM:]) / seconds


class _Batches:
    """The trainer's own way of fetching batches, timed."""

    def __init__(self, trainer: ZoomSFTTrainer) -> None:
        self._stock = trainer.get_batch_samples
        self._pad = trainer.processing_class.tokenizer.pad_token_id
        self.tokens: list[int] = []
        self.waited: list[float] = []

    def fetch(self, iterator: Iterator[Any], count: int, device: torch.device) -> Any:
        started = time.perf_counter()
        found = self._stock(iterator, count, device)
        self.waited.append(time.perf_counter() - started)
        self.tokens.append(sum(int((batch["input_ids"] != self._pad).sum()) for batch in found[0]))
        return found


def _bare(settings: Settings) -> float:
    """The same model, rows, collator and data workers in a loop as one would write it; tokens per second."""
    trainer = build_trainer(settings)
    training, model = settings.training, trainer.model
    loader = torch.utils.data.DataLoader(
        trainer.train_dataset,
        batch_size=BATCH,
        collate_fn=trainer.data_collator,
        num_workers=training.dataloader_num_workers,
        prefetch_factor=training.dataloader_prefetch_factor,
    )
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay)
    pad = trainer.processing_class.tokenizer.pad_token_id
    tokens, started = 0, 0.0
    for step, batch in enumerate(loader):
        if step == WARM:
            started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=training.bf16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        tokens += int((batch["input_ids"] != pad).sum()) if step >= WARM else 0
    return tokens / (time.perf_counter() - started)
