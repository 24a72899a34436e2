"""A scripted conversation about two images: the agent, an SFT row and an RL rollout have the same tokens, images and mask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.processor import load_processor
from cof_agent.config import AgentConfig
from cof_agent.data.export import to_parquet, to_sharegpt
from cof_agent.data.source import Source
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.geometry import Box
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Zoom
from rl.rollout import roll_out
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import TrajectoryRows, read_rows
from sft.frame import frame_of, reframe
from tests.pairs import pair

NEAR, DEEP = Box(100, 100, 300, 250), Box(20, 20, 90, 80)
SCRIPT = [
    protocol.write_zoom("The second one.", NEAR, 1),
    protocol.write_zoom("Deeper.", DEEP, 2),
    protocol.write_zoom("There is no such image.", NEAR, 9),
    protocol.write_zoom("The first one.", NEAR),
    protocol.write_answer("I see.", "the first"),
]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_agent_sft_and_rl_are_one(
    family: str, tmp_path: Path, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = pair(tmp_path)
    policy: Any = load(str(checkpoint(family)))
    said = iter(SCRIPT)
    processor = policy._processor

    async def complete(prompt: Prompt) -> Generated:
        ids = processor.tokenizer.encode(next(said), add_special_tokens=False)
        return Generated([*ids, processor.tokenizer.convert_tokens_to_ids("<|im_end|>")], True)

    monkeypatch.setattr(policy, "complete", complete)
    config = AgentConfig(str(checkpoint(family)), max_tokens=400)
    (rollout,) = asyncio.run(roll_out([Episode(sample)], policy, config, ZoomEnvironment(), budget=100_000, seeds=[0]))
    scripted = ScriptedPolicy(SCRIPT, coordinates=policy.coordinates, limits=policy.limits)
    agent = Agent(config, policy=scripted).ask(list(sample.images), sample.question)
    assert [view.source for view in agent.views] == [0, 1, 1, 1, 0]
    assert agent.views == rollout.trajectory.views and agent.zooms == 3
    assert [turn.observations for turn in agent.turns] == [turn.observations for turn in rollout.trajectory.turns]

    rows = TrajectoryRows([rollout.trajectory], frame_of(AutoConfig.from_pretrained(checkpoint(family)), processor))
    row = rows.row(0)
    assert [size.area for size in rows.outline(0).sizes] == [image.width * image.height for image in row["images"]]
    assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in rollout.images]
    batch = AssistantCollator(processor, policy.family.markers)([row])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    ours = rollout.prompt + rollout.completion
    assert ids == [*ours, ids[-1]]  # the template ends with a line break
    trained = [label != IGNORED and token != ids[-1] for label, token in zip(labels, ids, strict=True)]
    assert trained[: len(ours)] == [bool(kept) for kept in [0] * len(rollout.prompt) + rollout.mask]


def test_a_conversation_teaches_another_family(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    sample = pair(tmp_path)
    turns = [SCRIPT[0], SCRIPT[1], SCRIPT[3], SCRIPT[4]]
    agent = Agent("openai:none", policy=ScriptedPolicy(turns))
    (played,) = agent.ask_many([sample], progress=False)
    folder = checkpoint("qwen3_vl")
    frame = frame_of(AutoConfig.from_pretrained(folder), load_processor(str(folder)))
    there = reframe(played, frame, ZoomEnvironment())
    assert [view.source for view in there.views] == [view.source for view in played.views] == [0, 1, 1, 1, 0]
    assert len(there.overviews) == 2 and all(frame.fits(view.shown_size) for view in there.views)
    for old, new in zip(played.views, there.views, strict=True):
        assert old.region.intersection(new.region) > 0.9 * max(old.region.area, new.region.area)
    assert [action.image for turn in there.turns for action in turn.actions if isinstance(action, Zoom)] == [1, 2, 0]


def test_exports_are_the_same_rows(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    pytest.importorskip("pyarrow")
    folder = checkpoint("qwen2_5_vl")
    processor: Any = load_processor(str(folder))
    frame = frame_of(AutoConfig.from_pretrained(folder), processor)
    agent = Agent("openai:none", policy=ScriptedPolicy(SCRIPT, limits=load(str(folder)).limits))
    played = agent.ask_many([pair(tmp_path)], output=tmp_path / "played.jsonl", progress=False)
    to_parquet(played, tmp_path / "train.parquet")
    to_sharegpt(played, tmp_path / "sharegpt")
    ours = read_rows(Source(str(tmp_path / "played.jsonl")), frame).row(0)
    for name in ("train.parquet", "sharegpt/sharegpt.json"):
        row = read_rows(Source(str(tmp_path / name)), frame, keep_images=tmp_path / "kept").row(0)
        said, meant = (processor.apply_chat_template(one["messages"], tokenize=False) for one in (row, ours))
        assert said == meant
        assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in ours["images"]]


def test_a_random_model_is_asked_about_two_images(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    found = Agent(str(checkpoint("qwen2_vl")), max_tokens=8).ask([tmp_path / "0.png", tmp_path / "1.png"], "Which?")
    assert found.failure == "image" and "cannot open the image" in (found.error or "")
    sample = pair(tmp_path)
    found = Agent(str(checkpoint("qwen2_vl")), max_tokens=8).ask(list(sample.images), "Which?")
    assert found.failure is None and len(found.overviews) == 2
    assert found.turns[0].tokens.prompt and found.turns[0].tokens.completion
