"""Generates text for many conversations at once with one model: prompts alone, then token by token together.

A prompt is long enough to keep any machine busy by itself, so each is read alone, without padding, from where the
conversation was read before; the one prompt of many samples, as in RL, is read once. The tokens after it are produced for
all conversations in one forward pass a step; conversations join and leave between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cof_agent.backends import families
from cof_agent.backends.local.budget import Budget, budget_of
from cof_agent.backends.local.cpu import is_small
from cof_agent.backends.local.layers import Layers, Pool, Recurrent, cut, layers_of, states_of
from cof_agent.backends.local.memory import FeatureCache, Picture
from cof_agent.backends.local.past import PastConversations
from cof_agent.backends.local.sampling import Drawing, chosen, drawing, logprobs_of
from cof_agent.policy import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with one image token for each merged patch, and the images in order."""

    ids: list[int]
    pictures: list[Picture]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Generated:
    """New token ids, the stop token included if there is one.

    logprobs: of each id, where the engine tells them: natural logarithms, vLLM's after temperature and top_p, those of
    `Decoder` before, and only if they were asked for.
    """

    ids: list[int]
    stopped: bool
    logprobs: list[float | None] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A prompt that was read: what the layers keep of it, the logits [1, vocabulary] after it, and the next position."""

    layers: Layers
    logits: Tensor
    position: int


@dataclass(slots=True)
class _Row:
    key: int
    prompt: Prompt
    logits: Tensor  # after the prompt
    states: list[Recurrent]  # of linear attention, after the prompt
    position: int  # of the next token, the same on all three rotary axes once the prompt is over
    length: int  # tokens of which the pool has what the layers keep
    drawing: Drawing
    ids: list[int]
    logprobs: list[float | None] | None


class Decoder:
    """The engine of the local backend (see `batching.Engine`). stop_ids end a turn; unspeakable ones are never written.

    budget: what is kept of images and past conversations, by default by what is free on the device of the model.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: set[int],
        unspeakable: list[int],
        *,
        capacity: int,
        text: Callable[[Sequence[int]], str],
        budget: Budget | None = None,
    ) -> None:
        self.capacity, self._budget = capacity, budget or budget_of(model, capacity)
        self._threads = _threads(model)
        self._model = model
        self._text_config = model.config.get_text_config()
        modules = families.of(model.config).modules
        self._language, self._head = model.get_submodule(modules.language), model.get_submodule(modules.head)
        self._stop_ids = stop_ids
        self._unspeakable = unspeakable
        self._text = text
        self._rows: list[_Row] = []
        self._pool, self._lost = Pool(self._make_room), False
        self.forget()
        self._next_key = 0

    def forget(self) -> None:
        """Drops what is kept of images and past conversations; what is running stays. From any thread."""
        self._features = FeatureCache(self._model, self._budget)
        self._past = PastConversations(self._text_config, self._budget)

    def knows(self, picture: Picture) -> bool:
        """Whether the vision tower's features of the picture are there (for now). From any thread."""
        return picture.key in self._features

    @torch.inference_mode()
    def features(self, pictures: list[Picture]) -> list[Tensor]:
        """What the vision tower makes of each picture, [merged patches, width]; kept for the conversations about it.
        From any thread."""
        self._use_threads()
        found: list[Tensor] = self._features.of(pictures).pooler_output
        return found

    @torch.inference_mode()
    def embeddings(self, ids: list[int]) -> Tensor:
        """The input embeddings of tokens, [tokens, width]. From any thread."""
        found: Tensor = self._model.get_input_embeddings()(torch.tensor(ids, device=self._model.device))
        return found

    @torch.inference_mode()
    def admit(self, request: Prompt) -> int:
        self._use_threads()
        read = self._read_before(request) or self._read_with_room(request)
        self._insert(read.layers, len(request.ids))
        told: list[float | None] | None = [] if request.sampling.logprobs else None
        row = _Row(
            key=self._next_key,
            prompt=request,
            logits=read.logits,
            states=states_of(read.layers),
            position=read.position,
            length=len(request.ids),
            drawing=drawing(request.sampling),
            ids=[],
            logprobs=told,
        )
        self._next_key += 1
        self._rows.append(row)
        self._append([row], read.logits)
        return row.key

    @torch.inference_mode()
    def step(self) -> dict[int, Generated]:
        if self._lost:
            raise torch.OutOfMemoryError("the pool could not grow")
        finished = self._take_finished()
        if self._rows and not finished:
            self._append(self._rows, self._logits())
            finished = self._take_finished()
        return finished

    @torch.inference_mode()
    def drop(self, key: int) -> None:
        for index, row in enumerate(self._rows):
            if row.key == key:
                self._remove(index)
                return

    @torch.inference_mode()
    def reset(self) -> None:
        self._rows.clear()
        self._pool, self._lost = Pool(self._make_room), False

    def _use_threads(self) -> None:
        """Counts for the thread that calls, and for that one alone."""
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)

    def _read_before(self, prompt: Prompt) -> _Read | None:
        """What is known of the same prompt from a conversation that is running; None if there is none.

        The rollouts of a group begin with one prompt. What they get is a copy, to the last bit."""
        length, pictures = len(prompt.ids), [picture.key for picture in prompt.pictures]
        for index, row in enumerate(self._rows):
            if row.prompt.ids == prompt.ids and [picture.key for picture in row.prompt.pictures] == pictures:
                layers = self._pool.row(index, row.length)
                return _Read(cut(layers, length, row.states), row.logits, row.position - (row.length - length))
        return None

    def _read_with_room(self, prompt: Prompt) -> _Read:
        """Reads it, if need be in the place of what is kept."""
        try:
            return self._read(prompt)
        except torch.OutOfMemoryError:
            self.forget()
        return self._read(prompt)

    def _read(self, prompt: Prompt) -> _Read:
        model, ids = self._model, torch.tensor([prompt.ids], device=self._model.device)
        grid = torch.tensor([picture.grid for picture in prompt.pictures]) if prompt.pictures else None
        kinds = (ids == model.config.image_token_id).int()
        positions, delta = model.model.get_rope_index(ids, kinds, image_grid_thw=grid)
        cache, known = self._past.recall(prompt.ids, prompt.pictures)
        new = self._pictures_after(known, prompt)
        output = model.model(
            input_ids=ids[:, known:],
            position_ids=positions[:, :, known:],
            past_key_values=cache or DynamicCache(config=self._text_config),
            use_cache=True,
            mm_encoder_outputs={"image": self._features.of(new)} if new else None,
        )
        logits: Tensor = self._head(output.last_hidden_state[:, -1])
        return _Read(layers_of(output.past_key_values), logits, len(prompt.ids) + int(delta))

    def _pictures_after(self, known: int, prompt: Prompt) -> list[Picture]:
        """The images whose tokens come after the first `known`."""
        seen = prompt.ids[:known].count(self._model.config.image_token_id)
        cell = self._model.config.vision_config.spatial_merge_size**2
        pictures = list(prompt.pictures)
        while seen > 0:
            seen -= prod(pictures.pop(0).grid) // cell
        return pictures

    def _insert(self, layers: Layers, length: int) -> None:
        """Adds a row to the pool. Where that cannot grow, all other rows are lost, as the next step tells their callers."""
        try:
            self._pool.insert(layers, length, max((row.length for row in self._rows), default=0))
        except torch.OutOfMemoryError:
            self._lost = bool(self._rows)
            self._rows.clear()
            self._pool = Pool(self._make_room)
            raise

    def _make_room(self, wanted: int) -> None:
        """Drops what is only kept, until so many bytes are free on the device."""
        self._past.make_room(wanted)
        if self._budget.free() < wanted:
            self.forget()

    def _logits(self) -> Tensor:
        """One forward pass over the last token of every row: logits [rows, vocabulary]."""
        model, device, rows = self._model, self._model.device, self._rows
        lengths = torch.tensor([row.length for row in rows], device=device)
        longest = max(row.length for row in rows)
        self._pool.prepare(longest)
        tokens = torch.tensor([[row.ids[-1]] for row in rows], device=device)
        positions = torch.tensor([[row.position] for row in rows], device=device)
        # Always given: without a mask the model would make one. Rows end together, so a shorter one has columns of
        # another's past, or of nothing, in front.
        columns = torch.arange(longest + 1, device=device)
        mask = self._masked((columns >= longest - lengths[:, None])[:, None, None, :])
        output = self._language(
            inputs_embeds=model.get_input_embeddings()(tokens),
            position_ids=positions.expand(3, -1, -1),
            attention_mask=mask,
            past_key_values=self._pool,
            use_cache=True,
        )
        for row in rows:
            row.position += 1
            row.length += 1
        logits: Tensor = self._head(output.last_hidden_state[:, -1])
        return logits

    def _masked(self, seen: Tensor) -> Tensor:
        """As the attention of the language model takes a mask: eager adds it to the scores, sdpa takes what is seen."""
        if self._language.config._attn_implementation == "sdpa":
            return seen
        dtype = self._model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)

    def _append(self, rows: list[_Row], logits: Tensor) -> None:
        logits[:, self._unspeakable] = -torch.inf
        tokens = chosen(logits, [row.drawing for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            row.ids.append(token)
        if any(row.logprobs is not None for row in rows):
            for row, logprob in zip(rows, logprobs_of(logits, tokens), strict=True):
                if row.logprobs is not None:
                    row.logprobs.append(logprob)

    def _take_finished(self) -> dict[int, Generated]:
        finished = {}
        for index in range(len(self._rows) - 1, -1, -1):
            row = self._rows[index]
            stopped = row.ids[-1] in self._stop_ids or self._says(row.ids, row.prompt.sampling.stop)
            if stopped or len(row.ids) >= row.prompt.sampling.max_tokens:
                finished[row.key] = Generated(row.ids, stopped, row.logprobs)
                self._keep(index)
                self._remove(index)
        return finished

    def _keep(self, index: int) -> None:
        """Remembers what was read and written in a row, where there is memory for it."""
        row = self._rows[index]
        try:
            layers, ids = self._pool.row(index, row.length), row.prompt.ids + row.ids[:-1]
        except torch.OutOfMemoryError:
            return
        self._past.keep(ids, row.prompt.pictures, layers, {len(row.prompt.ids): row.states} if row.states else {})

    def _says(self, ids: Sequence[int], stop: str) -> bool:
        """Whether the text that ends a message has just been written."""
        return bool(stop) and stop in self._text(ids[-len(stop) :])  # a token has at least a character

    def _remove(self, index: int) -> None:
        last = self._rows.pop()
        if index < len(self._rows):
            self._rows[index] = last
        self._pool.remove(index)
        if not self._rows:
            self._pool = Pool(self._make_room)  # its memory is for others


def _threads(model: Any) -> int | None:
    """A small model's operations are too short to share between cores, which then wait for each other more than they
    work; with another busy program on the machine a hundred times more. None for torch's own choice."""
    return 1 if model.device.type == "cpu" and is_small(model) else None
