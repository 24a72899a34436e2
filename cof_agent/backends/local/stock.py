"""Generates with transformers' own `generate`, one conversation at a time: for layers that keep more than `layers` knows."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from cof_agent.backends.local.decode import Decoder, Generated, Prompt
from cof_agent.backends.local.sampling import chosen, drawing, logprobs_of


class StockDecoder(Decoder):
    """As `Decoder`, but each conversation is read and answered alone, from its start."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._asked: deque[tuple[int, Prompt]] = deque()

    def admit(self, request: Prompt) -> int:
        self._asked.append((self._next_key, request))
        self._next_key += 1
        return self._next_key - 1

    @torch.inference_mode()
    def step(self) -> dict[int, Generated]:
        """Answers one request."""
        self._use_threads()
        if not self._asked:
            return {}
        key, prompt = self._asked.popleft()
        return {key: self._generated(prompt)}

    def drop(self, key: int) -> None:
        self._asked = deque(one for one in self._asked if one[0] != key)

    def reset(self) -> None:
        super().reset()
        self._asked.clear()

    def _generated(self, prompt: Prompt) -> Generated:
        model, sampling = self._model, prompt.sampling
        ids = torch.tensor([prompt.ids], device=model.device)
        choice = _Choice(prompt, self._unspeakable)
        found = _generate(
            model,
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model.config.image_token_id).int(),
            max_new_tokens=sampling.max_tokens,
            do_sample=False,  # the choice is made before
            eos_token_id=sorted(self._stop_ids),
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=StoppingCriteriaList([_Said(self, prompt)] if sampling.stop else []),
            **self._pixels(prompt),
        )
        new: list[int] = found[0, len(prompt.ids) :].tolist()
        stopped = new[-1] in self._stop_ids or self._says(new, sampling.stop)
        return Generated(new, stopped, choice.logprobs if sampling.logprobs else None)

    def _pixels(self, prompt: Prompt) -> dict[str, Tensor]:
        if not prompt.pictures:
            return {}
        return {
            "pixel_values": torch.cat([picture.patches for picture in prompt.pictures]).to(self._model.device),
            "image_grid_thw": torch.tensor([picture.grid for picture in prompt.pictures], device=self._model.device),
        }


def _generate(model: Any, **options: Any) -> Tensor:
    """What the model's `generate` makes of these options alone, whatever the checkpoint's generation config says."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        made: Tensor = model.generate(**options)
        return made
    finally:
        model.generation_config = own


class _Choice(LogitsProcessor):
    """Chooses as `Decoder` does, by leaving the chosen token alone. logprobs: of these, before temperature and top_p."""

    def __init__(self, prompt: Prompt, unspeakable: list[int]) -> None:
        self._drawing, self._unspeakable = drawing(prompt.sampling), unspeakable
        self.logprobs: list[float | None] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[:, self._unspeakable] = -torch.inf
        tokens = chosen(scores, [self._drawing])
        self.logprobs += logprobs_of(scores, tokens) if self._drawing.sampling.logprobs else []
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor(tokens, device=scores.device), 0.0)


class _Said(StoppingCriteria):
    """Whether the text that ends a message has just been written."""

    def __init__(self, decoder: StockDecoder, prompt: Prompt) -> None:
        self._decoder, self._start, self._stop = decoder, len(prompt.ids), prompt.sampling.stop

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        said = self._decoder._says(input_ids[0, self._start :].tolist(), self._stop)
        return torch.tensor([said], device=input_ids.device)
