"""verl's own workers, load balancer, reward loop, data set and queue, around our agent loop and a scripted server: ids, masks,
images and rewards are those of RL with TRL, made by the other environment's transformers where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.nano import WEIGHTS
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import Trajectory, from_json, read_jsonl, to_json

ROOT = Path(__file__).parents[2]
PLAYS = 2


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, count=6, seed=3, size=Size(1600, 900), split="test", processes=1)
    lines = (folder / "samples.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:5]), "utf-8")
    return folder


@pytest.fixture(scope="module")
def expected(scenes: Path) -> dict[str, Any]:
    """The rollouts of RL with TRL, in the environment with TRL's transformers where it is installed beside this one."""
    theirs = ROOT / ".venv" / "bin" / "python"
    python = str(theirs) if theirs.exists() else sys.executable
    command = [python, "-m", "tests.verl.conversations", str(scenes)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert {one["stop"] for one in found.values()} >= {"answered", "malformed", "truncated"}
    return found


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That of 7B with nano, and little of everything."""
    from rl.verl.rows import main as write_rows
    from rl.verl.train import configured
    from tests.verl.conversations import AGENT, BUDGET, REWARDS, WEIGHTS_OF_REWARDS

    folder = tmp_path_factory.mktemp("verl")
    write_rows(["--data", str(scenes), "-o", str(folder / "rows.parquet")])
    agent = json.dumps([{"name": "cof", "_target_": "rl.verl.agent_loop.ZoomAgentLoop", "agent": AGENT}])
    (folder / "agent.yaml").write_text(agent)
    return configured(
        "qwen2.5-vl-7b",
        [
            f"data.train_files={folder / 'rows.parquet'}",
            f"actor_rollout_ref.model.path={WEIGHTS}",
            f"actor_rollout_ref.rollout.n={PLAYS}",
            f"data.max_response_length={BUDGET}",
            f"actor_rollout_ref.rollout.agent.agent_loop_config_path={folder / 'agent.yaml'}",
            "actor_rollout_ref.rollout.agent.num_workers=2",
            "reward.num_workers=1",
            f"reward.custom_reward_function.reward_kwargs.rewards={list(REWARDS)}",
            f"reward.custom_reward_function.reward_kwargs.reward_weights={list(WEIGHTS_OF_REWARDS)}",
            f"reward.custom_reward_function.reward_kwargs.record={folder / 'record'}",
            "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        ],
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    # Behind the site-packages, where verl's wheel has a package `tests` of its own, ours would not be found.
    ray.init(
        num_cpus=8, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}}
    )
    yield ray
    ray.shutdown()


def client_of(cluster: Any, config: Any, scenes: Path) -> Any:
    """verl's client, with its load balancer before two scripted servers."""
    from verl.workers.rollout.llm_server import LLMServerClient
    from verl.workers.rollout.router import GlobalRequestLoadBalancer

    from tests.verl.servers import Scripted

    servers = {name: cluster.remote(Scripted).remote(str(scenes)) for name in ("first", "second")}
    balancer = cluster.remote(GlobalRequestLoadBalancer).remote(servers)
    return LLMServerClient(config, balancer)


def batch_of(config: Any) -> Any:
    """A batch as verl's trainer takes it from its own data set."""
    from verl.trainer.ppo.v1.trainer_base import tu
    from verl.utils import hf_processor, hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    path = config.actor_rollout_ref.model.path
    rows = RLHFDataset(config.data.train_files, hf_tokenizer(path), config.data, hf_processor(path))
    collated = collate_fn([rows[number] for number in range(len(rows))])
    collated["uid"] = __import__("numpy").array([f"u{number}" for number in range(len(rows))], dtype=object)
    batch = tu.get_tensordict(collated)
    tu.assign_non_tensor_data(batch, "global_steps", 1)
    return batch


def test_a_batch_of_verl_is_that_of_roll_out(
    cluster: Any, config: Any, scenes: Path, expected: dict[str, Any], patches: dict[str, Any]
) -> None:
    import transfer_queue as queue
    from verl.experimental.reward_loop import RewardLoopManager
    from verl.experimental.reward_loop.reward_loop import migrate_legacy_reward_impl
    from verl.trainer.ppo.v1 import AgentLoopManagerTQ

    config = migrate_legacy_reward_impl(config.copy())
    queue.init(config.transfer_queue)
    try:
        manager = AgentLoopManagerTQ.create(
            config=config,
            llm_client=client_of(cluster, config, scenes),
            reward_loop_worker_handles=RewardLoopManager(config).reward_loop_worker_handles,
        )
        manager.generate_sequences(batch_of(config))
        found = rollouts_in(queue, len(expected) * PLAYS)
    finally:
        queue.close()
    assert len(found) == len(expected) * PLAYS
    for one in found:
        check(one, expected, patches)
    folder = Path(config.reward.custom_reward_function.reward_kwargs.record)
    kept = [one for file in folder.glob("*.jsonl") for one in read_jsonl(file, Trajectory)]
    assert sorted(one.sample.id for one in kept) == sorted(PLAYS * list(expected))
    assert {(one.step, len(one.rewards or {})) for one in kept} == {(1, 3)}


def rollouts_in(queue: Any, wanted: int) -> list[dict[str, Any]]:
    """What the workers have put into verl's queue, once it is all there."""
    import torch

    deadline = time.monotonic() + 120
    while True:
        tags = queue.kv_list("train").get("train", {})
        failed = [name for name, tag in tags.items() if tag.get("status") == "failure"]
        assert not failed and time.monotonic() < deadline, failed
        if sum(tag.get("status") == "success" for tag in tags.values()) == wanted:
            break
        time.sleep(0.2)
    found = []
    for name in (name for name, tag in tags.items() if tag.get("status") == "success"):
        row = queue.kv_batch_get([name], "train")
        found.append({key: value[0] if isinstance(value, torch.Tensor) else value for key, value in row.items()})
    return found


def check(one: dict[str, Any], expected: dict[str, Any], patches: dict[str, Any]) -> None:
    """One row of verl's queue beside the rollout of the same sample."""
    import torch

    from tests.verl.conversations import LOGPROB, REWARDS

    extra = plain(one["extra_fields"])
    record = from_json(extra["trajectory"], Trajectory)
    wanted = expected[record.sample.id]
    assert one["prompts"].tolist() == wanted["prompt"]
    assert one["responses"].tolist() == wanted["completion"]
    assert one["response_mask"].tolist() == one["loss_mask"].tolist() == wanted["mask"]
    assert one["rollout_log_probs"].tolist() == [LOGPROB * written for written in wanted["mask"]]
    assert one["rm_scores"][-1].item() == pytest.approx(wanted["reward"]) and not one["rm_scores"][:-1].any()
    assert [to_json(replace(turn, seconds=0.0)) for turn in record.turns] == wanted["turns"]
    assert record.stop.value == wanted["stop"]
    seen = plain(one["multi_modal_inputs"])
    assert torch.equal(seen["pixel_values"], patches[record.sample.id]["pixel_values"])
    assert torch.equal(seen["image_grid_thw"], patches[record.sample.id]["image_grid_thw"])
    assert one["position_ids"].shape[-1] == len(wanted["prompt"]) + len(wanted["completion"])
    info = extra["reward_extra_info"]
    assert set(info) >= {"score", "acc", "zooms", "malformed", "truncated", *REWARDS}
    assert info["zooms"] == record.zooms and (extra["min_global_steps"], extra["max_global_steps"]) == (1, 1)


def plain(value: Any) -> Any:
    """A value of verl's queue without its wrapping."""
    while (hasattr(value, "data") and not hasattr(value, "shape")) or type(value).__name__.startswith("NonTensor"):
        value = value.data if hasattr(value, "data") else value[0]
    return value[0] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def patches(scenes: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """What the image processor makes of the expected images, which it must not resize."""
    from cof_agent.backends.local.processor import load_processor
    from tests.verl.conversations import facts, played

    processor: Any = load_processor(str(WEIGHTS))
    found = {}
    for one in played(read_samples(scenes)):
        name = one.trajectory.sample.id
        assert facts([], [], [], one.images)["images"] == expected[name]["images"]
        found[name] = processor.image_processor(images=one.images, do_resize=False, return_tensors="pt")
    return found


REFUSED = {
    "actor_rollout_ref.rollout.name=sglang": "set actor_rollout_ref.rollout.name to vllm",
    "actor_rollout_ref.model.custom_chat_template=x": "leave custom_chat_template out",
    "+data.mm_processor_kwargs.max_pixels=9": "leave data.mm_processor_kwargs out",
    "reward.custom_reward_function.reward_kwargs.rewards=[judge]": "verl scores each by itself",
    "reward.custom_reward_function.reward_kwargs.rewards=[acuracy]": "there is no reward acuracy",
    "reward.custom_reward_function.reward_kwargs.reward_weights=[1]": "reward_weights must be one for each",
    "data.train_files=nowhere.parquet": "there are no rows at nowhere.parquet",
    "actor_rollout_ref.model.path=nowhere": "cannot load the model nowhere",
    "data.nothing=1": "verl cannot read the configuration",
}


def test_what_cannot_be_is_found_before_ray_starts(config: Any, tmp_path: Path) -> None:
    from rl.verl.train import check as check_run
    from rl.verl.train import configured

    found = dict(
        train_files=config.data.train_files,
        agent=config.actor_rollout_ref.rollout.agent.agent_loop_config_path,
    )
    right = [
        f"data.train_files={found['train_files']}",
        f"data.val_files={found['train_files']}",
        f"actor_rollout_ref.model.path={WEIGHTS}",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={found['agent']}",
    ]
    check_run(configured("qwen2.5-vl-7b", right))
    for wrong, sentence in REFUSED.items():
        with pytest.raises(InputError, match=sentence):
            check_run(configured("qwen2.5-vl-7b", [*right, wrong]))
    for setting, sentence in {"temperature": "leave temperature out", "max_zoom": "did you mean max_zooms"}.items():
        (tmp_path / "agent.yaml").write_text(json.dumps([{"name": "cof", "agent": {setting: 1}}]))
        with pytest.raises(InputError, match=sentence):
            check_run(
                configured("qwen2.5-vl-7b", [*right[:3], f"{right[3].partition('=')[0]}={tmp_path / 'agent.yaml'}"])
            )


def test_the_shipped_agent_is_that_of_the_7b_with_trl() -> None:
    import yaml  # type: ignore[import-untyped]

    from rl.verl.agent_loop import agent_config

    (shipped,) = yaml.safe_load((ROOT / "rl" / "configs" / "verl" / "agent.yaml").read_text())
    theirs = yaml.safe_load((ROOT / "rl" / "configs" / "qwen2.5-vl-7b-8gpu.yaml").read_text())
    assert {name: theirs[name] for name in shipped["agent"]} == shipped["agent"]
    assert agent_config("nowhere", shipped["agent"]).zooms == 3
