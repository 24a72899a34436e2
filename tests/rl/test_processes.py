"""RL on several processes: groups are divided between them, what a frozen tower made is shared, and losses are those of one
process that shares nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cof_agent import scoring
from cof_agent.trajectory import StopReason, Trajectory, read_jsonl
from rl.rewards import by_name
from tests import processes
from tests.rl.small import RUN, words
from tests.scenes.shared import Scenes

STEPS = 3
CHANGES: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "max_completion_length": 100,
    "max_steps": STEPS,
    "save_steps": STEPS,
    "logging_steps": 1,
    "learning_rate": 1e-5,
    "beta": 0.04,
    "rewards": ["accuracy", "format", "zoom_cost_by_success"],
    "reward_weights": [1, 0.2, 0.1],
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
def test_losses_are_those_of_one_process_that_shares_nothing(drawn: Scenes, tmp_path: Path) -> None:
    """Hot sampling: turns that are malformed, conversations that end early or run out of their budget."""
    drawn(8, into=tmp_path / "scenes")
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
        check_groups(played)
    for name in WAYS:
        for ours, stock in zip(losses[name], losses["stock"], strict=True):
            assert ours == pytest.approx(stock, abs=1e-3), name
    assert computed["stock"] == 0
    for name in ("shared", "ddp", "zero2", "zero3"):
        assert 0 < computed[name] < shown[name], name  # in two passes over each conversation
    assert computed["shared"] < computed["scarce"] < 2 * shown["scarce"]
    assert len({len(one.turns) for one in played}) > 1
    assert any(not scoring.well_formed(one) for one in played)
    assert any(one.stop is StopReason.TRUNCATED for one in played)


def check_groups(played: list[Trajectory]) -> None:
    """Rewards and advantages of each group, whichever process played it."""
    assert len(played) == STEPS * RUN["num_generations"] * CHANGES["gradient_accumulation_steps"]
    for one in played:
        assert one.rewards is not None
        assert one.rewards["accuracy"] == scoring.accuracy(one) and one.rewards["format"] == scoring.well_formed(one)
    for start in range(0, len(played), RUN["num_generations"]):
        group = played[start : start + RUN["num_generations"]]
        assert len({(one.sample.id, one.step, one.group) for one in group}) == 1
        assert sum(one.advantage or 0.0 for one in group) == pytest.approx(0, abs=1e-4)
        alone = by_name("zoom_cost_by_success", len(group))(trajectory=group)  # as a process that has the whole group
        assert [(one.rewards or {})["zoom_cost_by_success"] for one in group] == pytest.approx(alone)
