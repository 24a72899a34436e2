"""Teaches nano's vision tower to see before the language model is taught to speak: `python -m sft.vision --output DIR`.

Every real VLM starts from a pretrained vision tower; nano's is pretrained here, on the same drawn scenes. Each merged
token (28 x 28 shown pixels) is asked by a linear head, thrown away afterwards: does an object lie here, of which colour
and shape, where is its centre, and what is written on it? Learned through the language model alone, over the few answer
tokens of a conversation, colours did not start within 200 steps; asked this way they are there after 80 small ones.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoImageProcessor, AutoModelForImageTextToText
from trl.chat_template_utils import qwen2_5_vl_chat_template

from cof_agent.backends.cpu import speed_up_vision
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.nano.build import random_start
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.scene import COLOURS, DIGITS, LABEL_HEIGHT, LETTERS, SHAPES, SIGN_TEXT, Scene, generate
from cof_agent.trajectory import write_atomic
from sft.curriculum import nano_environment, overview_of, style

CELL = 28  # shown pixels of a merged token
CHARACTERS = DIGITS + LETTERS
SMALL_VIEW = 3 * CELL
SLOTS = 3  # characters that are asked for
READABLE = 6.5  # shown pixels a character must be high to be asked for
COLOUR_NAMES = tuple(COLOURS)
HEAD = (1, len(COLOURS), len(SHAPES), 3, SLOTS * (len(CHARACTERS) + 1))


@dataclass
class Targets:
    """What the tokens of some images show, one row a token; -100 where nothing is asked."""

    present: Tensor
    colour: Tensor
    shape: Tensor
    place: Tensor  # [tokens, 3]: centre from the token's centre, in cells; log2 of the side in cells
    text: Tensor  # [tokens, SLOTS]

    @classmethod
    def empty(cls, tokens: int) -> Targets:
        unknown = torch.full((tokens,), -100)
        return cls(
            torch.zeros(tokens), unknown, unknown.clone(), torch.zeros(tokens, 3), torch.full((tokens, SLOTS), -100)
        )

    @classmethod
    def joined(cls, parts: list[Targets]) -> Targets:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def targets_of(scene: Scene, view: View) -> Targets:
    """The targets of a view's tokens, row by row."""
    columns, rows = view.shown_size.width // CELL, view.shown_size.height // CELL
    targets = Targets.empty(columns * rows)
    scale = view.shown_size.height / view.region.height
    for item in scene.items:
        box = view.from_source(item.box, CoordinateSystem.ABSOLUTE)
        for index in _tokens_under(box, columns, rows):
            x, y = index % columns + 0.5, index // columns + 0.5
            cx, cy = (value / CELL for value in box.center)
            targets.present[index] = 1
            targets.colour[index] = COLOUR_NAMES.index(item.colour)
            targets.shape[index] = SHAPES.index(item.shape)
            targets.place[index] = torch.tensor([cx - x, cy - y, math.log2(box.width / CELL)])
        _ask_text(targets, box, item.label, item.side * LABEL_HEIGHT * scale, columns, rows)
        if item.sign:
            sign = view.from_source(item.sign_box, CoordinateSystem.ABSOLUTE)
            _ask_text(targets, sign, item.sign, item.side * SIGN_TEXT * scale, columns, rows)
    return targets


