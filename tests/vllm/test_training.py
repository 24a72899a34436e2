"""RL of a few steps with vLLM as sampler: after each update both sides give the same log-probabilities."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.vllm.server import running
from tests.vllm.training import RUN, STEPS, assert_same_policy, played, train, words

LORA = {"use_peft": "true", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}


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
    assert_same_policy(steps)
    assert len(steps) == STEPS
    assert any(step["grad_norm"] > 0 for step in steps[:-1])  # so that there were new weights to send
    assert max(one.zooms for one in played(run)) > 0
