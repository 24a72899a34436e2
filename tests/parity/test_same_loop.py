"""Our GRPO trainer against TRL's own tool loop, where that one works: one process, a template with tool roles, and a scripted
generation. Prompt ids, completion ids, masks, pixel values, grids, loss and gradient norm are equal."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer

from cof_agent import protocol
from cof_agent.backends.checkpoint import load
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.geometry import Box
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.trajectory import Sample, to_json
from rl.trainer import ZoomGRPOTrainer
from tests import stock_loop
from tests.scenes.shared import Scenes

SCRIPTS = [
    [protocol.write_zoom("There.", Box(40, 40, 100, 80)), protocol.write_answer("I see.", "red")],
    [
        protocol.write_zoom("There.", Box(10, 20, 90, 70)),
        protocol.write_zoom("Closer.", Box(20, 20, 60, 60), 1),
        protocol.write_answer("I see.", "7"),
    ],
    [protocol.write_answer("It is plain.", "blue")],
    [protocol.write_zoom("There.", Box(200, 100, 260, 160)), protocol.write_answer("I see.", "blue")],
]
"""What the model says in each conversation, turn by turn."""


@pytest.fixture(scope="module")
def samples(drawn: Scenes) -> list[Sample]:
    return read_samples(drawn(2))


def reward(completions: list[Any], **_: Any) -> list[float]:
    return [0.0, 1.0, 0.5, 0.25][: len(completions)]


def config(folder: Path) -> GRPOConfig:
    return GRPOConfig(
        str(folder),
        use_cpu=True,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=600,
        report_to="none",
        remove_unused_columns=False,
        bf16=False,
        gradient_checkpointing=False,
        beta=0.0,
        save_strategy="no",
        seed=1,
    )


def parts() -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.float32)
    speed_up_vision(model)
    return model, stock_loop.with_tool_roles(load_processor(str(WEIGHTS)))


def spoken(tokenizer: Any, text: str) -> list[int]:
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def stock(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[GRPOTrainer, list[dict[str, Any]]]:
    """TRL's trainer with the zoom as an environment's tool."""
    model, processor = parts()
    policy = load(NANO)
    ours = ZoomEnvironment(ZoomSettings(policy.coordinates, policy.limits))
    rows = [row for row in stock_loop.rows(samples, ours) for _ in range(2)]
    trainer = GRPOTrainer(
        model,
        [reward],
        config(folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        environment_factory=stock_loop.environment(samples, ours),
    )
    said: dict[int, int] = defaultdict(int)

    def generate(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        # Conversations follow each other in the order of the scripts; those that have ended are left out.
        live = [index for index in range(4) if said[index] < len(SCRIPTS[index])]
        assert len(prompt_ids) == len(live)
        found = [spoken(processor.tokenizer, SCRIPTS[index][said[index]]) for index in live]
        for index in live:
            said[index] += 1
        return found, None

    monkeypatch.setattr(trainer, "_generate_single_turn", generate)
    return trainer, rows


def own(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[GRPOTrainer, list[dict[str, Any]]]:
    model, processor = parts()
    rows = [
        {"prompt": [{"role": "user", "content": "x"}], "episode": to_json(Episode(samples[k // 2]))} for k in range(4)
    ]
    trainer = ZoomGRPOTrainer(
        model,
        [reward],
        config(folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        agent=AgentConfig(),
        held_out=None,
        record={},
    )
    policy = LocalPolicy(model, processor, name="scripted")
    turns: dict[int, int] = defaultdict(int)
    played = trainer._generation.following(0, 0).plays([Episode(samples[index // 2]) for index in range(4)])
    seeds = [seed for _, seed in played]
    by_turn_seed = _turn_seeds(seeds, samples)

    async def complete(prompt: Prompt) -> Generated:
        index = by_turn_seed[prompt.sampling.seed or 0]
        turns[index] += 1
        return Generated(spoken(processor.tokenizer, SCRIPTS[index][turns[index] - 1]), True)

    monkeypatch.setattr(policy, "complete", complete)
    trainer._policy = policy
    return trainer, rows


def _turn_seeds(seeds: list[int], samples: list[Sample]) -> dict[int, int]:
    """Which conversation draws with which seed in each of its turns (see `graphs/focus.py`)."""
    from zlib import crc32

    return {
        crc32(f"{seed}/{samples[index // 2].id}/{turn}".encode()): index
        for index, seed in enumerate(seeds)
        for turn in range(4)
    }


@pytest.mark.slow
def test_the_loop_is_trls(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for build in (stock, own):
        trainer, rows = build(samples, tmp_path, monkeypatch)
        trainer.model.train()
        output = trainer._generate_and_score_completions([dict(row) for row in rows])
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer._compute_loss(trainer.model, output)
        loss.backward()
        weights = [parameter for parameter in trainer.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(weights, 1e9)
        found.append((output, loss.item(), norm.item()))
    (theirs, their_loss, their_norm), (ours, our_loss, our_norm) = found
    assert set(theirs) == set(ours)
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, ours[key]), key
        else:
            assert value == ours[key], key
    assert theirs["num_images"] == [2, 3, 1, 2]
    assert our_loss == pytest.approx(their_loss, abs=1e-7)
    assert our_norm == pytest.approx(their_norm, rel=1e-5)
    assert their_norm > 0
