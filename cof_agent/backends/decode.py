"""Generates text for many conversations at once with a Qwen-VL model: prompts alone, then token by token together.

A prompt is long enough to keep any machine busy by itself, so each is read alone: no padding, and its numbers do not
depend on who else is there. The tokens after it are produced for all conversations in one forward pass a step;
conversations join and leave between steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cof_agent.policy import Sampling

_FEATURE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Picture:
    """One image as the vision tower takes it. `key` names its pixels; `grid` is in patches: time, height, width."""

    key: bytes
    grid: tuple[int, int, int]
    process: Callable[[], Tensor]

    @cached_property
    def patches(self) -> Tensor:
        """[patches, channels x time x height x width]; made when asked for, since features may be there already."""
        return self.process()


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with one image token for each merged patch, and the images in order."""

    ids: list[int]
    pictures: list[Picture]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Generated:
    """New token ids, the stop token included if there is one."""

    ids: list[int]
    stopped: bool


@dataclass(slots=True)
class _Row:
    key: int
    sampling: Sampling
    position: int  # of the next token, the same on all three rotary axes once the prompt is over
    length: int  # tokens whose keys and values are in the pool
    generator: torch.Generator | None
    ids: list[int]


class Decoder:
    """The engine of the local backend (see `batching.Engine`)."""

    def __init__(self, model: Any, stop_ids: set[int], *, capacity: int) -> None:
        self.capacity = capacity
        self._threads = _threads(model)
        self._model = model
        self._stop_ids = stop_ids
        self._pool = _KeyValuePool()
        self._rows: list[_Row] = []
        self._features = _FeatureCache(model)
        self._next_key = 0

    def knows(self, picture: Picture) -> bool:
        """Whether the vision tower's features of the picture are there (for now). From any thread."""
        return picture.key in self._features

    @torch.inference_mode()
    def admit(self, request: Prompt) -> int:
        if self._threads is not None:  # counts for the thread that calls, which is the batcher's
            torch.set_num_threads(self._threads)
            self._threads = None
        cache, logits, position = self._read(request)
        self._pool.insert(cache, max((row.length for row in self._rows), default=0))
        row = _Row(self._next_key, request.sampling, position, len(request.ids), _generator(request.sampling), [])
        self._next_key += 1
        self._rows.append(row)
        self._append([row], logits)
        return row.key

    @torch.inference_mode()
    def step(self) -> dict[int, Generated]:
        finished = self._take_finished()
        if self._rows and not finished:
            self._append(self._rows, self._logits())
            finished = self._take_finished()
        return finished

    def drop(self, key: int) -> None:
        for index, row in enumerate(self._rows):
            if row.key == key:
                self._remove(index)
                return

    def reset(self) -> None:
        self._rows.clear()
        self._pool = _KeyValuePool()

    def _read(self, prompt: Prompt) -> tuple[DynamicCache, Tensor, int]:
        """Reads a whole prompt: its keys and values, the logits [1, vocabulary] after it, the next position."""
        model = self._model
        ids = torch.tensor([prompt.ids], device=model.device)
        grid = torch.tensor([picture.grid for picture in prompt.pictures]) if prompt.pictures else None
        kinds = (ids == model.config.image_token_id).int()
        positions, delta = model.model.get_rope_index(ids, kinds, image_grid_thw=grid)
        cache = DynamicCache(config=model.config.get_text_config())
        output = model.model(
            input_ids=ids,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            mm_encoder_outputs={"image": self._features.of(prompt.pictures)} if prompt.pictures else None,
        )
        return cache, model.lm_head(output.last_hidden_state[:, -1]), len(prompt.ids) + int(delta)

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
        mask = (columns >= longest - lengths[:, None])[:, None, None, :]
        output = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(tokens),
            position_ids=positions.expand(3, -1, -1),
            attention_mask=mask,
            past_key_values=self._pool,
            use_cache=True,
        )
        for row in rows:
            row.position += 1
            row.length += 1
        logits: Tensor = model.lm_head(output.last_hidden_state[:, -1])
        return logits

    def _append(self, rows: list[_Row], logits: Tensor) -> None:
        best = logits.argmax(-1).tolist()
        for index, row in enumerate(rows):
            sampled = row.generator is not None
            row.ids.append(_draw(logits[index], row.sampling, row.generator) if sampled else best[index])

    def _take_finished(self) -> dict[int, Generated]:
        finished = {}
        for index in range(len(self._rows) - 1, -1, -1):
            row = self._rows[index]
            stopped = row.ids[-1] in self._stop_ids
            if stopped or len(row.ids) >= row.sampling.max_tokens:
                finished[row.key] = Generated(row.ids, stopped)
                self._remove(index)
        return finished

    def _remove(self, index: int) -> None:
        last = self._rows.pop()
        if index < len(self._rows):
            self._rows[index] = last
        self._pool.remove(index)


