"""GRPO of nano through `rl.train`, against TRL's `GRPOTrainer` whose own tool loop has the zoom as an environment's tool.

Both train the same model, its vision tower made fast for a CPU alike, with the same settings, on the same prompts: that
these are the same tokens is checked. What is sampled differs, and with it turns and zooms, so the rollouts' time is given
for each token and each turn too, and the update's for each token with what pads it. Each side has a process of its own.

Prints seconds a step of rollout (from the samples to the sampled conversations), scoring (rewards, images for the loss,
log-probabilities where they are needed before the update), update (loss, gradients, optimiser), and the whole step with
data and logs; what was generated; and memory. The first step is not counted.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import GRPOTrainer

from benches import memory
from cof_agent import protocol, scoring
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes
from cof_agent.training.models import load_model, read_checkpoint
from cof_agent.training.trainer import policy_of
from cof_agent.trajectory import Answer
from rl.settings import Settings, parse
from rl.train import build_trainer

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "rl" / "configs" / "nano.yaml"
WARM = 1  # steps that are not counted
WATCHED = (2, 2)  # prompts a step and rollouts of each, where memory is watched
EVERY = 25  # steps between two looks at it


@dataclass(frozen=True)
class Run:
    """What is trained. prompts: of one step. rollouts: of each prompt. steps: all of them. threads: of the CPU."""

    data: Path
    prompts: int
    rollouts: int
    steps: int
    threads: int

    def settings(self, output: Path) -> Settings:
        given = {
            "data": self.data,
            "output_dir": output,
            "rewards": "accuracy",
            "reward_weights": 1.0,
            "per_device_train_batch_size": self.prompts * self.rollouts,
            "gradient_accumulation_steps": 1,
            "num_generations": self.rollouts,
            "max_steps": self.steps,
            "threads": self.threads,
            "save_strategy": "no",
            "quiet": "true",
        }
        return parse(
            ["--config", str(CONFIG), *(text for key, value in given.items() for text in (f"--{key}", str(value)))]
        )


@dataclass(frozen=True)
class Step:
    """One step: seconds of its parts, and sums over its rollouts. tokens: prompts and what was shown included; padded: the
    same as the loss reads them, each as long as the longest."""

    rollout: float
    scoring: float
    update: float
    whole: float
    tokens: int
    padded: int
    generated: int
    turns: int
    zooms: int
    accuracy: float


@dataclass(frozen=True)
class Side:
    """What one trainer did after the warm-up. prompts: a digest of all their tokens. Memory in MiB."""

    steps: list[Step]
    prompts: str
    before: int
    peak: int

    def mean(self, name: str) -> float:
        """Of a field of `Step`, over the steps."""
        return fmean(getattr(step, name) for step in self.steps)


def run(prompts: int, rollouts: int, steps: int, *, threads: int, repeats: int, memory_steps: int) -> None:
    """steps: counted ones. threads: of the CPU, for both. repeats: of each side by turns, the fastest of which counts.
    memory_steps: of a small run of ours whose memory is watched; 0 for none."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "scenes"
        write_scenes(data, count=prompts * (WARM + steps), seed=11, size=Size(3840, 2160), split="hard")
        compared = Run(data, prompts, rollouts, WARM + steps, threads)
        ours, stock = [], []
        for _ in range(repeats):
            ours.append(_in_a_process(_side, build_trainer, compared))
            stock.append(_in_a_process(_side, _stock, compared))
        if len({side.prompts for side in (*ours, *stock)}) > 1:
            raise SystemExit("the two sides were given different prompts, so that their times cannot be compared")
        print(f"{prompts} prompts of {rollouts} rollouts a step, {steps} steps after {WARM}, {threads} threads")
        _print(_fastest(ours), _fastest(stock), prompts * rollouts)
        if memory_steps:
            _in_a_process(_watched, Run(data, *WATCHED, memory_steps, threads))


