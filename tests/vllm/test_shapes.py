"""RL by the shipped configurations with vLLM itself, on two layers of published shapes with LoRA: in float32 both sides give the
same probabilities after each update; in bfloat16 they differ by rounding, which does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import write_shallow

FLOAT32 = {"bf16": "false", "dtype": "float32"}
RUN: dict[str, Any] = {
    "use_cpu": "true",
    "rewards": "tests.vllm.uneven:words",
    "reward_weights": 1,
    "use_peft": "true",
    "lora_r": 8,
    "lora_dropout": 0.0,
    "freeze_projector": "true",
    "deepspeed": "",
    "beta": 0.0,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "overview_pixels": 112 * 112,
    "zoom_pixels": 112 * 112,
    "max_tokens": 24,
    "max_completion_length": 64,
    "save_only_model": "true",
    "logging_steps": 1,
    "learning_rate": 1e-3,  # so large that weights of an earlier step would be seen
    "vllm_max_model_length": 1024,
    "vllm_enable_sleep_mode": "false",  # which a CPU does not know
    "gradient_checkpointing": "false",
    "threads": 1,
}
SMALL = "qwen2.5-vl-3b-lora-1gpu"


def logged(
    config: str, model: Path, scenes: Path, output: Path, steps: int, changes: dict[str, Any]
) -> list[dict[str, float]]:
    """What a run by this configuration logs of each step."""
    run = RUN | {"model_name_or_path": model, "data": scenes, "output_dir": output} | changes
    run |= {"max_steps": steps, "save_steps": steps}
    options = [word for key, value in run.items() for word in (f"--{key}", str(value))]
    command = ["-m", "tests.vllm.train", "--config", f"rl/configs/{config}.yaml", *options]
    done = subprocess.run(
        ["nice", "-n", "5", sys.executable, *command, "--vllm_options", "enforce-eager", "max-num-seqs=4"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    state = json.loads((output / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


@pytest.mark.parametrize(
    ("config", "shape", "count", "exact"),
    [
        (SMALL, "qwen2.5-vl-3b", 2, True),
        (SMALL, "qwen2.5-vl-3b", 3, False),
        (SMALL, "qwen3-vl-2b", 2, True),
        pytest.param("qwen2.5-vl-7b-8gpu", "qwen2.5-vl-7b", 2, True, marks=pytest.mark.slow),
    ],
    ids=["3b-float32", "3b-bfloat16", "qwen3-float32", "7b-float32"],
)
def test_sampler_and_trainer_agree(
    config: str, shape: str, count: int, exact: bool, scenes: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    write_shallow(shape, model, layers=2)
    steps = logged(config, model, scenes, tmp_path / "run", count, FLOAT32 if exact else {})
    assert len(steps) == count
    assert all(step["grad_norm"] > 0 for step in steps)  # so that there were new weights to send
    for step in steps:
        if exact:
            assert step["sampling/sampling_logp_difference/max"] < 1e-3
            assert step["sampling/ratio/conversation"] == pytest.approx(1, abs=1e-3)
        else:  # 1.00 to a token from the first step on, while whole conversations are off by several percent
            assert step["sampling/ratio/token"] == pytest.approx(1, abs=0.01)
            assert 1e-4 < step["sampling/sampling_logp_difference/mean"] < 0.03
