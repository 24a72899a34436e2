"""The update of GRPO against TRL's stock `GRPOTrainer`: the same conversations, the same model, in the same run.

Two layers of each kind in the shapes of Qwen2.5-VL-3B with random weights, LoRA on the language model and a frozen tower, by
`qwen2.5-vl-3b-lora-1gpu.yaml` with a KL term: two passes over each conversation, that of the reference and the update. A
run with vLLM and without KL has two as well. Conversations are drawn (`_drawn`): a group has its overview in common, each
rollout has up to three crops of its own, and turns of uneven length. Both sides are given them instead of playing.

Prints seconds a step from the conversations to the new weights, loss and norm of the gradient of each step, and memory. Seconds
are those that the core worked, one thread on each side, so that other programs on the machine count for little. The
vocabulary is nano's: a GPU computes the head only for what was written. The first step is not counted, and has short
conversations.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PrinterCallback, set_seed
from trl import GRPOTrainer

from benches import memory
from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes
from cof_agent.training.models import load_model, lora, read_checkpoint
from rl.settings import Settings, parse
from rl.train import build_trainer

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "rl" / "configs" / "qwen2.5-vl-3b-lora-1gpu.yaml"
WARM = 1  # steps that are not counted
PROMPTS, ROLLOUTS, ROWS = 3, 4, 4  # of a step, of each prompt, of a micro-batch
OVERVIEW, CROP = (16, 12), (8, 8)  # in image tokens
WORDS = 60  # of a prompt
TURN, SPREAD, LONGEST = 40, 0.9, 256  # tokens of a turn: median, deviation of their logarithm, most


@dataclass(frozen=True)
class Conversation:
    """Token ids, the mask of what was written, and images."""

    prompt: list[int]
    completion: list[int]
    mask: list[int]
    images: list[Image.Image]


@dataclass(frozen=True)
class Side:
    """What one trainer did: seconds of each counted step, loss and norm of the gradient of each, memory in MiB."""

    seconds: list[float]
    logged: list[tuple[float, float]]
    peak: int


def run(steps: int) -> None:
    """steps: counted ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        _in_a_process(_write, path)
        sides = {
            name: _in_a_process(_side, build, path, name, WARM + steps)
            for name, build in (("ours", build_trainer), ("TRL", _stock))
        }
    ours, stock = sides["ours"], sides["TRL"]
    for mine, theirs in zip(ours.logged, stock.logged, strict=True):
        if not np.allclose(mine, theirs, rtol=1e-3, atol=1e-5):
            raise SystemExit(f"loss and gradient differ: {mine} and {theirs}")
    _print(ours, stock)


def _print(ours: Side, stock: Side) -> None:
    steps = [_drawn(WARM + step) for step in range(len(ours.seconds))]
    lengths = sorted(len(one.prompt) + len(one.completion) for step in steps for one in step)
    padded = sum(len(step) * _longest(step) for step in steps) / sum(lengths)
    print(
        f"{len(steps[0])} conversations a step, of {lengths[0]} to {lengths[-1]} tokens, {fmean(lengths):.0f} in the mean"
    )
    print(f"TRL pads them to {padded:.2f} x. {len(steps)} steps after {WARM}")
    print(f"{'':34}{'ours':>10}{'TRL':>10}{'TRL / ours':>13}")
    means = fmean(ours.seconds), fmean(stock.seconds)
    print(f"{'update, s a step':34}{means[0]:10.2f}{means[1]:10.2f}{means[1] / means[0]:11.2f} x")
    print(f"{'peak memory, MiB':34}{ours.peak:10}{stock.peak:10}{stock.peak / ours.peak:11.2f} x")
    for step, (mine, theirs) in enumerate(zip(ours.logged, stock.logged, strict=True), start=1):
        for name, values in zip(("loss", "gradient"), zip(mine, theirs, strict=True), strict=True):
            print(f"{f'{name} of step {step}':34}" + "".join(f"{value:10.5f}" for value in values))


def _longest(step: Sequence[Conversation]) -> int:
    """What TRL makes of each: the longest prompt and the longest completion."""
    return max(len(one.prompt) for one in step) + max(len(one.completion) for one in step)


