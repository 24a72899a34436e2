"""Runs a training in several processes that know of each other, as a launcher would, but forked from one that has imported
everything: imports are most of the time of a short run. The real launchers have tests of their own (`test_merge.py`)."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ports import free_port

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
PRELOADED = ["sft.train", "rl.train", "deepspeed", "datasets"]
LONGEST = 600.0  # seconds


def train(module: str, arguments: Sequence[str], processes: int, log: Path) -> None:
    """`module.main(arguments)` in so many processes; one that fails shows the end of its log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    os.environ.update(ENVIRONMENT)  # before the server starts, which imports with it
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for rank in range(processes):
        known = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        file = log.with_suffix(f".{rank}.log")
        started.append((context.Process(target=_run, args=(module, arguments, known, file)), file))
        started[-1][0].start()
    for process, file in started:
        process.join(LONGEST)
        alive = process.exitcode is None
        process.kill()
        assert process.exitcode == 0 and not alive, file.read_text()[-3000:]


def _run(module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [module, *arguments]
    importlib.import_module(module).main(arguments)
