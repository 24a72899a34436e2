"""Memory of this process, from Linux's own books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback


def resident() -> int:
    """MiB in memory now."""
    return _mib("VmRSS:")


def peak() -> int:
    """MiB in memory at most so far; a process that was started anew begins with its own, not with its parent's."""
    return _mib("VmHWM:")


def _mib(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(name)[2].split()[0]) // 1024


class Resident(TrainerCallback):
    """Resident memory after each step, MiB. every: so many steps, it says so; 0 for never."""

    def __init__(self, every: int = 0) -> None:
        self.mib: list[int] = []
        self._every = every

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.mib.append(resident())
        if self._every and len(self.mib) % self._every == 0:
            print(f"memory after {len(self.mib):4} steps {self.mib[-1]:8} MiB", flush=True)
