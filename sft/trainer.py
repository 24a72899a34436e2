"""TRL's `SFTTrainer` with the agent's evaluation, whole checkpoints, and one loss on any number of processes."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer

from cof_agent.training.trainer import ZoomTrainer


class ZoomSFTTrainer(ZoomTrainer, SFTTrainer):
    """See `ZoomTrainer`.

    The loss is the mean over all trained tokens of a step, however many processes and accumulation steps share it. Qwen's
    classes say that they cannot be told that number, but the loss is TRL's, which takes it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.model_accepts_loss_kwargs = True
