"""RL of nano in a process of its own, with vLLM as sampler, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cof_agent.trajectory import Trajectory, read_jsonl

STEPS = 5
RUN: dict[str, Any] = {
    "model_name_or_path": "nano",
    "use_cpu": "true",
    "bf16": "false",
    "gradient_checkpointing": "false",
    "report_to": "none",
    "threads": 1,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 400,
    "max_tokens": 96,
    "overview_pixels": 123904,
    "learning_rate": 1e-3,  # so large that weights of an earlier step would be seen
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "max_steps": STEPS,
    "save_steps": STEPS,
    "use_vllm": "true",
    "vllm_max_model_length": 4096,
}
ENTRY = "entry of the log: "
"""What each entry of its log begins with where `tests.vllm.train` prints it."""
ENGINE = ["--vllm_options", "enforce-eager", "max-num-seqs=8"]


def words(run: dict[str, Any]) -> list[str]:
    return [*ENGINE, *(word for key, value in run.items() for word in (f"--{key}", *str(value).split()))]


def training(run: dict[str, Any], log: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    """Trains in a process of its own, or in so many that torchrun starts."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = ["nice", "-n", "5", sys.executable, *(launch if processes > 1 else []), "-m", "tests.vllm.train"]
    with log.open("a") as output:
        return subprocess.Popen(
            [*command, *words(run)], stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )


def logged(run: dict[str, Any]) -> list[dict[str, float]]:
    """What the trainer logged of each step."""
    state = Path(run["output_dir"]) / f"checkpoint-{run['max_steps']}" / "trainer_state.json"
    found: list[dict[str, float]] = json.loads(state.read_text())["log_history"]
    return [entry for entry in found if "loss" in entry]


def train(run: dict[str, Any], log: Path, processes: int = 1) -> list[dict[str, float]]:
    """Trains to the end."""
    assert training(run, log, processes).wait(300) == 0, log.read_text()[-4000:]
    return logged(run)


def assert_same_policy(steps: list[dict[str, float]]) -> None:
    """That the sampler's and the trainer's log-probabilities were the same at each step."""
    for step in steps:
        assert step["sampling/sampling_logp_difference/max"] < 1e-3
        assert step["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)


def told(log: Path) -> list[dict[str, float]]:
    """What a trainer has printed of its steps so far."""
    lines = [line.removeprefix(ENTRY) for line in log.read_text().splitlines(True) if line.startswith(ENTRY)]
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in found if "loss" in entry]


def until(reached: Callable[[], bool], log: Path, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.2)


def played(run: dict[str, Any]) -> list[Trajectory]:
    path = Path(run["output_dir"]) / "trajectories.jsonl"
    return list(read_jsonl(path, Trajectory)) if path.exists() else []
