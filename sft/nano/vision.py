"""Teaches nano's vision tower to see before the language model is taught to speak: `python -m sft.nano.vision --output DIR`.

Every real VLM starts from a pretrained vision tower; nano's is pretrained here, on the same drawn scenes. Each patch is
asked, through its merged token and a linear head that is thrown away: does an object or a sign lie here, of which colour
and shape, where is its centre, which character is written here, and where is the middle of that? Learned through the
language model alone, over the few answer tokens of a conversation, colours did not start within 200 steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageFont
from PIL.Image import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForImageTextToText
from trl.chat_template_utils import qwen2_5_vl_chat_template

from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.nano.build import FAMILY, IMAGE_MEAN, IMAGE_STD, random_start
from cof_agent.output.files import write_atomic
from cof_agent.scenes.draw import CAPITAL, sketch
from cof_agent.scenes.scene import (
    COLOURS,
    DIGITS,
    FULL,
    LABEL_HEIGHT,
    LETTERS,
    SHAPES,
    SIGN_TEXT,
    Scene,
    Style,
    generate,
)
from cof_agent.training.command import explained
from sft.nano.curriculum import SHOWN, nano_environment, overview_of
from sft.nano.stage import SAVE_EVERY, Optimiser, Report, is_finished, keep, options, restore

PATCH = FAMILY.vision.patch  # shown pixels; a merged token is 2 x 2 patches
PIECE = 6 * PATCH  # shown pixels: the side of a small view
READABLE = 14.0  # shown pixels a character must be high to be asked for
CHARACTERS = DIGITS + LETTERS
COLOUR_NAMES = tuple(COLOURS)
KINDS = (*SHAPES, "sign")
HEAD = (1, len(COLOURS), len(KINDS), 3, len(CHARACTERS) + 1, 2)  # for each of the four patches of a token
UNASKED = -100


@dataclass
class Targets:
    """What the patches of some images show, in the order of the tower; UNASKED (NaN in places) where nothing is asked."""

    present: Tensor  # [patches]: does an object or a sign lie here
    colour: Tensor
    kind: Tensor
    weight: Tensor  # of colour, kind and place: all patches of an object together weigh 1, so that small ones count
    place: Tensor  # [patches, 3]: its centre from the patch's own, in patches; log2 of its side in patches
    character: Tensor  # the last class is none
    offset: Tensor  # [patches, 2]: the character's centre from the patch's own, in patches

    @classmethod
    def joined(cls, parts: list[Targets]) -> Targets:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def targets_of(scene: Scene, view: View) -> Targets:
    """The targets of a view of `scene`."""
    grid = _Grid(view.shown_size)
    scale = view.shown_size.height / view.region.height
    for item in scene.items:
        box = view.from_source(item.box, CoordinateSystem.ABSOLUTE)
        grid.put_object(box, COLOUR_NAMES.index(item.colour), SHAPES.index(item.shape))
        if item.sign and item.sign_box.width * scale >= PATCH:
            plate = view.from_source(item.sign_box, CoordinateSystem.ABSOLUTE)
            grid.put_object(plate, UNASKED, KINDS.index("sign"))
            grid.put_text(plate.center, item.sign, item.side * SIGN_TEXT * scale)
        grid.put_text(box.center, item.label, item.side * LABEL_HEIGHT * scale)
    return grid.targets()


class _Grid:
    """The patches of one image, row by row, as they are filled with what lies there."""

    def __init__(self, shown: Size) -> None:
        self.rows, self.columns = shown.height // PATCH, shown.width // PATCH
        shape = (self.rows, self.columns)
        self.present = np.zeros(shape, np.float32)
        self.colour, self.kind = np.full(shape, UNASKED), np.full(shape, UNASKED)
        self.weight = np.zeros(shape, np.float32)
        self.place = np.full((*shape, 3), np.nan, np.float32)
        self.character = np.full(shape, len(CHARACTERS))
        self.offset = np.full((*shape, 2), np.nan, np.float32)

    def put_object(self, box: Box, colour: int, kind: int) -> None:
        """Into the patches of which it covers the centre, and the one that holds its own."""
        cx, cy = box.center
        middle = self._patches(Box(cx, cy, cx, cy), 0.5)
        for where in (self._patches(box, 0.0), middle):
            self.present[where] = 1
            self.colour[where], self.kind[where] = colour, kind
            self.weight[where] = 1 / max(1, self.present[where].size)
            x, y = self._centres(where)
            self.place[where] = np.stack(
                np.broadcast_arrays((cx - x) / PATCH, (cy - y) / PATCH, math.log2(box.width / PATCH)), -1
            )

    def put_text(self, centre: tuple[float, float], text: str, height: float) -> None:
        """Each character into the patches of which it covers the centre; if too small, nothing is asked there."""
        for character, box in character_boxes(text, centre, height):
            where = self._patches(box, 0.0)
            self.character[where] = CHARACTERS.index(character) if height >= READABLE else UNASKED
            if height >= READABLE:
                (cx, cy), (x, y) = box.center, self._centres(where)
                self.offset[where] = np.stack(np.broadcast_arrays((cx - x) / PATCH, (cy - y) / PATCH), -1)

    def _patches(self, box: Box, slack: float) -> tuple[slice, slice]:
        """Patches whose centre, widened by `slack` patches, lies in `box`; shown pixels."""
        x0, y0, x1, y1 = (value / PATCH - 0.5 for value in box)
        rows = slice(max(0, math.ceil(y0 - slack)), max(0, min(self.rows, math.floor(y1 + slack) + 1)))
        return rows, slice(max(0, math.ceil(x0 - slack)), max(0, min(self.columns, math.floor(x1 + slack) + 1)))

    def _centres(self, where: tuple[slice, slice]) -> tuple[Any, Any]:
        rows, columns = (np.arange(part.start, max(part.start, part.stop)) for part in where)
        return (columns[None, :] + 0.5) * PATCH, (rows[:, None] + 0.5) * PATCH

    def targets(self) -> Targets:
        names = Targets.__dataclass_fields__
        return Targets(*(torch.from_numpy(merged_order(getattr(self, name))) for name in names))


def merged_order(grid: Any) -> Any:
    """[rows, columns, ...] -> [patches, ...]: the four patches of a merged token follow each other, as in the tower."""
    rows, columns, *rest = grid.shape
    blocks = grid.reshape(rows // 2, 2, columns // 2, 2, *rest).swapaxes(1, 2)
    return np.ascontiguousarray(blocks).reshape(rows * columns, *rest)


@lru_cache(maxsize=100_000)
def advances(text: str) -> tuple[float, ...]:
    """The width of each character, in heights of a capital."""
    font = ImageFont.load_default(100)
    ends = [font.getlength(text[: k + 1]) / (100 * CAPITAL) for k in range(len(text))]
    return tuple(end - start for start, end in zip([0.0, *ends], ends, strict=False))


def character_boxes(text: str, centre: tuple[float, float], height: float) -> list[tuple[str, Box]]:
    """The characters of a text drawn about `centre` with capitals `height` high, and where each stands."""
    widths = [advance * height for advance in advances(text)]
    left, top, found = centre[0] - sum(widths) / 2, centre[1] - height / 2, []
    for character, width in zip(text, widths, strict=True):
        found.append((character, Box(left, top, left + width, top + height)))
        left += width
    return found


# Views of a step: small ones at the scale of text, small ones at the scale of an overview, crops, overviews. Small views
# give several times the outlines and letters for the same time.
VIEWS = {"text": 24, "piece": 40, "crop": 10, "overview": 2}


def lesson(kind: str, key: str, environment: ZoomEnvironment) -> tuple[Scene, View]:
    """A scene and a view of it, of a kind in VIEWS."""
    random = Random(f"vision:{key}")
    count = (20, 40) if kind in ("piece", "overview") else (2, 6)
    scene = generate(f"vision:{key}", replace(Style(), count=count, label_lengths=(1, 2, 2, 3)))
    if kind == "overview":
        return scene, overview_of(scene)
    item = random.choice(scene.items)
    sign = bool(item.sign) and random.random() < 0.35
    target = item.sign_box if sign else item.box
    if kind == "crop":  # as the agent cuts them, a little off
        side = target.width * random.uniform(1.0, 1.5)
        cx, cy = (value + random.uniform(-0.2, 0.2) * side for value in target.center)
        return scene, environment.crop_view(Box(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2), scene.size)
    if kind == "piece":
        side = PIECE * (FULL.width / SHOWN) / 1.4 ** random.uniform(-1, 1)
    else:
        height = item.side * (SIGN_TEXT if sign else LABEL_HEIGHT)
        side = PIECE * height / (READABLE * (3.2 ** random.random()))
    cx, cy = (value + random.uniform(-0.3, 0.3) * side for value in target.center)
    x = min(max(0.0, cx - side / 2), scene.size.width - side)
    y = min(max(0.0, cy - side / 2), scene.size.height - side)
    return scene, View(scene.size, Box(x, y, x + side, y + side), Size(PIECE, PIECE))


@dataclass
class Lessons(IterableDataset[tuple[Tensor, Tensor, Targets]]):
    """The batches of a run: pixel values, grids and targets; drawn in a process beside the training."""

    start: int
    steps: int
    seed: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        environment = nano_environment()
        for step in range(self.start, self.steps):
            pairs = [
                lesson(kind, f"{self.seed}:{step}:{kind}:{k}", environment)
                for kind, count in VIEWS.items()
                for k in range(count)
            ]
            pixels = [patches_of(sketch(scene, view.region, view.shown_size)) for scene, view in pairs]
            sizes = [view.shown_size for _, view in pairs]
            grid = torch.tensor([(1, size.height // PATCH, size.width // PATCH) for size in sizes])
            yield torch.cat(pixels), grid, Targets.joined([targets_of(scene, view) for scene, view in pairs])


def patches_of(image: Image) -> Tensor:
    """What the image processor makes of an image on the grid: [patches, 3 * 2 * 14 * 14]; at a twentieth of its cost."""
    mean, deviation = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
    values = (np.asarray(image, np.float32) / 255 - mean) / deviation
    rows, columns = image.height // PATCH, image.width // PATCH
    grid = values.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3)
    frame = torch.from_numpy(merged_order(grid)).unsqueeze(2)
    return frame.expand(-1, -1, 2, -1, -1).flatten(1)


def loss_of(outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The parts of the loss; outputs: [patches, sum(HEAD)].

    Places are asked for loosely: taken at face value, a few large objects would drown all other gradients.
    """
    present, colour, kind, place, character, offset = outputs.split(HEAD, dim=1)
    rare = torch.ones(HEAD[4])
    rare[-1] = 0.05  # most patches bear no character
    return {
        "present": F.binary_cross_entropy_with_logits(present[:, 0], targets.present),
        "colour": _weighed(F.cross_entropy(colour, targets.colour, reduction="none"), targets),
        "kind": _weighed(F.cross_entropy(kind, targets.kind, reduction="none"), targets) * 2,
        "place": _weighed(_loosely(place, targets.place), targets),
        "character": F.cross_entropy(character, targets.character, weight=rare) * 2,
        "offset": _loosely(offset, targets.offset)[~targets.offset[:, 0].isnan()].mean(),
    }