def _in_a_process(call: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _write(folder: Path) -> None:
    """The model, and questions whose images nobody looks at."""
    from tests.checkpoints import write_shallow

    write_shallow("qwen2.5-vl-3b", folder / "model", layers=2)
    write_scenes(folder / "scenes", count=PROMPTS, seed=1, size=Size(448, 448), split="train", processes=1)


def _side(build: Callable[[Settings], Any], folder: Path, name: str, steps: int) -> Side:
    trainer = build(_settings(folder, folder / name, steps))
    watch = _Watch(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    logged = [(entry["loss"], entry["grad_norm"]) for entry in history]
    return Side(watch.seconds[WARM:], logged, memory.peak())


def _settings(folder: Path, output: Path, steps: int) -> Settings:
    given = {
        "model_name_or_path": folder / "model",
        "data": folder / "scenes",
        "output_dir": output,
        "use_cpu": "true",
        "bf16": "false",
        "dtype": "float32",
        "use_vllm": "false",
        "beta": 0.001,
        "gradient_checkpointing": "false",
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": PROMPTS * ROLLOUTS // ROWS,
        "num_generations": ROLLOUTS,
        "max_steps": steps,
        "threads": 1,
        "save_strategy": "no",
        "quiet": "true",
    }
    return parse(
        ["--config", str(CONFIG), *(text for key, value in given.items() for text in (f"--{key}", str(value)))]
    )


def _stock(settings: Settings) -> GRPOTrainer:
    """TRL's trainer with the model and the settings of ours, and told, as ours tells it, that images came up on the way."""
    torch.set_num_threads(settings.run.threads)
    set_seed(settings.training.seed)
    config, processor = read_checkpoint(settings)
    trainer = GRPOTrainer(
        load_model(settings),
        [_reward] * 2,
        settings.training,
        train_dataset=build_rows(settings),
        processing_class=processor,
        peft_config=lora(settings, config),
    )
    trainer.tools, trainer._standalone_tools = [{}], []
    trainer.processing_class.image_processor.do_resize = False
    return trainer


def build_rows(settings: Settings) -> Any:
    from rl.train import _dataset, episodes_of

    return _dataset(episodes_of(settings, Path(str(settings.training.output_dir))))


def _reward(completions: Sequence[Any], **_: Any) -> list[float]:
    """Of each place in the batch another one, the same on both sides."""
    return [float(place * place % 7) for place in range(len(completions))]


_reward.__name__ = "accuracy"


class _Watch:
    """Gives a trainer its conversations, and times what it does with them."""

    def __init__(self, trainer: Any) -> None:
        self.seconds: list[float] = []
        self._trainer, self._began = trainer, 0.0
        trainer._generate, trainer.reward_funcs = self._given, [_reward] * len(trainer.reward_funcs)
        self._log = trainer.log
        trainer.log = self._logged

    def _given(self, prompts: Sequence[Any]) -> tuple[Any, ...]:
        found = _drawn(self._trainer.state.global_step)
        self._trainer._metrics["train"]["seconds/rollout"].append(0.0)
        self._began = time.process_time()
        images = [one.images for one in found]
        said = [[{"role": "assistant", "content": ""}] for _ in found]
        ids = [one.prompt for one in found], [one.completion for one in found], [one.mask for one in found]
        return (*ids, said, None, {}, images, images)

    def _logged(self, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs:
            self.seconds.append(time.process_time() - self._began)
        self._log(logs, *rest)


class _Draw:
    """Draws the parts of a step's conversations; those of a warm-up are as short as can be."""

    def __init__(self, step: int) -> None:
        from cof_agent.nano import build

        self._ids = build.build_config(build.build_tokenizer())
        self.random, self._short = Random(step), step < WARM

    def words(self, count: int) -> list[int]:
        return [self.random.randrange(20, 500) for _ in range(4 if self._short else count)]

    def turn(self) -> list[int]:
        return self.words(min(LONGEST, round(TURN * self.random.lognormvariate(0, SPREAD))))

    def shown(self, cells: tuple[int, int]) -> tuple[list[int], Image.Image]:
        """An image of noise, and its tokens."""
        high, wide = (2, 2) if self._short else cells
        noise = np.random.default_rng(self.random.getrandbits(32))
        ids = [
            self._ids.vision_start_token_id,
            *[self._ids.image_token_id] * (high * wide),
            self._ids.vision_end_token_id,
        ]
        return ids, Image.fromarray(noise.integers(0, 256, (28 * high, 28 * wide, 3), dtype=np.uint8))


def _drawn(step: int) -> list[Conversation]:
    """The conversations of a step: 0 to 3 zooms, as many of each, and turns as replies are: most short, some very long."""
    draw, found = _Draw(step), []
    for _ in range(PROMPTS):
        overview, picture = draw.shown(OVERVIEW)
        asked = [*draw.words(10), *overview, *draw.words(draw.random.randint(WORDS // 2, 2 * WORDS))]
        found += [_conversation(draw, asked, picture, zooms=rollout % 4) for rollout in range(ROLLOUTS)]
    return found


def _conversation(draw: _Draw, asked: list[int], overview: Image.Image, zooms: int) -> Conversation:
    completion, images = draw.turn(), [overview]
    mask = [1] * len(completion)
    for _ in range(zooms):
        (ids, crop), more = draw.shown(CROP), draw.turn()
        completion, mask = completion + ids + more, mask + [0] * len(ids) + [1] * len(more)
        images.append(crop)
    return Conversation(asked, completion, mask, images)
