"""A vLLM server on loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_START = 240.0  # seconds
VLLM = [sys.executable, "-m", "vllm.entrypoints.cli.main"]


class Process:
    """A server, and the processes that it starts, which are killed together."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.url, self._log = f"http://127.0.0.1:{port}", log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                ["nice", "-n", "5", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + LONGEST_START
        while not _answers(f"{self.url}/health"):
            assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-4000:]
            time.sleep(0.5)

    def kill(self) -> None:
        """As the kernel would that is out of memory: at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.kill()


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """Runs the command, which serves at `port`; gives the address once it answers, and stops it at the end."""
    server = Process(command, port, log)
    try:
        server.wait()
        yield server.url
    finally:
        server.stop()


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