def _weighed(losses: Tensor, targets: Targets) -> Tensor:
    return (losses * targets.weight).sum() / targets.weight.sum()


def _loosely(found: Tensor, wanted: Tensor) -> Tensor:
    """The loss of each patch; 0 where nothing is asked."""
    distances = F.smooth_l1_loss(found, wanted.nan_to_num().clamp(-2, 2), beta=0.3, reduction="none")
    return distances.mean(1) * ~wanted[:, 0].isnan()


def accuracy_of(outputs: Tensor, targets: Targets) -> dict[str, float]:
    """Shares that are right of what is asked; for places the mean error in shown pixels; small objects on their own."""
    present, colour, kind, place, character, _ = outputs.detach().split(HEAD, dim=1)
    there, read = targets.present > 0, (targets.character >= 0) & (targets.character < len(CHARACTERS))
    small = there & (targets.place[:, 2] < 0.5) & (targets.kind < len(SHAPES))
    right = kind.argmax(1) == targets.kind
    return {
        "present": ((present[:, 0] > 0) == there).float().mean().item(),
        "colour": (colour.argmax(1) == targets.colour)[targets.colour >= 0].float().mean().item(),
        "shape": right[there].float().mean().item(),
        "small": right[small].float().mean().item(),
        "place": (place - targets.place.clamp(-2, 2))[small][:, :2].abs().mean().item() * PATCH,
        "character": (character.argmax(1) == targets.character)[read].float().mean().item(),
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


def train(output: Path, *, steps: int, rate: float, seed: int) -> None:
    """Pretrain the vision tower of a random nano and write the whole model to `output`.

    A finished run is left as it is.
    """
    done = {"steps": steps, "rate": rate, "seed": seed}
    if is_finished(output / RECORD, done):
        return
    torch.manual_seed(seed)
    if not (output / STATE).exists():
        random_start(seed, output, qwen2_5_vl_chat_template)
    model = AutoModelForImageTextToText.from_pretrained(output, dtype=torch.float32)
    speed_up_vision(model)
    tower, head = model.model.visual.train(), nn.Linear(model.config.text_config.hidden_size, 4 * sum(HEAD))
    look_nearby(tower)
    whiten(tower.patch_embed.proj, next(iter(Lessons(0, 1, seed - 1)))[0])
    learner = nn.ModuleDict({"tower": tower, "head": head})
    optimiser = Optimiser(learner.parameters(), rate, steps)
    stateful = {"learner": learner, "optimiser": optimiser}
    start = restore(output / STATE, stateful, done)
    report = Report(steps, start, "vision")
    lessons = DataLoader(Lessons(start, steps, seed), batch_size=None, num_workers=1, prefetch_factor=4)
    for step, (pixels, grid, targets) in enumerate(report.track(lessons), start + 1):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = head(tower(pixels, grid_thw=grid).pooler_output)
        outputs = outputs.float().view(-1, sum(HEAD))
        torch.stack(list(loss_of(outputs, targets).values())).sum().backward()
        optimiser.step()
        report.add(accuracy_of(outputs, targets))
        if step % SAVE_EVERY == 0:
            keep(output / STATE, step, stateful, done)
    model.save_pretrained(output)
    write_atomic(output / RECORD, json.dumps(done) + "\n")
    (output / STATE).unlink(missing_ok=True)


STATE, RECORD = "vision-state.pt", "vision.json"


def main() -> None:
    given = options(__doc__, "output", steps=4200, rate=1.5e-3)
    train(given.output, steps=given.steps, rate=given.rate, seed=given.seed)


if __name__ == "__main__":
    explained("sft.nano.vision", main)
