"""What the layers of a language model keep of conversations: of one, and of all that are running.

A layer of full attention keeps the keys and values of every token. A layer of linear attention keeps a state of one size,
into which each token is written: what was before a token cannot be had back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer


class Attention(NamedTuple):
    """Of a layer of full attention, each [heads, tokens, size]."""

    keys: Tensor
    values: Tensor

    def first(self, length: int) -> Attention:
        """Of the first `length` tokens."""
        return Attention(self.keys[:, :length], self.values[:, :length])


class Recurrent(NamedTuple):
    """Of a layer of linear attention: the last inputs of its convolution [channels, kernel], and its state
    [heads, key size, value size]."""

    inputs: Tensor
    state: Tensor


Layer = Attention | Recurrent
Layers = list[Layer]
"""What one conversation has in each layer. In the pool each tensor has the slots as its first dimension."""


def is_known(config: Any) -> bool:
    """Whether the layers of a model of this configuration keep nothing else."""
    kinds = DynamicCache(config=config.get_text_config()).layers
    return all(
        type(layer) is DynamicLayer or (type(layer) is LinearAttentionLayer and layer.number_of_states == 1)
        for layer in kinds
    )


def nbytes(layers: Sequence[Layer]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for layer in layers for tensor in layer)


def states_of(layers: Sequence[Layer]) -> list[Recurrent]:
    """What cannot be cut: the states of linear attention."""
    return [layer for layer in layers if isinstance(layer, Recurrent)]


def cut(layers: Sequence[Layer], length: int, states: Sequence[Recurrent]) -> Layers:
    """What a conversation had after its first `length` tokens, when `states` were those of its linear attention."""
    earlier = iter(states)
    return [layer.first(length) if isinstance(layer, Attention) else next(earlier) for layer in layers]


def layers_of(cache: DynamicCache) -> Layers:
    """What a cache of one conversation holds."""
    return [
        Recurrent(layer.conv_states[0][0], layer.recurrent_states[0][0])
        if isinstance(layer, LinearAttentionLayer)
        else Attention(layer.keys[0], layer.values[0])  # type: ignore[union-attr, index]
        for layer in cache.layers
    ]


def cache_of(layers: Sequence[Layer], config: Any) -> DynamicCache:
    """A cache of one conversation that holds copies of `layers`. config: of the language model."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(layers):
        if isinstance(layer, Attention):
            cache.update(layer.keys[None], layer.values[None], index)
        else:
            cache.update_conv_state(layer.inputs[None], index)
            cache.update_recurrent_state(layer.state[None], index)
    return cache


_SPARE = (128, 1024)
"""Columns for new tokens at each resize of a pool, at least and at most."""


def columns_for(tokens: int) -> int:
    """The columns of a pool whose longest row has so many tokens when it is resized."""
    least, most = _SPARE
    return tokens + min(max(least, tokens // 2), most)


def slots_for(rows: int) -> int:
    """The slots of a pool for so many rows: the next power of two."""
    return 1 << (rows - 1).bit_length()


class Pool:
    """What all rows have in each layer. Of attention [slots, heads, columns, size]; every row ends before column `_end`.

    New columns are written in place: growing by concatenation would copy everything at every token. It stands in
    for a transformers `Cache` in the forward pass of a single token. make_room: called with the bytes that a resize takes.
    One that fails leaves a pool that is of no use.
    """

    def __init__(self, make_room: Callable[[int], None]) -> None:
        self._make_room = make_room
        self._layers: Layers = []
        self._rows = self._slots = self._columns = self._end = self._first = 0

    def insert(self, layers: Layers, length: int, longest: int) -> None:
        """Adds a row of `length` tokens behind the others, the longest of which has `longest`; takes a copy of `layers`."""
        if self._rows == 0 and length < self._columns:
            self._end = length
        if length > self._end or self._end >= self._columns or self._rows == self._slots:
            self._layers = self._layers or [type(layer)(*(part[None][:0] for part in layer)) for layer in layers]
            self._resize(longest, max(longest, length))
        for kept, new in zip(self._layers, layers, strict=True):
            for slots, part in zip(kept, new, strict=True):
                if isinstance(kept, Attention):
                    slots[self._rows, :, self._end - length : self._end] = part
                else:
                    slots[self._rows] = part
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

    def get_conv_state(self, layer: int, **_: Any) -> Tensor:
        """What linear attention calls: the last inputs of its convolution, which it changes in place."""
        return self._layers[layer][0][: self._rows]

    def get_recurrent_state(self, layer: int, **_: Any) -> Tensor:
        """What linear attention calls: its states [rows, heads, key size, value size]."""
        return self._layers[layer][1][: self._rows]

    def update_recurrent_state(self, states: Tensor, layer: int, **_: Any) -> None:
        """What linear attention calls: takes in the states after a token."""
        self._layers[layer][1][: self._rows] = states

    def is_recording_past(self, _: int) -> bool:
        """What linear attention asks: whether it could be taken back by some tokens."""
        return False

    def get_seq_length(self, layer: int = 0) -> int:
        return self._end - 1 - self._first

    def remove(self, index: int) -> None:
        """Takes a row out; the last row takes its place."""
        self._rows -= 1
        if index < self._rows:
            for layer in self._layers:
                for slots in layer:
                    slots[index] = slots[self._rows]

    def row(self, index: int, length: int) -> Layers:
        """A copy of what a row has, of attention the last `length` columns."""
        span = slice(self._end - length, self._end)
        return [
            Attention(*(part[index, :, span].clone() for part in layer))
            if isinstance(layer, Attention)
            else Recurrent(*(part[index].clone() for part in layer))
            for layer in self._layers
        ]

    def _resize(self, keep: int, end: int) -> None:
        """Moves to tensors with room; the last `keep` columns of each row stay, and rows end at column `end`."""
        if self._rows == self._slots:
            self._slots = slots_for(self._rows + 1)
        self._columns = columns_for(end)
        self._make_room(self._growth())
        for index, layer in enumerate(self._layers):  # one at a time, so that no more than one is held twice
            self._layers[index] = type(layer)(*(self._moved(layer, part, keep, end) for part in layer))
        self._end = end

    def _growth(self) -> int:
        """Bytes that a resize takes at most: what is new, and one layer that is held twice."""
        parts = [(layer, part) for layer in self._layers for part in layer]
        new = sum(prod(self._shape(layer, part)) * part.element_size() for layer, part in parts)
        return new - nbytes(self._layers) + max(nbytes([layer]) for layer in self._layers)

    def _shape(self, layer: Layer, part: Tensor) -> tuple[int, ...]:
        """That of a part of a layer after a resize."""
        if isinstance(layer, Attention):
            return (self._slots, part.shape[1], self._columns, part.shape[3])
        return (self._slots, *part.shape[1:])

    def _moved(self, layer: Layer, old: Tensor, keep: int, end: int) -> Tensor:
        # Zeros, since a masked column is still multiplied, by 0: rubbish there could be NaN.
        new = old.new_zeros(self._shape(layer, old))
        if isinstance(layer, Recurrent):
            new[: self._rows] = old[: self._rows]
        elif self._rows and keep:
            new[: self._rows, :, end - keep : end] = old[: self._rows, :, self._end - keep : self._end]
        return new
