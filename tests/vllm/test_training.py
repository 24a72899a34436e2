"""RL of a few steps with vLLM as sampler: after each update both sides give the same log-probabilities."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cof_agent.trajectory import Trajectory, read_jsonl
from tests.ports import free_port
from tests.vllm.server import running

STEPS = 5
LORA = {"use_peft": "true", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
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
ENGINE = ["--vllm_options", "enforce-eager", "max-num-seqs=8"]


def words(run: dict[str, Any]) -> list[str]:
    return [*ENGINE, *(word for key, value in run.items() for word in (f"--{key}", str(value)))]


def train(run: dict[str, Any], log: Path) -> list[dict[str, float]]:
    """Trains in a process of its own; returns what the trainer logged of each step."""
    command = ["nice", "-n", "5", sys.executable, "-m", "tests.vllm.train", *words(run)]
    with log.open("w") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    state = Path(run["output_dir"]) / f"checkpoint-{STEPS}" / "trainer_state.json"
    logged: list[dict[str, float]] = json.loads(state.read_text())["log_history"]
    return [entry for entry in logged if "loss" in entry]


@pytest.fixture(scope="module")
def questions(scenes: Path) -> Path:
    """Two that nano zooms for. With the same images in each step anything kept from older weights would be seen."""
    lines = (scenes / "samples.jsonl").read_text().splitlines(keepends=True)
    path = scenes / "two.jsonl"
    path.write_text("".join(lines[2:4]))
    return path


@pytest.mark.parametrize(
    ("mode", "weights"),
    [
        ("colocate", {"freeze_vision": "true", "freeze_projector": "false"}),
        ("server", {"freeze_vision": "true", "freeze_projector": "false"}),
        ("colocate", LORA),
    ],
    ids=["colocate", "server", "lora"],
)
def test_sampler_and_trainer_agree_after_each_update(
    mode: str, weights: dict[str, Any], questions: Path, tmp_path: Path
) -> None:
    ports = {"vllm_server_port": free_port(), "vllm_group_port": free_port()}
    run = RUN | weights | ports | {"vllm_mode": mode, "data": questions, "output_dir": tmp_path / "run"}
    if mode == "server":
        serve = [sys.executable, "-m", "rl.serve", *words(run)]
        run |= {"vllm_server_base_url": f"http://127.0.0.1:{ports['vllm_server_port']}"}
        with running(serve, ports["vllm_server_port"], tmp_path / "server.txt"):
            steps = train(run, tmp_path / "log.txt")
    else:
        steps = train(run, tmp_path / "log.txt")
    for step in steps:
        assert step["sampling/sampling_logp_difference/max"] < 1e-3
        assert step["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3)
    assert len(steps) == STEPS
    assert any(step["grad_norm"] > 0 for step in steps[:-1])  # so that there were new weights to send
    played = read_jsonl(tmp_path / "run" / "trajectories.jsonl", Trajectory)
    assert max(one.zooms for one in played) > 0
