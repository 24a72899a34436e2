"""TRL's `SFTTrainer` with the agent's evaluation, whole checkpoints, and one loss on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import SFTTrainer

from cof_agent.training.rows import EvenSampler
from cof_agent.training.trainer import ZoomTrainer


class ZoomSFTTrainer(ZoomTrainer, SFTTrainer):
    """See `ZoomTrainer`.

    The loss is the mean over all trained tokens of a step, however many processes and accumulation steps share it. Qwen's
    classes say that they cannot be told that number, but the loss is TRL's, which takes it.

    lengths: tokens of each row of the data, where they are known. Rows of like length are then trained on together, in the
    step that draws them.
    """

    def __init__(self, *arguments: Any, lengths: Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model_accepts_loss_kwargs = True
        # The experts of a micro-batch are balanced over its tokens, without padding and whichever rows it has.
        self._lengths = None if self.aux_loss_enabled else lengths
        self.data_collator.with_mask = self.aux_loss_enabled

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """As TRL's; `num_tokens` counts tokens without padding, and goes on where an interrupted run stopped."""
        before = self._total_train_tokens  # type: ignore[has-type]
        if not before:
            logged = [entry["num_tokens"] for entry in self.state.log_history if "num_tokens" in entry]
            before = int(logged[-1]) if logged else 0
        real = (inputs["input_ids"] != self.processing_class.tokenizer.pad_token_id).sum()
        found = super().compute_loss(model, inputs, *arguments, **options)
        if self.model.training:
            self._total_train_tokens = before + int(self.accelerator.gather_for_metrics(real).sum())
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return found

    def get_train_dataloader(self) -> Any:
        loader: Any = super().get_train_dataloader()
        if self._lengths is not None and self.args.train_sampling_strategy == "random":
            step = self._train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
            loader.set_sampler(EvenSampler(loader.get_sampler(), self._lengths, step))
        return loader
