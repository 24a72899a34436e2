"""Scripted conversations, and the rollouts that RL with TRL makes of them: `python -m tests.verl.conversations FOLDER`.

The script knows no token ids: a turn is found by what was asked and by how many turns the prompt holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cof_agent import protocol
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.reader import Reader
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.geometry import Box
from cof_agent.nano import WEIGHTS
from cof_agent.trajectory import Sample, to_json
from rl.rewards import by_name, total
from rl.rollout import Rollout, roll_out

BUDGET = 310
"""Most tokens of a completion; the last of the conversations runs out of it."""
AGENT: dict[str, Any] = {"max_zooms": 2, "max_tokens": 60, "overview_pixels": 100_352}
REWARDS, WEIGHTS_OF_REWARDS = ("accuracy", "format", "zoom_cost"), (1.0, 0.5, 0.1)
LOGPROB = -0.25
"""What the scripted server says of each token."""


def script(sample: Sample, number: int) -> list[str]:
    """The turns of one conversation."""
    there, closer = Box(40, 40, 100, 80), Box(20, 20, 60, 60)
    return [
        [protocol.write_zoom("There.", there), protocol.write_answer("I see.", sample.answers[0])],
        [
            protocol.write_zoom("There.", there),
            protocol.write_zoom("Closer.", closer, 1),
            protocol.write_zoom("Once more.", closer),  # beyond max_zooms: refused in a sentence
            protocol.write_answer("I see.", "no idea"),
        ],
        ["I would rather not say.", protocol.write_zoom("Well.", Box(9000, 9000, 9100, 9100)), "No."],  # malformed
        [protocol.write_zoom("There. " + "Look at it closely. " * 40, there)],  # cut off by max_tokens
        [protocol.write_zoom("Here. " + "So far. " * 4, there)] * 4,  # runs out of its budget
    ][number]


def scripts(samples: list[Sample]) -> dict[str, list[str]]:
    """The turns by the words of the question."""
    return {sample.question: script(sample, number) for number, sample in enumerate(samples)}


def next_turn(tokenizer: Any, told: dict[str, list[str]], prompt: list[int], most: int) -> list[int]:
    """The ids of the turn that follows a prompt, at most so many."""
    text = tokenizer.decode(prompt)
    (turns,) = (turns for question, turns in told.items() if question in text)
    written = turns[text.count("<|im_start|>assistant") - 1]
    return [*tokenizer.encode(written, add_special_tokens=False), tokenizer.eos_token_id][:most]


def facts(prompt: list[int], completion: list[int], mask: list[int], images: list[Any]) -> dict[str, Any]:
    """What has to be equal, as JSON values."""
    seen = [hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest() for image in images]
    return {"prompt": prompt, "completion": completion, "mask": mask, "images": seen}


class Scripted(Reader):
    """A model in training that says its script."""

    told: dict[str, list[str]]

    async def complete(self, prompt: Prompt) -> Generated:
        ids = next_turn(self._tokenizer, self.told, prompt.ids, prompt.sampling.max_tokens)
        return Generated(ids, ids[-1] in self.stop_ids)


def played(samples: list[Sample]) -> list[Rollout]:
    from transformers import AutoConfig, GenerationConfig

    from cof_agent.backends.local.processor import load_processor

    config = AutoConfig.from_pretrained(WEIGHTS)
    parts = SimpleNamespace(config=config, generation_config=GenerationConfig.from_pretrained(WEIGHTS))
    agent = replace(AgentConfig(), temperature=1.0, **AGENT)
    policy = Scripted(parts, load_processor(str(WEIGHTS), config), name="in training", max_pixels=agent.overview_pixels)
    policy.told = scripts(samples)
    wanted = [Episode(sample) for sample in samples]
    return asyncio.run(
        roll_out(wanted, policy, agent, ZoomEnvironment(), budget=BUDGET, seeds=list(range(len(wanted))))
    )


def main(folder: Path) -> None:
    found = {}
    for rollout in played(read_samples(folder)):
        rewards = [by_name(name, 1)(trajectory=[rollout.trajectory])[0] for name in REWARDS]
        found[rollout.trajectory.sample.id] = {
            **facts(rollout.prompt, rollout.completion, rollout.mask, rollout.images),
            "reward": total(rewards, WEIGHTS_OF_REWARDS),
            "turns": [to_json(turn) for turn in (replace(turn, seconds=0.0) for turn in rollout.trajectory.turns)],
            "stop": rollout.trajectory.stop.value,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
