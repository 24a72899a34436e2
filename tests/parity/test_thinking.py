"""Models that think, with the chat templates of Qwen3.5 to 3.8: the agent, an SFT row and an RL rollout have the same tokens,
images and mask, and the first thought is still there in the last turn."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from cof_agent import protocol
from cof_agent.agent import Agent, load_policy
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.template import templated
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.geometry import Box
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Sample
from rl.rollout import roll_out
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import TrajectoryRows
from sft.frame import frame_of
from tests import dialects
from tests.checkpoints import published_template
from tests.stock_turns import played, stock_text

TEMPLATES = ("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8")


def thinking(model: Path, template: str, folder: Path) -> Path:
    """The checkpoint with another template."""
    copied = Path(shutil.copytree(model, folder / template))
    (copied / "chat_template.jinja").write_text(published_template(template))
    return copied


def roomy(copied: Path) -> Path:
    """The checkpoint with a processor that takes images as large as published ones do."""
    path = copied / "preprocessor_config.json"
    sizes = {"shortest_edge": 56 * 56, "longest_edge": 16_000_000}
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": sizes}))
    return copied


def turn(thought: str, words: str) -> str:
    """A turn as these templates write it."""
    return f"<think>\n{thought}\n</think>\n\n{words}"


def script(config: AgentConfig) -> list[str]:
    """Nested zooms, one of them into an image that is not there, and the answer."""
    zooms = [
        (Box(100, 100, 300, 400), 0),
        (Box(20, 20, 900, 800), 1),
        (Box(10, 10, 90, 90), 9),
        (Box(0, 0, 500, 500), 2),
    ]
    written = (protocol.write_zoom("", box, image, config.spoken).split("</think>")[-1].strip() for box, image in zooms)
    calls = [turn(f"look {number}", words) for number, words in enumerate(written)]
    return [*calls, turn("seen", protocol.write_answer("", "red", config.spoken).split("</think>")[-1].strip())]


@pytest.mark.parametrize("template", TEMPLATES)
def test_agent_sft_and_rl_are_one(
    template: str, tmp_path: Path, checkpoint: Callable[[str], Path], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = thinking(checkpoint("qwen3_5"), template, tmp_path)
    # Last the dialect that needs large crops.
    for dialect in ("ours", "qwen3.5", "qwen3-zoom") if template == "qwen3_5_think" else ("ours",):
        if dialect == "qwen3-zoom":
            roomy(model)
        sample = Sample("one", str(picture), "What is there?", choices=("red", "blue"))
        config = AgentConfig(str(model), dialect=dialects.saved(dialect, tmp_path), max_tokens=400)
        policy: Any = load_policy(config)
        assert policy.opened == "<think>\n"
        said, processor = iter(script(config)), policy._processor

        async def complete(prompt: Prompt, said: Any = said, processor: Any = processor) -> Generated:
            ids = processor.tokenizer.encode(next(said).removeprefix("<think>\n"), add_special_tokens=False)
            return Generated([*ids, processor.tokenizer.convert_tokens_to_ids("<|im_end|>")], True)

        monkeypatch.setattr(policy, "complete", complete)
        rolled = roll_out([Episode(sample)], policy, config, ZoomEnvironment(), budget=100_000, seeds=[0])
        (rollout,) = asyncio.run(rolled)
        scripted = ScriptedPolicy(script(config), coordinates=policy.coordinates, limits=policy.limits)
        agent = Agent(config, policy=scripted).ask(picture, sample.question, choices=sample.choices)
        assert (agent.answer, agent.zooms) == ("red", 3)
        assert [(t.text, t.observations) for t in agent.turns] == [
            (t.text, t.observations) for t in rollout.trajectory.turns
        ]

        frame = frame_of(AutoConfig.from_pretrained(model), processor)
        row = TrajectoryRows([rollout.trajectory], frame).row(0)
        batch = AssistantCollator(processor, frame.family.markers)([row])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert [image.tobytes() for image in row["images"]] == [image.tobytes() for image in rollout.images]
        assert ids == [*rollout.prompt, *rollout.completion, ids[-1]]
        end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        trained = [label != IGNORED and before != end for label, before in zip(labels, [0, *ids], strict=False)]
        assert trained[:-1] == [bool(kept) for kept in [0] * len(rollout.prompt) + rollout.mask]
        assert all(f"look {number}\n</think>" in processor.decode(ids) for number in range(4))


@pytest.mark.slow
def test_four_turns_are_those_of_stock_generate(
    tmp_path: Path, checkpoint: Callable[[str], Path], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the agent is told in each turn, and what it says to it, with what it read before and without."""
    model = thinking(checkpoint("qwen3_5"), "qwen3_5_think", tmp_path)
    config = AgentConfig(str(model), max_tokens=12, dialect="native")
    policy: Any = load_policy(config)
    stock: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    trajectory, asked = played(policy, config, script(config), picture, monkeypatch)
    assert trajectory.answer == "red" and len(asked) == 5
    for messages, images, text in asked:
        assert text == stock_text(stock, policy, messages, images, 12)


def test_what_a_person_asks_later_is_no_result_of_a_tool(checkpoint: Callable[[str], Path]) -> None:
    policy: Any = load_policy(AgentConfig(str(checkpoint("qwen3_5"))))

    def said(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    talk = [said("user", "Red?"), said("assistant", "Yes."), said("user", "Blue?"), said("assistant", "No.")]
    assert "tool_response" not in templated(policy._processor, talk)
    talk[1] = said("assistant", "<think>Hm.</think>\nYes.")
    text = templated(policy._processor, talk)
    assert "<tool_response>\nBlue?\n</tool_response>" in text and "<think>\nHm.\n</think>\n\nYes.<|im_end|>" in text