def _in_a_process(call: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _side(build: Callable[[Settings], Any], run: Run) -> Side:
    with tempfile.TemporaryDirectory() as output:
        trainer = build(run.settings(Path(output)))
        watch = _Watch(trainer)
        trainer.remove_callback(PrinterCallback)
        before = memory.resident()
        trainer.train()
    return Side(watch.steps[WARM:], watch.prompts.hexdigest(), before, memory.peak())


def _fastest(sides: Sequence[Side]) -> Side:
    return min(sides, key=lambda side: side.mean("whole"))


def _watched(run: Run) -> None:
    with tempfile.TemporaryDirectory() as output:
        trainer = build_trainer(run.settings(Path(output)))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(memory.Resident(EVERY))
        trainer.train()


class _Watch(TrainerCallback):
    """Times the parts of a GRPO trainer's steps, and counts what it generates."""

    def __init__(self, trainer: Any) -> None:
        self.steps: list[Step] = []
        self.prompts = hashlib.blake2b()
        self._generate, self._score = trainer._generate, trainer._generate_and_score_completions
        trainer._generate, trainer._generate_and_score_completions = self._generated, self._scored
        trainer.add_callback(self)
        self._ended = self._began = self._played = self._judged = self._updated = 0.0
        self._counts: dict[str, int] = {}

    def _scored(self, inputs: Any) -> Any:
        self._began = time.perf_counter()
        output = self._score(inputs)
        self._judged = time.perf_counter()
        self._counts["padded"] = output["prompt_ids"].numel() + output["completion_ids"].numel()
        return output

    def _generated(self, prompts: Any) -> Any:
        output = self._generate(prompts)
        self._played = time.perf_counter()
        ids, completions, masks, *_, images, _ = output
        self.prompts.update(repr([list(one) for one in ids]).encode())
        self._counts = {
            "tokens": sum(len(one) for one in (*ids, *completions)),
            "generated": sum(sum(mask) for mask in masks),
            # What the model writes in one go is a turn: what it is shown stands between two.
            "turns": sum(kept for mask in masks for kept, _ in groupby(mask)),
            "zooms": sum(len(shown) - 1 for shown in images),
        }
        return output

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._ended = time.perf_counter()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """The last thing of a step."""
        if "rewards/accuracy/mean" not in logs:
            return  # the summary of the run
        now = time.perf_counter()
        self.steps.append(
            Step(
                rollout=self._played - self._began,
                scoring=self._judged - self._played,
                update=self._updated - self._judged,
                whole=now - self._ended,
                accuracy=logs["rewards/accuracy/mean"],
                **self._counts,
            )
        )
        self._ended = now

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._updated = time.perf_counter()


def _stock(settings: Settings) -> GRPOTrainer:
    """TRL's trainer as its documentation has it, with what `build_trainer` reads from the settings."""
    from tests import stock_loop

    run, training = settings.run, settings.training
    torch.set_num_threads(run.threads)
    set_seed(training.seed)
    _, processor = read_checkpoint(settings)
    model, agent = load_model(settings), settings.run.agent_config()
    zoom = ZoomEnvironment(agent.settings(policy_of(model, processor, agent, LocalPolicy)))
    samples = read_samples(run.data)
    # Else a turn may be as long as all of a conversation.
    training.generation_kwargs = {"max_new_tokens": agent.turn_tokens}
    training.max_tool_calling_iterations = agent.zooms + 1  # the agent, too, is told once that no zooms are left
    return GRPOTrainer(
        model,
        [accuracy],
        training,
        train_dataset=Dataset.from_list(stock_loop.rows(samples, zoom)),
        processing_class=stock_loop.with_tool_roles(processor),
        environment_factory=stock_loop.environment(samples, zoom),
    )


def accuracy(completions: Sequence[Any], environments: Sequence[Any], **_: Any) -> list[float]:
    """The accuracy of `rl.rewards`, of what TRL hands over."""
    return [float(_right(said[-1], one.sample)) for said, one in zip(completions, environments, strict=True)]


def _right(last: dict[str, Any], sample: Any) -> bool:
    """Of the last message, which is one of a tool where no token was left for the model's."""
    spoken = last["content"] if last["role"] == "assistant" else ""
    (*_, action) = protocol.parse(spoken)
    return isinstance(action, Answer) and scoring.matches(action.text, sample)


def _print(ours: Side, stock: Side, count: int) -> None:
    """count: rollouts of a step."""
    print(f"{'':34}{'ours':>10}{'TRL':>10}{'TRL / ours':>13}")

    def line(name: str, *values: float, ratio: bool = False) -> None:
        share = f"{values[1] / values[0]:11.2f} x" if ratio else ""
        print(f"{name:34}" + "".join(f"{value:10.3f}" for value in values) + share)

    sides = (ours, stock)
    for part in ("rollout", "scoring", "update", "whole"):
        line(f"{part}, s a step", *(side.mean(part) for side in sides), ratio=True)
    for part, unit in (("rollout", "generated"), ("rollout", "turns"), ("update", "padded")):
        values = (1000 * side.mean(part) / side.mean(unit) for side in sides)
        line(f"{part}, ms for each of {unit}", *values, ratio=True)
    for name in ("generated", "turns", "zooms", "tokens", "padded"):
        line(f"{name} a rollout", *(side.mean(name) / count for side in sides))
    line("accuracy", *(side.mean("accuracy") for side in sides))
    line("memory before the first step, MiB", *(side.before for side in sides))
    line("peak memory, MiB", *(side.peak for side in sides), ratio=True)
