"""Kills RL on vLLM servers at random moments: the trainer, one of two servers, both. What was killed is started again.

    .venv-vllm/bin/python -m tests.vllm.kills COUNT [SEED [AHEAD]]

The run goes on by itself when servers come back, and from its last checkpoint after its own end. In the end each step has been
played once, with the samples of an undisturbed run, and at each step vLLM had the trainer's weights.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from subprocess import Popen
from typing import Any

from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes
from tests.ports import free_port
from tests.vllm.conftest import SMALL
from tests.vllm.server import Process
from tests.vllm.training import RUN, played, told, training, words

KINDS = ("trainer", "server 1", "server 2", "both servers")
LONGEST = 400.0  # seconds until a step has ended after a kill
SETTINGS = {"save_steps": 1, "save_total_limit": 2, "max_steps": 100_000, "learning_rate": 5e-5, "vllm_mode": "server"}


class Disturbed:
    """A run with two servers. log: what the trainer printed, all its starts in one file."""

    def __init__(self, folder: Path, data: Path, ahead: int) -> None:
        ports = (free_port(), free_port())
        hosts = " ".join(f"127.0.0.1:{port}" for port in ports)
        self.run = RUN | SETTINGS | {"data": data, "output_dir": folder / "run", "ahead": ahead}
        self.run |= {"vllm_group_port": free_port(), "vllm_server_timeout": LONGEST}
        self.log = folder / "log.txt"
        self._serve = [[sys.executable, "-m", "rl.serve", *words(self.run | {"vllm_server_port": p})] for p in ports]
        self._logs = [folder / f"server-{port}.txt" for port in ports]
        self._ports = ports
        self.run |= {"vllm_server_hosts": hosts}
        self.servers = [self._server(number) for number in range(2)]
        for server in self.servers:
            server.wait()
        self.trainer: Popen[bytes] = training(self.run, self.log)

    def _server(self, number: int) -> Process:
        return Process(self._serve[number], self._ports[number], self._logs[number])

    def kill(self, kind: str, pause: float) -> None:
        """Kills, and starts again after so many seconds."""
        numbers = {"trainer": [], "server 1": [0], "server 2": [1], "both servers": [0, 1]}[kind]
        for number in numbers:
            self.servers[number].kill()
        if kind == "trainer":
            self.trainer.kill()
            self.trainer.wait()
        time.sleep(pause)
        for number in numbers:
            self.servers[number] = self._server(number)
        if kind == "trainer":
            self.trainer = training(self.run, self.log)

    def goes_on(self) -> bool:
        """Whether a step more ends in time."""
        done, deadline = len(told(self.log)), time.monotonic() + LONGEST
        while len(told(self.log)) == done and self.trainer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)
        return len(told(self.log)) > done

    def stop(self) -> None:
        self.trainer.kill()
        self.trainer.wait()
        for server in self.servers:
            server.kill()


def faults_of(run: dict[str, Any], log: Path, undisturbed: dict[str, Any]) -> list[str]:
    """What is wrong with what a run left."""
    found, wanted = played(run), played(undisturbed)
    steps = [one.step for one in found]
    faults = []
    if steps != sorted(steps, key=lambda step: step or 0) or set(Counter(steps).values()) != {8}:
        faults.append(f"steps were lost or played twice: {Counter(steps)}")
    ids, others = ([(one.step, one.sample.id) for one in many] for many in (found, wanted))
    if ids[: len(others)] != others[: len(ids)]:
        faults.append("other samples were played than without the kills")
    for number, step in enumerate(told(log)):
        limit = 1e-3 if step.get("ahead/staleness", 0) == 0 else 1.0
        if step["sampling/sampling_logp_difference/max"] > limit:
            faults.append(
                f"line {number}: vLLM had other weights ({step['sampling/sampling_logp_difference/max']:.4f})"
            )
    return faults


def killed(count: int, seed: int, ahead: int) -> list[str]:
    """Kills so many times; returns what went wrong."""
    random, faults = Random(seed), []
    with tempfile.TemporaryDirectory(prefix="cof-rl-kills-") as name:
        folder = Path(name)
        # An epoch is four steps, so that a run goes on in later ones, too.
        write_scenes(folder / "scenes", count=8, seed=3, size=Size(1920, 1080), split="test", processes=1)
        disturbed = Disturbed(folder, folder / "scenes", ahead)
        try:
            disturbed.goes_on()
            for number in range(count):
                kind = KINDS[number % len(KINDS)]
                time.sleep(random.uniform(0, 12))
                before, started = len(told(disturbed.log)), time.monotonic()
                disturbed.kill(kind, random.uniform(0, 5))
                if not disturbed.goes_on():
                    faults.append(f"kill {number}, {kind}: the run did not go on")
                    print(disturbed.log.read_text()[-3000:], file=sys.stderr)
                    break
                print(
                    f"kill {number}: {kind} after {before} steps, a step more in {time.monotonic() - started:.0f} s",
                    flush=True,
                )
            disturbed.goes_on()
        finally:
            disturbed.stop()
        steps = 1 + max(one.step or 0 for one in played(disturbed.run))
        undisturbed = disturbed.run | {"output_dir": folder / "undisturbed", "use_vllm": "false", "ahead": 0}
        undisturbed |= {"max_steps": min(steps, 12), "save_steps": 1000}
        del undisturbed["vllm_server_hosts"]
        assert training(undisturbed, folder / "undisturbed.txt").wait() == 0, (folder / "undisturbed.txt").read_text()[
            -3000:
        ]
        return faults + faults_of(disturbed.run, disturbed.log, undisturbed)


if __name__ == "__main__":
    os.environ |= SMALL
    count, *given = map(int, sys.argv[1:])
    seed, ahead = (*given, *(0, 0)[len(given) :])
    found = killed(count, seed, ahead)
    print(f"{count} kills, {len(found)} faults")
    print(*found, sep="\n")
    sys.exit(bool(found))
