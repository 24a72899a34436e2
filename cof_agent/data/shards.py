"""Parts of a set of samples for runs that share nothing but a folder: job arrays, and the processes of one launcher."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cof_agent.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th of `count` parts, from 1: every `count`-th item."""

    number: int = 1
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.number - 1 :: self.count]

    @property
    def name(self) -> str:
        """For its files; those of one set sort by number."""
        return f"{self.number:04d}-of-{self.count:04d}"


def parse(text: str) -> Shard:
    """The shard of `I/N`.

    Raises:
        InputError: if there is none of that name.
    """
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard must be I/N with 1 <= I <= N, such as 3/8, not {text!r}.")
    return Shard(int(found[1]), int(found[2]))


def launched() -> Shard:
    """This process's part under `accelerate launch` or `torchrun`, which number their processes; else everything."""
    return Shard(int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1)))