def _tokens_under(box: Box, columns: int, rows: int) -> list[int]:
    """Tokens of which an object takes a fifth, or which hold the half of it."""
    found = []
    for row in range(max(0, int(box.y0 // CELL)), min(rows, int(box.y1 // CELL) + 1)):
        for column in range(max(0, int(box.x0 // CELL)), min(columns, int(box.x1 // CELL) + 1)):
            cell = Box(column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL)
            if cell.intersection(box) > min(0.2 * CELL * CELL, 0.5 * box.area):
                found.append(row * columns + column)
    return found


def _ask_text(targets: Targets, box: Box, text: str, height: float, columns: int, rows: int) -> None:
    """Ask the token at the centre of `box` for `text`, if its characters are high enough and wholly in sight."""
    column, row = (int(value // CELL) for value in box.center)
    if height < READABLE or not (0 <= column < columns and 0 <= row < rows):
        return
    if box.x0 < 0 or box.y0 < 0 or box.x1 > columns * CELL or box.y1 > rows * CELL:
        return
    codes = [CHARACTERS.index(character) for character in text[:SLOTS]]
    targets.text[row * columns + column] = torch.tensor(codes + [len(CHARACTERS)] * (SLOTS - len(codes)))


def lesson(key: str, environment: ZoomEnvironment) -> tuple[Scene, View]:
    """A scene and a view of it: mostly a small one of an object at any scale, else a crop as the agent would get it, a
    smaller canvas or a whole overview. Small views give several times the outlines and letters for the same time."""
    random = Random(f"vision:{key}")
    kind = random.random()
    growth = random.random() if 0.90 < kind <= 0.95 else 1.0
    scene = generate(f"vision:{key}", replace(style(growth), count=(8, 24)))
    if kind > 0.90:
        return scene, overview_of(scene)
    item = random.choice(scene.items)
    sign = bool(item.sign) and random.random() < 0.3
    if kind > 0.80:
        target = item.sign_box if sign else item.box
        side = max(target.width * 1.25, 60 if sign else 240)  # the oracle's margin and smallest box
        cx, cy = (value + random.uniform(-0.2, 0.2) * side for value in target.center)
        return scene, environment.crop_view(Box(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2), scene.size)
    letters = item.side * (SIGN_TEXT if sign else LABEL_HEIGHT)
    side = SMALL_VIEW * letters / (READABLE * 5 ** random.random())
    cx, cy = (value + random.uniform(-0.25, 0.25) * side for value in (item.sign_box if sign else item.box).center)
    x = min(max(0.0, cx - side / 2), scene.size.width - side)
    y = min(max(0.0, cy - side / 2), scene.size.height - side)
    return scene, View(scene.size, Box(x, y, x + side, y + side), Size(SMALL_VIEW, SMALL_VIEW))


@dataclass
class Lessons(IterableDataset[tuple[Tensor, Tensor, Targets]]):
    """The batches of a run: pixel values, grids and targets; drawn in a process beside the training."""

    processor: Any
    start: int
    steps: int
    images: int
    seed: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        environment = nano_environment()
        for step in range(self.start, self.steps):
            pairs = [lesson(f"{self.seed}:{step}:{k}", environment) for k in range(self.images)]
            drawn = [sketch(scene, view.region, view.shown_size) for scene, view in pairs]
            pixels = self.processor(images=drawn, return_tensors="pt")
            targets = Targets.joined([targets_of(scene, view) for scene, view in pairs])
            yield pixels["pixel_values"], pixels["image_grid_thw"], targets


def loss_of(outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The parts of the loss; outputs: [tokens, sum(HEAD)].

    Places are asked for loosely: taken at face value, a few large objects would drown all other gradients.
    """
    present, colour, shape, place, text = outputs.split(HEAD, dim=1)
    there = targets.present > 0
    return {
        "present": F.binary_cross_entropy_with_logits(present[:, 0], targets.present),
        "colour": F.cross_entropy(colour, targets.colour),
        "shape": F.cross_entropy(shape, targets.shape),
        "place": F.smooth_l1_loss(place[there], targets.place[there].clamp(-1, 1), beta=0.3),
        "text": F.cross_entropy(text.reshape(-1, len(CHARACTERS) + 1), targets.text.reshape(-1)) * 2,
    }


def accuracy_of(outputs: Tensor, targets: Targets) -> dict[str, float]:
    _, colour, shape, place, text = outputs.detach().split(HEAD, dim=1)
    there, asked = targets.present > 0, targets.text >= 0
    letters = text.reshape(-1, SLOTS, len(CHARACTERS) + 1).argmax(-1)
    return {
        "colour": (colour.argmax(1) == targets.colour)[there].float().mean().item(),
        "shape": (shape.argmax(1) == targets.shape)[there].float().mean().item(),
        "place": (place - targets.place.clamp(-1, 1))[there][:, :2].abs().mean().item() * CELL,
        "text": (letters == targets.text)[asked].float().mean().item(),
    }


# Where the four heads of each block look at first, in patches (down, right) from their own, and how sharply.
GAZES = (
    (((0, 1), (0, -1), (1, 0), (-1, 0)), 5.0),
    (((1, 1), (1, -1), (-1, 1), (-1, -1)), 4.0),
    (((0, 2), (0, -2), (2, 0), (-2, 0)), 3.0),
    (((0, 0), (0, 0), (0, 0), (0, 0)), 1.0),
)


@torch.no_grad()
def look_nearby(tower: nn.Module) -> None:
    """Start the attention of each head on a neighbour of every patch, by the biases of queries and keys alone.

    Under rotary positions a constant query and key give the logit sum_i cos((offset - gaze) f_i), which peaks at the
    gaze. A tower that starts so is nearly a convolution and learns outlines at once; one that starts on uniform
    attention learned colours only (the idea of ConViT, arXiv 2103.10697, carried over to rotary positions).
    """
    for block, (gazes, sharpness) in zip(list(tower.blocks), GAZES, strict=True):  # type: ignore[arg-type]
        head_size = block.attn.qkv.bias.numel() // 3 // len(gazes)
        pairs = head_size // 4  # rotary pairs of each axis
        frequencies = 10000.0 ** (-torch.arange(pairs) / pairs)
        amplitude = (sharpness * head_size**0.5) ** 0.5 * torch.tensor([1.0] * 3 + [0.0] * (pairs - 3))
        query, key, _ = block.attn.qkv.bias.view(3, len(gazes), head_size)
        for head, gaze in enumerate(gazes):
            angle = torch.cat([step * frequencies for step in gaze])
            size = amplitude.repeat(2)
            query[head] += torch.cat([size * angle.cos(), size * angle.sin()])
            key[head] += torch.cat([size, torch.zeros_like(size)])


@torch.no_grad()
def whiten(projection: nn.Conv3d, pixels: Tensor) -> None:
    """Start the patch embedding as the whitened principal components of real patches, pixels: [patches, 1176].

    Outlines and letters are a thousandth of a patch's variance; under random filters they drown in its mean colour.
    """
    width, shape = projection.weight.shape[0], projection.weight.shape[1:]
    still = pixels.view(-1, *shape).mean(2).flatten(1)  # both frames of a still image are the same
    values, vectors = torch.linalg.eigh(torch.cov(still.T).double())
    values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
    filters = (vectors / (values + values[width // 2]).sqrt()).T.float()
    projection.weight.copy_((filters.view(width, shape[0], 1, *shape[2:]) / shape[1]).expand_as(projection.weight))


def one_cycle(progress: float) -> float:
    """The share of the learning rate: up over the first twentieth, then down along a cosine."""
    return min(1.0, progress / 0.05 + 0.02) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(output: Path, *, steps: int, images: int, rate: float, seed: int) -> None:
    """Pretrain the vision tower of a random nano and write the whole model to `output`.

    A state every `SAVE_EVERY` steps lets the same command go on after an interruption; a finished run is left as it is.
    """
    if (output / RECORD).exists():
        return
    torch.manual_seed(seed)
    if not (output / "config.json").exists():
        random_start(seed, output, qwen2_5_vl_chat_template)
    model = AutoModelForImageTextToText.from_pretrained(output, dtype=torch.float32)
    speed_up_vision(model)
    processor = AutoImageProcessor.from_pretrained(output)
    tower, head = model.model.visual.train(), nn.Linear(model.config.text_config.hidden_size, sum(HEAD))
    look_nearby(tower)
    whiten(tower.patch_embed.proj, next(iter(Lessons(processor, 0, 1, 200, seed - 1)))[0])
    learner = nn.ModuleDict({"tower": tower, "head": head})
    optimiser = torch.optim.AdamW(learner.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / steps))
    stateful = {"learner": learner, "optimiser": optimiser, "schedule": schedule}
    start = _restore(output / STATE, stateful)
    progress = Report(steps, start)
    lessons = DataLoader(Lessons(processor, start, steps, images, seed), batch_size=None, num_workers=1)
    for step, (pixels, grid, targets) in enumerate(lessons, start + 1):
        outputs = head(tower(pixels, grid_thw=grid).pooler_output)
        torch.stack(list(loss_of(outputs, targets).values())).nansum().backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress.add(accuracy_of(outputs, targets))
        if step % SAVE_EVERY == 0:
            _save(output / STATE, step, stateful)
    model.save_pretrained(output)
    write_atomic(output / RECORD, json.dumps({"steps": steps, "images": images, "rate": rate, "seed": seed}) + "\n")
    (output / STATE).unlink(missing_ok=True)


SAVE_EVERY = 100
STATE, RECORD = "vision-state.pt", "vision.json"


def _restore(path: Path, stateful: dict[str, Any]) -> int:
    """Load the state of an interrupted run; returns the steps it had done."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in stateful.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def _save(path: Path, step: int, stateful: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({"step": step} | {name: part.state_dict() for name, part in stateful.items()}, buffer)
    write_atomic(path, buffer.getvalue())


class Report:
    """A line every 25 steps: mean accuracies since the last one, and the time that is left."""

    def __init__(self, steps: int, start: int) -> None:
        self.steps, self.start, self.done = steps, start, start
        self.began, self.console = time.monotonic(), Console(stderr=True)
        self.log: list[dict[str, float]] = []

    def add(self, accuracy: dict[str, float]) -> None:
        self.log.append(accuracy)
        self.done += 1
        if self.done % 25 and self.done != self.steps:
            return
        figures = "  ".join(f"{name} {fmean(entry[name] for entry in self.log):.3f}" for name in accuracy)
        pace = (time.monotonic() - self.began) / (self.done - self.start)
        left = (self.steps - self.done) * pace / 60
        self.console.print(f"vision {self.done}/{self.steps}  {figures}  {left:.0f} min left")
        self.log.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--images", type=int, default=96, help="a step")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.output, steps=options.steps, images=options.images, rate=options.rate, seed=options.seed)


if __name__ == "__main__":
    main()
