"""How many bytes could be allocated on a device now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

UNKNOWN = 2**30
"""What is taken for free where the system does not say."""

_SHARED = ("cpu", "mps")
"""Devices whose memory is the machine's."""

_NO_LIMIT = 2**60
"""The first version of control groups says so with a number as large as this, or larger."""


class FreeMemory:
    """Free bytes of the device of a model. On a GPU with what torch holds there and does not use; on a CPU what the machine has
    left, or the container or batch job, if that is less."""

    def __init__(self, model: Any) -> None:
        self._model, self._machine = model, Machine()

    def __call__(self) -> int:
        device = self._model.device
        if device.type in _SHARED:
            return self._machine.free()
        free, _ = torch.accelerator.get_memory_info(device)
        return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group with a limit of memory: the limit, the file with what is used, and the name of what is only cached."""

    most: int
    used: Path
    cache: str

    def left(self) -> int:
        """Bytes that the limit leaves; files that are only cached would give way."""
        cached = (self.used.parent / "memory.stat").read_text().partition(f"{self.cache} ")[2].split()[0]
        return self.most - int(self.used.read_text()) + int(cached)


class Machine:
    """This machine, as Linux describes it below `root`. The limits on this process are looked up once: each file takes time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = root / "proc/meminfo"
        self._groups = list(_groups(root))

    def free(self) -> int:
        """Bytes that could be allocated now."""
        try:
            available = 1024 * int(self._meminfo.read_text().partition("MemAvailable:")[2].split()[0])
            return max(0, min([available, *(group.left() for group in self._groups)]))
        except (OSError, IndexError, ValueError):
            return UNKNOWN


def _groups(root: Path) -> Iterator[_Group]:
    """The groups of this process, and those above them, that have a limit."""
    mount, own = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.exists() else ():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            yield from _limited(mount, path, "memory.max", "memory.current", "\ninactive_file")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limited(mount / "memory", path, *names)


def _limited(mount: Path, path: str, limit: str, used: str, cache: str) -> Iterator[_Group]:
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        said = (folder / limit).read_text().strip() if (folder / limit).exists() else ""
        if said.isdigit() and int(said) < _NO_LIMIT:
            yield _Group(int(said), folder / used, cache)
        if folder == mount:
            return
