"""How many bytes could be allocated on a device now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

UNKNOWN = 2**30
"""What is taken for free where the system does not say."""

_SHARED = ("cpu", "mps")
"""Devices whose memory is the machine's."""


def free_memory(device: torch.device) -> int:
    """Free bytes of a device. On a GPU with what torch holds there and does not use; on a CPU what the machine has left, or
    the container or batch job, if that is less."""
    if device.type in _SHARED:
        return machine_memory()
    free, _ = torch.accelerator.get_memory_info(device)
    return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)


def machine_memory(root: Path = Path("/")) -> int:
    """Free bytes of this machine, as Linux tells them below `root`."""
    try:
        told = (root / "proc/meminfo").read_text()
    except OSError:
        return UNKNOWN
    available = 1024 * int(told.partition("MemAvailable:")[2].split()[0])
    return max(0, min([available, *_left_by_limits(root)]))


def _left_by_limits(root: Path) -> Iterator[int]:
    """What the limits of this process's control groups, and of those above them, leave."""
    mount, groups = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        number, kinds, path = line.split(":", 2)
        if number == "0":
            yield from _left(mount, path, "memory.max", "memory.current", "inactive_file ")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
            yield from _left(mount / "memory", path, *names)


def _left(mount: Path, path: str, limit: str, used: str, cache: str) -> Iterator[int]:
    """Of a group and those above it: the limit without what is used; files that are only cached would give way."""
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        try:
            most = (folder / limit).read_text().strip()
            if most.isdigit():
                cached = (folder / "memory.stat").read_text().partition(cache)[2].split()[0]
                yield int(most) - int((folder / used).read_text()) + int(cached)
        except (OSError, IndexError):
            pass
        if folder == mount:
            return
