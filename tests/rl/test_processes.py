"""The update on several processes: what a frozen tower made is shared, and losses are those of one process without sharing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Trajectory, read_jsonl
from tests import processes
from tests.rl.small import RUN, words

STEPS = 4
CHANGES: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "max_completion_length": 100,
    "max_steps": STEPS,
    "save_steps": STEPS,
    "logging_steps": 1,
    "learning_rate": 1e-5,
    "beta": 0.04,
}
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "stock": (1, {"vision_cache": 0}),
    "shared": (1, {}),
    "scarce": (1, {"vision_cache": 1e-4}),
    "ddp": (2, {}),
    "zero2": (2, {"deepspeed": "sft/configs/deepspeed/zero2.json"}),
    "zero3": (2, {"deepspeed": "sft/configs/deepspeed/zero3.json"}),
}


@pytest.mark.slow
def test_losses_are_those_of_one_process_that_shares_nothing(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", count=8, seed=3, size=Size(1600, 900), split="test")
    losses, computed, shown = {}, {}, {}
    for name, (number, changes) in WAYS.items():
        output = tmp_path / name
        given = RUN | CHANGES | {"per_device_train_batch_size": 4 // number, "data": tmp_path / "scenes"}
        processes.train("rl.train", words(given | changes | {"output_dir": output}), number, tmp_path / name)
        state = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
        log = [entry for entry in state["log_history"] if "loss" in entry]
        losses[name] = [(entry["loss"], entry["kl"]) for entry in log]
        computed[name] = sum(entry["vision/computed"] for entry in log)
        played = list(read_jsonl(output / "trajectories.jsonl", Trajectory))
        shown[name] = sum(len(one.views) for one in played)
    for name in WAYS:
        for ours, stock in zip(losses[name], losses["stock"], strict=True):
            assert ours == pytest.approx(stock, abs=1e-3), name
    assert computed["stock"] == 0
    for name in ("shared", "ddp", "zero2", "zero3"):
        assert 0 < computed[name] < shown[name], name  # in two passes over each conversation
    assert computed["shared"] < computed["scarce"] < 2 * shown["scarce"]
