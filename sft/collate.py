"""Makes a batch of training rows: the same template and processor as the agent's, labels on assistant turns only.

TRL's own collator gives the same ids and labels (a test compares them) but finds the assistant turns by a Python
loop over characters, which takes a quarter of the time of a training step of nano.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from cof_agent.backends.families import Markers
from cof_agent.backends.local.template import opened, templated
from sft.conversations.spans import assistant_spans

IGNORED = -100
BLANK = (56, 56)  # shown pixels; the processor makes more of it where its limits ask for that


@dataclass
class AssistantCollator:
    """Rows (`messages` with image slots, `images`) -> model inputs with `labels`, shapes [batch, longest row].

    A batch without any image gets a blank one behind its first row, where causal attention never looks: else a process with such
    a batch would leave the vision tower out, for whose gradients all others wait.

    markers: of the model's family. with_mask: tells padding, for a model whose experts are balanced over all tokens.
    """

    processor: ProcessorMixin
    markers: Markers
    with_mask: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokenizer = self.processor.tokenizer
        texts = [templated(self.processor, row["messages"]) for row in rows]
        images = [image for row in rows for image in row["images"]]
        if not images:
            texts[0], images = f"{texts[0]}{self.markers.shown}", [Image.new("RGB", BLANK)]
        batch = self.processor(
            text=texts,
            images=images,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        begun = opened(self.processor, self.markers)
        mask = assistant_mask(batch["input_ids"], tokenizer, self.markers, begun) & batch["attention_mask"].bool()
        # Padding stands on the right, where causal attention never looks; without a mask attention is a third faster.
        if not self.with_mask:
            batch["attention_mask"].fill_(1)
        return {**batch, "labels": batch["input_ids"].masked_fill(~mask, IGNORED)}


def assistant_mask(ids: torch.Tensor, tokenizer: Any, markers: Markers, begun: str = "") -> torch.Tensor:
    """True on what assistants wrote: after the header of a turn up to and with its ending.

    ids: [batch, length], right-padded. markers: how the chat template frames a turn. begun: what the template writes of it
    before the model goes on (`template.opened`).
    """
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, sequence in zip(mask, ids.tolist(), strict=True):
        for start, stop in assistant_spans(sequence, tokenizer, markers, begun):
            row[start:stop] = True
    return mask