class _KeyValuePool:
    """Keys and values of all rows, per layer [slots, heads, columns, size]; every row ends before column `_end`.

    New columns are written in place: growing by concatenation would copy everything at every token. It stands in
    for a transformers `Cache` in the forward pass of a single token.
    """

    _SPARE = 128  # columns for new tokens at each resize

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows = self._slots = self._columns = self._end = self._first = 0

    def insert(self, cache: DynamicCache, longest: int) -> None:
        """Adds a row behind the others, the longest of which has `longest` tokens."""
        length = cache.get_seq_length()
        if self._rows == 0 and length < self._columns:
            self._end = length
        if length > self._end or self._end >= self._columns or self._rows == self._slots:
            self._layers = self._layers or [(keys[:0], values[:0]) for keys, values in _layers(cache)]
            self._resize(longest, max(longest, length))
        for (keys, values), layer in zip(self._layers, _layers(cache), strict=True):
            keys[self._rows, :, self._end - length : self._end] = layer[0][0]
            values[self._rows, :, self._end - length : self._end] = layer[1][0]
        self._rows += 1

    def prepare(self, longest: int) -> None:
        """Makes room for one more token; call before each step."""
        if self._end >= self._columns:
            self._resize(longest, longest)
        self._first = self._end - longest
        self._end += 1

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What attention calls: takes in [rows, heads, 1, size], gives [rows, heads, longest + 1, size]."""
        all_keys, all_values = self._layers[layer]
        all_keys[: self._rows, :, self._end - 1] = keys[:, :, 0]
        all_values[: self._rows, :, self._end - 1] = values[:, :, 0]
        span = slice(self._first, self._end)
        return all_keys[: self._rows, :, span], all_values[: self._rows, :, span]

    def get_seq_length(self, layer: int = 0) -> int:
        return self._end - 1 - self._first

    def remove(self, index: int) -> None:
        """Takes a row out; the last row takes its place."""
        self._rows -= 1
        if index < self._rows:
            for keys, values in self._layers:
                keys[index] = keys[self._rows]
                values[index] = values[self._rows]

    def _resize(self, keep: int, end: int) -> None:
        """Moves to tensors with room; the last `keep` columns of each row stay, and rows end at column `end`."""
        if self._rows == self._slots:
            self._slots = max(1, 2 * self._slots)
        self._columns = end + self._SPARE
        self._layers = [(self._moved(keys, keep, end), self._moved(values, keep, end)) for keys, values in self._layers]
        self._end = end

    def _moved(self, old: Tensor, keep: int, end: int) -> Tensor:
        # Zeros, since a masked column is still multiplied, by 0: rubbish there could be NaN.
        new = old.new_zeros(self._slots, old.shape[1], self._columns, old.shape[3])
        if self._rows and keep:
            new[: self._rows, :, end - keep : end] = old[: self._rows, :, self._end - keep : self._end]
        return new


def _layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, [1, heads, length, size]."""
    return [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr, misc]


class _FeatureCache:
    """What the vision tower makes of an image, kept for the later turns of a conversation, least recent out first."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: OrderedDict[bytes, tuple[Tensor, list[Tensor]]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def of(self, pictures: list[Picture]) -> Any:
        """In the form of `get_image_features`: a tensor [merged patches, width] for each image, and so for each
        DeepStack level."""
        found = [self._one(picture) for picture in pictures]
        levels = [[deep[level] for _, deep in found] for level in range(len(found[0][1]))]
        return SimpleNamespace(pooler_output=[features for features, _ in found], deepstack_features=levels)

    def _one(self, picture: Picture) -> tuple[Tensor, list[Tensor]]:
        if picture.key in self._kept:
            self._kept.move_to_end(picture.key)
            return self._kept[picture.key]
        # Each image alone, so that its features do not depend on the others.
        output = self._model.get_image_features(
            picture.patches.to(self._model.device), torch.tensor([picture.grid], device=self._model.device)
        )
        result = output.pooler_output[0], [level[0] for level in getattr(output, "deepstack_features", None) or []]
        self._kept[picture.key] = result
        self._bytes += _size(result)
        while self._bytes > _FEATURE_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return result


def _threads(model: Any) -> int | None:
    """A small model's operations are too short to share between cores, which then wait for each other more than they
    work; with another busy program on the machine a hundred times more. None for torch's own choice."""
    return 1 if model.device.type == "cpu" and model.num_parameters() < 50_000_000 else None


def _size(entry: tuple[Tensor, list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensor in (entry[0], *entry[1]))


def _generator(sampling: Sampling) -> torch.Generator | None:
    """The random numbers of one request, its own, whatever else is in the batch; None for greedy."""
    if sampling.temperature <= 0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """One token of logits [vocabulary]: temperature, then the smallest set of tokens that holds `top_p`."""
    chances = torch.softmax(logits.float().cpu() / sampling.temperature, -1)
    if sampling.top_p < 1:
        ranked, order = chances.sort(descending=True, stable=True)
        chances[order[ranked.cumsum(-1) - ranked >= sampling.top_p]] = 0
    # Along the vocabulary, not along the ranks: rounding may swap two ranks, and with them the token that is drawn.
    total = chances.double().cumsum(-1)
    point = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
    return int(torch.searchsorted(total, point, right=True).clamp(max=int(chances.nonzero()[-1])))
