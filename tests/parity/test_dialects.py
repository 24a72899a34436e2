"""A scripted conversation in each dialect: the agent, an SFT row and an RL rollout have the same tokens, images and mask."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl
from PIL import Image
from transformers import AutoConfig

from cof_agent import protocol
from cof_agent.agent import Agent, load_policy
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol.dialects import Dialect
from cof_agent.trajectory import Sample
from rl.rollout import roll_out
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import TrajectoryRows
from sft.frame import frame_of
from tests import dialects

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILY = {"qwen3-zoom": "qwen3_vl", "sensenova-mars": "qwen3_vl", "native": "qwen3_vl", "qwen3.5": "qwen3_vl"}


def roomy(model: Path, folder: Path, dialect: Dialect) -> Path:
    """The checkpoint with a processor that takes images as large as published ones do, and a template that knows tools where the
    dialect needs one."""
    copied = Path(shutil.copytree(model, folder / "model"))
    path = copied / "preprocessor_config.json"
    values = json.loads(path.read_text())
    values["size"] = {"shortest_edge": 56 * 56, "longest_edge": 16_000_000}
    path.write_text(json.dumps(values))
    if dialect.opening.tools == "native":
        shutil.copy(TEMPLATES / "qwen3_vl.jinja", copied / "chat_template.jinja")
    return copied


@pytest.mark.parametrize("name", dialects.NAMES)
def test_agent_sft_and_rl_are_one(
    name: str, tmp_path: Path, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = roomy(checkpoint(FAMILY.get(name, "qwen2_5_vl")), tmp_path, dialects.spoken(name))
    path = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((400, 300)).convert("RGB").save(path)
    sample = Sample("one", str(path), "What is there?", choices=("red", "blue"))
    config = AgentConfig(str(model), dialect=dialects.saved(name, tmp_path), max_tokens=400)
    policy: Any = load_policy(config)
    processor, spoken = policy._processor, config.spoken
    settings = config.settings(policy)
    overview = ZoomEnvironment(settings).reset(sample)
    script = [
        dialects.zoom(spoken, (100, 100, 200, 180), overview, settings.system),
        dialects.broken(spoken),
        dialects.zoom(spoken, (10, 20, 150, 100), overview, settings.system),
        protocol.write_answer("I see.", "red", spoken),
    ]
    said = iter(script)

    async def complete(prompt: Prompt) -> Generated:
        ids = processor.tokenizer.encode(next(said), add_special_tokens=False)
        return Generated([*ids, processor.tokenizer.convert_tokens_to_ids("<|im_end|>")], True)

    monkeypatch.setattr(policy, "complete", complete)
    (rollout,) = asyncio.run(roll_out([Episode(sample)], policy, config, ZoomEnvironment(), budget=100_000, seeds=[0]))
    scripted = ScriptedPolicy(script, coordinates=policy.coordinates, limits=policy.limits)
    agent = Agent(config, policy=scripted).ask(path, sample.question, choices=sample.choices)
    assert agent.answer == "red" and agent.dialect == name
    assert agent.zooms == (3 if spoken.crop.bad_box == "image" else 2)
    assert agent.views == rollout.trajectory.views
    assert [turn.observations for turn in agent.turns] == [turn.observations for turn in rollout.trajectory.turns]

    rows = TrajectoryRows([rollout.trajectory], frame_of(AutoConfig.from_pretrained(model), processor))
    row = rows.row(0)
    assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in rollout.images]
    batch = AssistantCollator(processor, policy.family.markers)([row])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    ours = rollout.prompt + rollout.completion
    assert ids == [*ours, ids[-1]]  # the template ends with a line break
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    # An SFT row also trains the line break behind a turn, which no model has to write.
    trained = [label != IGNORED and before != end for label, before in zip(labels, [0, *ids], strict=False)]
    assert trained[: len(ours)] == [bool(kept) for kept in [0] * len(rollout.prompt) + rollout.mask]
