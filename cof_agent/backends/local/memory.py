"""What the decoder keeps: keys and values of the running conversations, of past ones, and features of images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from PIL.Image import Image

_FEATURE_BYTES = 256 * 2**20
_PAST_BYTES = 512 * 2**20

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of one conversation, for each layer [heads, tokens, size]."""


@dataclass(frozen=True)
class Picture:
    """One image as the vision tower takes it. `key` names its pixels; `grid` is in patches: time, height, width."""

    key: bytes
    grid: tuple[int, int, int]
    image: Image
    process: Callable[[], Tensor]

    @cached_property
    def patches(self) -> Tensor:
        """[patches, channels x time x height x width]; made when asked for, since features may be there already."""
        return self.process()


class KeyValuePool:
    """Keys and values of all rows, per layer [slots, heads, columns, size]; every row ends before column `_end`.

    New columns are written in place: growing by concatenation would copy everything at every token. It stands in
    for a transformers `Cache` in the forward pass of a single token.
    """

    _SPARE = 128  # columns for new tokens at each resize, at least
    _FEWEST = 4  # slots

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows = self._slots = self._columns = self._end = self._first = 0

    def insert(self, layers: Layers, longest: int) -> None:
        """Adds a row behind the others, the longest of which has `longest` tokens; takes a copy of `layers`."""
        length = layers[0][0].shape[1]
        if self._rows == 0 and length < self._columns:
            self._end = length
        if length > self._end or self._end >= self._columns or self._rows == self._slots:
            self._layers = self._layers or [(keys[None][:0], values[None][:0]) for keys, values in layers]
            self._resize(longest, max(longest, length))
        for (keys, values), (new_keys, new_values) in zip(self._layers, layers, strict=True):
            keys[self._rows, :, self._end - length : self._end] = new_keys
            values[self._rows, :, self._end - length : self._end] = new_values
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

    def row(self, index: int, length: int) -> Layers:
        """A copy of the last `length` columns of a row."""
        span = slice(self._end - length, self._end)
        return [(keys[index, :, span].clone(), values[index, :, span].clone()) for keys, values in self._layers]

    def _resize(self, keep: int, end: int) -> None:
        """Moves to tensors with room; the last `keep` columns of each row stay, and rows end at column `end`."""
        if self._rows == self._slots:
            self._slots = max(self._FEWEST, 2 * self._slots)
        self._columns = end + max(self._SPARE, end // 2)
        self._layers = [(self._moved(keys, keep, end), self._moved(values, keep, end)) for keys, values in self._layers]
        self._end = end

    def _moved(self, old: Tensor, keep: int, end: int) -> Tensor:
        # Zeros, since a masked column is still multiplied, by 0: rubbish there could be NaN.
        new = old.new_zeros(self._slots, old.shape[1], self._columns, old.shape[3])
        if self._rows and keep:
            new[: self._rows, :, end - keep : end] = old[: self._rows, :, self._end - keep : self._end]
        return new


def layers_of(cache: DynamicCache) -> Layers:
    """What a cache of one conversation holds."""
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]  # type: ignore[index]


@dataclass(frozen=True, slots=True)
class _Past:
    ids: list[int]
    pictures: list[bytes]
    layers: Layers

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class PastConversations:
    """Keys and values of conversations that were answered, for their next turn: only what is new has to be read.

    Also what two conversations begin with in common is read once. Least recent out first.
    """

    def __init__(self) -> None:
        self._kept: list[_Past] = []

    def keep(self, ids: list[int], pictures: Sequence[Picture], layers: Layers) -> None:
        """Remembers the keys and values of `ids`, and forgets a conversation that these continue."""
        keys = [picture.key for picture in pictures]
        self._kept = [past for past in self._kept if _common(past, ids, keys) < len(past.ids)]
        self._kept.append(_Past(ids, keys, layers))
        while len(self._kept) > 1 and sum(past.nbytes for past in self._kept) > _PAST_BYTES:
            del self._kept[0]

    def recall(self, ids: list[int], pictures: Sequence[Picture]) -> tuple[DynamicCache | None, int]:
        """The longest beginning of `ids` that was read before, as a cache, and its length; at least one token is left."""
        keys = [picture.key for picture in pictures]
        lengths = [_common(past, ids, keys) for past in self._kept]
        length = min(max(lengths, default=0), len(ids) - 1)
        if length <= 0:
            return None, 0
        past = self._kept.pop(lengths.index(max(lengths)))
        self._kept.append(past)
        cache = DynamicCache()
        for index, (k, v) in enumerate(past.layers):
            cache.update(k[None, :, :length], v[None, :, :length], index)
        return cache, length


def _common(past: _Past, ids: list[int], pictures: list[bytes]) -> int:
    """How many tokens two conversations begin with in common; 0 unless all images of the past one are the same."""
    if pictures[: len(past.pictures)] != past.pictures:
        return 0
    if ids[: len(past.ids)] == past.ids:
        return len(past.ids)
    return next(index for index, (a, b) in enumerate(zip(past.ids, [*ids, -1], strict=False)) if a != b)


class FeatureCache:
    """What the vision tower makes of an image, kept for the later turns of a conversation, least recent out first.

    From any thread; while one computes, others that ask wait.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: OrderedDict[bytes, tuple[Tensor, list[Tensor]]] = OrderedDict()
        self._bytes = 0
        self._one_at_a_time = threading.Lock()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def of(self, pictures: list[Picture]) -> Any:
        """In the form of `get_image_features`: a tensor [merged patches, width] for each image, and so for each
        DeepStack level."""
        with self._one_at_a_time:
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


def _size(entry: tuple[Tensor, list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensor in (entry[0], *entry[1]))
