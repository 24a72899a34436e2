"""What was read in earlier turns and conversations, so that only what is new has to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache

from cof_agent.backends.local.budget import PAST, Budget
from cof_agent.backends.local.layers import Layers, Recurrent, cache_of, cut, nbytes, states_of
from cof_agent.backends.local.memory import Picture


@dataclass(frozen=True, slots=True)
class _Past:
    """states: those of linear attention at the lengths at which they are known."""

    ids: list[int]
    pictures: list[bytes]
    layers: Layers
    states: dict[int, list[Recurrent]]
    nbytes: int

    def usable(self, common: int) -> int:
        """How much can be gone on from, where the first `common` tokens are wanted: with linear attention only what ends where
        its states are known."""
        if not states_of(self.layers):
            return common
        ends = (len(self.ids), *self.states)
        return max((end for end in ends if end <= common), default=0)

    def cut(self, length: int) -> Layers:
        return cut(self.layers, length, self.states.get(length, states_of(self.layers)))


class PastConversations:
    """What the layers kept of conversations that were answered, for their next turn: only what is new has to be read.

    Also what two conversations begin with in common is read once; with linear attention, which cannot be cut, only up to
    where one prompt, or the reply to it, ended. Least recent out first. config: of the language model. budget: how much of
    it is kept.
    """

    def __init__(self, config: Any, budget: Budget) -> None:
        self._config, self._budget = config, budget
        self._kept: list[_Past] = []

    def keep(
        self, ids: list[int], pictures: Sequence[Picture], layers: Layers, states: dict[int, list[Recurrent]]
    ) -> None:
        """Remembers what the layers keep of `ids`, and forgets a conversation that these continue. states: those of linear
        attention at lengths before the end."""
        keys = [picture.key for picture in pictures]
        self._kept = [past for past in self._kept if _common(past, ids, keys) < len(past.ids)]
        size = nbytes(layers) + sum(map(nbytes, states.values()))
        self._kept.append(_Past(ids, keys, layers, states, size))
        del self._kept[: self._budget.surplus([past.nbytes for past in self._kept], PAST)]

    def make_room(self, wanted: int) -> None:
        """Drops the oldest until `wanted` bytes are free, or nothing is left."""
        while self._kept and self._budget.free() < wanted:
            del self._kept[0]

    def recall(self, ids: list[int], pictures: Sequence[Picture]) -> tuple[DynamicCache | None, int]:
        """The longest beginning of `ids` that was read before, as a cache, and its length; at least one token is left."""
        keys = [picture.key for picture in pictures]
        lengths = [past.usable(min(_common(past, ids, keys), len(ids) - 1)) for past in self._kept]
        length = max(lengths, default=0)
        if length <= 0:
            return None, 0
        past = self._kept.pop(lengths.index(length))
        self._kept.append(past)
        return cache_of(past.cut(length), self._config), length


def _common(past: _Past, ids: list[int], pictures: list[bytes]) -> int:
    """How many tokens two conversations begin with in common; 0 unless all images of the past one are the same."""
    if pictures[: len(past.pictures)] != past.pictures:
        return 0
    if ids[: len(past.ids)] == past.ids:
        return len(past.ids)
    return next(index for index, (a, b) in enumerate(zip(past.ids, [*ids, -1], strict=False)) if a != b)
