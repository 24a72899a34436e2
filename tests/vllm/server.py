"""A vLLM server on loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LONGEST_START = 240.0  # seconds
VLLM = [sys.executable, "-m", "vllm.entrypoints.cli.main"]


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """Runs the command, which serves at `port`; gives the address once it answers, and stops it at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            ["nice", "-n", "5", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + LONGEST_START
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def metrics(url: str, *names: str) -> dict[str, float]:
    """Counters of the server by name, as vLLM counts them for Prometheus."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return {
        name: sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))
        for name in names
    }
