"""Every shipped GPU configuration of SFT and RL goes through two steps on a CPU, with a model of real layer names and shapes but
small depth and random weights; the adapter is saved, merged, and the checkpoint loaded by stock transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cof_agent.cli import main as cof
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.scenes import oracle
from cof_agent.trajectory import Trajectory, read_jsonl, to_json
from tests import processes
from tests.checkpoints import write_shallow
from tests.scenes.shared import Scenes

CONFIGS = {
    "qwen2.5-vl-7b-lora": "qwen2.5-vl-7b",
    "qwen2.5-vl-3b-lora-1gpu": "qwen2.5-vl-3b",
    "qwen3-vl-8b-lora": "qwen3-vl-8b",
}
RL_CONFIGS = ("qwen2.5-vl-7b-8gpu", "qwen2.5-vl-7b-2node-server", "qwen2.5-vl-3b-lora-1gpu")


@pytest.fixture(scope="module")
def folder(drawn: Scenes) -> Path:
    """Trajectories as a teacher of the Qwen2.5 family leaves them."""
    path = drawn(8, split="train", seed=5)
    environment = ZoomEnvironment(ZoomSettings(CoordinateSystem.ABSOLUTE, PixelLimits(28, 3136, 448 * 448, 168 * 168)))
    made = [oracle.play(sample, environment.reset(sample), environment) for sample in read_samples(path)]
    (path / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in made))
    return path


def trained(config: str, overrides: dict[str, Any]) -> None:
    """Two steps by a configuration (`sft/configs/NAME`, say) in one process, on a CPU."""
    fixed = {
        "use_cpu": "true",
        "max_steps": 2,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 0,
        "save_steps": 2,
        "logging_steps": 1,
        "threads": 2,
    }
    options = [text for key, value in (fixed | overrides).items() for text in (f"--{key}", str(value))]
    module, log = f"{config.partition('/')[0]}.train", Path(overrides["output_dir"])
    processes.train(module, ["--config", f"{config}.yaml", *options], 1, log)


def changed(base: Path, result: Path) -> set[str]:
    """Names of the parameters that are not those of `base`, both as stock transformers loads them."""
    from transformers import AutoModelForImageTextToText

    stock, before = (AutoModelForImageTextToText.from_pretrained(path) for path in (result, base))
    pairs = zip(stock.named_parameters(), before.named_parameters(), strict=True)
    return {name for (name, new), (_, old) in pairs if (new != old).any()}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_a_gpu_configuration_trains_saves_and_merges(folder: Path, tmp_path: Path, config: str) -> None:
    base, adapter, merged = tmp_path / "base", tmp_path / "adapter", tmp_path / "merged"
    write_shallow(CONFIGS[config], base)
    given = {"model_name_or_path": base, "data": folder, "output_dir": adapter, "per_device_train_batch_size": 1}
    trained(f"sft/configs/{config}", given)
    assert (adapter / "checkpoint-2" / "trainer_state.json").exists()
    assert cof(["merge", str(adapter), "-o", str(merged)]) == 0
    names = changed(base, merged)
    assert any("q_proj" in name for name in names)
    assert any("down_proj" in name and "language_model" in name for name in names)
    assert not any("visual.blocks" in name for name in names)
    assert any("merger" in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("config", RL_CONFIGS)
def test_a_gpu_configuration_of_rl_plays_trains_and_saves(folder: Path, tmp_path: Path, config: str) -> None:
    base, output, merged = tmp_path / "base", tmp_path / "output", tmp_path / "merged"
    write_shallow(
        "qwen2.5-vl-3b", base
    )  # for all of them: of the 7B's layers a single one takes minutes to train in full
    small = {
        "model_name_or_path": base,
        "data": folder,
        "output_dir": output,
        "use_vllm": "false",
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "overview_pixels": 56 * 56,
        "zoom_pixels": 56 * 56,
        "max_tokens": 8,
        "max_completion_length": 128,
        # Random weights earn no reward, so that without this there would be nothing to learn.
        "entropy_coef": 1.0,
        "learning_rate": 1e-3,
        "save_only_model": "true",
    }
    trained(f"rl/configs/{config}", small)
    played = list(read_jsonl(output / "trajectories.jsonl", Trajectory))
    assert [one.step for one in played] == [0, 0, 1, 1]
    log = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    adapted = (output / "adapter_config.json").exists()
    assert adapted == ("lora" in config)
    if adapted:
        assert cof(["merge", str(output), "-o", str(merged)]) == 0
    names = changed(base, merged if adapted else output)
    assert any("q_proj" in name and "language_model" in name for name in names)
    assert not any("visual.blocks" in name for name in names)
    assert any("merger" in name for name in names) == (not adapted)
