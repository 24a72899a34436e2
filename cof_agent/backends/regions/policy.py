"""A checkpoint with region embeddings (`features`) as a policy: the boxes that a question names go into slots."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.regions.features import SLOT, slotted
from cof_agent.policy import Completion, PolicyError, Sampling
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.protocol import Message


class RegionPolicy(LocalPolicy):
    """A `RegionQwen` in memory. A conversation that names no region is answered as `LocalPolicy` does, one that does by
    transformers' own generation, one at a time; its boxes lie in the overview, image 0."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Random numbers and the hooks on the tower are the process's and the model's.
        self._generating = threading.Lock()

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message; see `LocalPolicy`. Does not tell probabilities.

        Raises:
            PolicyError: if a message holds the text of the slot, the conversation is longer than the model reads, or memory runs
                out.
        """
        rewritten, boxes = _with_slots(messages)
        if not boxes:
            return await super().generate(messages, images, sampling)
        asked = await asyncio.to_thread(self._prompt, rewritten, images, sampling)
        ids, pictures = asked.ids, asked.pictures
        prompt = torch.tensor([ids], device=self.model.device)
        inputs = {
            "input_ids": prompt,
            "attention_mask": torch.ones_like(prompt),
            "mm_token_type_ids": (prompt == self._image_token_id).int(),
            "pixel_values": torch.cat([picture.patches for picture in pictures]).to(self.model.device),
            "image_grid_thw": torch.tensor([picture.grid for picture in pictures], device=self.model.device),
            "regions": torch.tensor([[0.0, *box] for box in boxes], device=self.model.device),
        }
        try:
            new = await asyncio.to_thread(self._drawn, inputs, asked.sampling)
        except torch.OutOfMemoryError:
            raise PolicyError(
                f"{self.name} ran out of memory at {len(ids)} tokens; lower --overview-pixels or the concurrency."
            ) from None
        return Completion(self.turn(messages, new), Tokens(len(ids), len(new)), truncated=new[-1] not in self.stop_ids)

    @torch.inference_mode()
    def _drawn(self, inputs: dict[str, Any], sampling: Sampling) -> list[int]:
        how = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=sampling.temperature > 0,
            eos_token_id=sorted(self.stop_ids),
            pad_token_id=self._tokenizer.pad_token_id,
            suppress_tokens=sorted(self.unspeakable),
            **(
                {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
                if sampling.temperature
                else {}
            ),
        )
        with self._generating, torch.random.fork_rng():
            if sampling.seed is None:
                torch.seed()  # else each draw would begin where the fork did
            else:
                torch.manual_seed(sampling.seed)
            whole = self.model.generate(**inputs, generation_config=how)
        new: list[int] = whole[0, inputs["input_ids"].shape[1] :].tolist()
        return new


def _with_slots(messages: Sequence[Message]) -> tuple[list[Message], list[list[float]]]:
    """The messages with slots in what the user wrote, and the boxes in their order, in shown pixels of the overview."""
    rewritten: list[Message] = []
    boxes: list[list[float]] = []
    for message in messages:
        content = []
        for part in message["content"]:
            if part["type"] == "text" and SLOT in part["text"]:
                raise PolicyError(
                    f"a message holds the text {SLOT}, which stands for a region; remove it.", transient=False
                )
            if part["type"] == "text" and message["role"] == "user":
                text, found = slotted(part["text"])
                part, boxes = part | {"text": text}, boxes + found
            content.append(part)
        rewritten.append(message | {"content": content})
    return rewritten, boxes
