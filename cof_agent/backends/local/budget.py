"""How much the local engine keeps of what it has read: as much as can be asked for again, in a share of the free memory.

What is kept saves time and changes no text. It gives way to whatever has to be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.backends.local.free_memory import FreeMemory


@dataclass(frozen=True, slots=True)
class Limit:
    """For entries of one kind. share: of the memory that would be free without them. enough: entries for each conversation that
    is generated for at once; more of them are kept up to `little` bytes."""

    share: float
    enough: int
    little: int


PAST = Limit(share=1 / 2, enough=4, little=512 * 2**20)
"""Conversations: while one is answered, three may wait for their next turn."""

FEATURES = Limit(share=1 / 8, enough=32, little=256 * 2**20)
"""Images: an overview and seven crops of each of these conversations."""


@dataclass(frozen=True, slots=True)
class Budget:
    """free: bytes that could be allocated now on the device of the model. capacity: conversations that are generated for at
    once."""

    free: Callable[[], int]
    capacity: int

    def surplus(self, sizes: Sequence[int], limit: Limit) -> int:
        """How many of the oldest entries have to go. sizes: bytes of all, the oldest first; the newest always stays."""
        held = sum(sizes)
        allowed = limit.share * (self.free() + held)
        for gone, size in enumerate(sizes[:-1]):
            needed = len(sizes) - gone <= limit.enough * self.capacity
            if held <= allowed and (needed or held <= limit.little):
                return gone
            held -= size
        return max(0, len(sizes) - 1)


def budget_of(model: Any, capacity: int) -> Budget:
    """By what is free on the device of a model."""
    return Budget(FreeMemory(model), capacity)
