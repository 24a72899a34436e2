"""Parts of a set of samples for runs that share nothing but a folder: job arrays, and the processes of one launcher.

Each shard appends to a file of its own, `shard-0003-of-0008.jsonl`, and leaves `shard-0003-of-0008.done` beside it when all
its samples are there. Every shard that ends sums up what all of them have so far. Results are written whole, by renaming.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Key, Trajectory, read_jsonl

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`-th of `count` parts, from 1: every `count`-th item."""

    number: int = 1
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        return items[self.number - 1 :: self.count]

    def path(self, output: Path) -> Path:
        """Its file in a folder; those of one set sort by number."""
        return output / f"shard-{self.number:04d}-of-{self.count:04d}.jsonl"

    def all(self) -> list[Shard]:
        """Every shard of its set, itself among them."""
        return [Shard(number, self.count) for number in range(1, self.count + 1)]


def check(output: Path, shard: Shard) -> None:
    """Refuses another number of shards than a folder has: results are made of those of one number.

    Raises:
        InputError: if it has parts of another number.
    """
    theirs = {path.name for path in output.glob("*.jsonl") if is_part(path)} - {
        one.path(output).name for one in shard.all()
    }
    if theirs:
        raise InputError(
            f"{output} holds {min(theirs)}, which is none of {shard.count} parts; give the same --shard, or use another folder."
        )


def is_part(path: Path) -> bool:
    """Whether a file is one that a shard appends to."""
    return re.fullmatch(r"shard-\d{4,5}-of-\d{4,5}\.jsonl", path.name) is not None


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


@contextmanager
def part(output: Path, shard: Shard) -> Iterator[Path]:
    """The file to which this shard appends. The shard counts as finished once the block has ended without an error."""
    path = shard.path(output)
    _done(path).unlink(missing_ok=True)
    yield path
    write_atomic(_done(path), "")


def sum_up(output: Path, shard: Shard, write: Callable[[dict[Key, Trajectory]], Result]) -> Result:
    """Has `write` make results of the trajectories of all shards so far, by key; returns what it returned last.

    Two shards may end at once, and the one that read less may write last. So a shard that was not the last one to finish looks
    again when it has written: if all have finished meanwhile, it sums up once more.

    Raises:
        InputError: if the file of a shard cannot be read.
    """
    while True:
        all_were_there = _finished(output, shard)
        result = write(found(output, shard))
        if all_were_there or not _finished(output, shard):
            return result


def _done(path: Path) -> Path:
    return path.with_suffix(".done")


def _finished(output: Path, shard: Shard) -> bool:
    return all(_done(one.path(output)).exists() for one in shard.all())


def found(output: Path, shard: Shard) -> dict[Key, Trajectory]:
    """The trajectories of all shards so far, by key; a later one of the same key counts.

    Raises:
        InputError: if the file of a shard cannot be read.
    """
    files = [path for one in shard.all() if (path := one.path(output)).exists()]
    return {trajectory.key: trajectory for path in files for trajectory in read_jsonl(path, Trajectory)}
