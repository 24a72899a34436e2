"""Teaches nano's language model to find things among its image tokens: `python -m sft.nano.ground --model DIR --output DIR`.

Qwen2.5-VL gives a vision token no absolute position; the language model has to work it out from rotary phases, and then
to find the token that a name is about. Learned through the few coordinates that a conversation asks for, neither began
within hundreds of steps. Here lists of objects and boxes are learned, and on the way there each step is asked densely:
- image tokens, after the first two layers: your column and row, and the box, colour and shape of the object on you
  (answered by linear maps that are thrown away);
- the noun of each name, in the third layer: heads are to attend to the image tokens of what it names (the word-region
  matching of grounded pretraining, put on the attention itself);
- what comes before each coordinate, in the fourth layer: heads are to attend to the noun.
The same is done for reading, see `sft.nano.reading`, and for pointing at signs, see
`sft.nano.sign_pointing`.

With `--part 0.2` a model that has been grounded goes on: three of four lessons in reading and in signs are then about
overviews of such parts of scenes, in which what is asked about has to be told from the rest. With `--spot` such a model learns
the regions of Chain-of-Spot in place of signs, see `sft.nano.spotting`; every fourth step keeps up the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForImageTextToText

from cof_agent.backends.local.processor import load_processor
from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, View
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.nano.build import FAMILY, save
from cof_agent.output.files import write_atomic
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.scene import COLOURS, SHAPES, Item, Scene, generate
from cof_agent.training.command import explained
from sft.nano import reading, spotting
from sft.nano import sign_pointing as closer
from sft.nano.curriculum import LIST, SHOWN, listing, nano_environment, overview_of, style
from sft.nano.reading import CELL, HEADS, LAYERS
from sft.nano.stage import SAVE_EVERY, Optimiser, Report, is_finished, keep, options, restore
from sft.nano.vision import COLOUR_NAMES, patches_of

IMAGES = 8  # a step, all of one size
RASTER = range(0, SHOWN + oracle.SNAP, oracle.SNAP)
LISTED = 12  # objects of an image at most
ASKED = ("column", "row", "x0", "y0", "x1", "y1")


@dataclass
class Batch:
    """Overviews of one size with lists of their objects. -100 is nothing."""

    ids: Tensor  # [images, length]
    labels: Tensor  # [images, length]: ids where an assistant speaks
    image: slice  # where the image tokens stand
    patches: Tensor
    grid: Tensor
    numbers: Tensor  # [images x tokens, 6]: indices into RASTER, in the order of ASKED
    colour: Tensor
    shape: Tensor
    rows: Tensor  # [objects]: the image of each listed object
    nouns: Tensor  # [objects]: where its noun stands
    before: Tensor  # [objects, 4]: what stands before each coordinate
    places: Tensor  # [objects, tokens]: on which image tokens it lies
    boxes: Tensor  # [objects, 4]: indices into RASTER


@dataclass
class Lessons(IterableDataset[tuple[Batch | None, closer.Pointing | spotting.Spots, reading.Reading | None]]):
    """The batches of a run, drawn in a process beside the training; None where a step goes without."""

    processor: Any
    steps: int
    seed: int
    part: float = 1.0
    spot: bool = False
    start: int = 0

    def __iter__(self) -> Iterator[tuple[Batch | None, closer.Pointing | spotting.Spots, reading.Reading | None]]:
        environment = nano_environment()
        for step in range(self.start, self.steps):
            key, part = f"{self.seed}:{step}", self.part if step % 4 else 1.0
            if self.spot and step % 4:
                yield None, spotting.lesson(self.processor, key, environment, part), None
                continue
            pointing = spotting.lesson if self.spot else closer.lesson
            yield (
                self.lists(step),
                pointing(self.processor, key, environment, part),
                reading.lesson(self.processor, key, environment, part),
            )

    def lists(self, step: int) -> Batch:
        """Overviews of one size with lists of their objects; the same for a step."""
        random = Random(f"ground:{self.seed}:{step}")
        growth = min(1.0, max(0.0, random.uniform(-0.3, 1.6)))
        look = replace(style(growth), count=(3, 6) if growth < 0.2 else (10, 30))
        scenes = [generate(f"ground:{self.seed}:{step}:{k}", look) for k in range(IMAGES)]
        overview = overview_of(scenes[0])
        listed = [random.sample(scene.items, min(LISTED, len(scene.items))) for scene in scenes]
        drawn = [patches_of(sketch(scene, overview.region, overview.shown_size)) for scene in scenes]
        shown, patch = overview.shown_size, FAMILY.vision.patch
        grid = torch.tensor([(1, shown.height // patch, shown.width // patch)] * IMAGES)
        texts = [(LIST, listing(items, overview)) for items in listed]
        ids, labels, image = reading.encode(self.processor, texts, int(grid[0].prod()) // FAMILY.vision.merge**2)
        asked = [torch.tensor(questions(scene, overview)) for scene in scenes]
        numbers, colour, shape = torch.cat(asked).split((len(ASKED), 1, 1), dim=1)
        words = Words(self.processor.tokenizer)
        coordinates = torch.isin(labels, words.numbers).nonzero().view(-1, 4, 2)  # four in a row belong to an object
        rows, first = coordinates[:, 0, 0], coordinates[:, 0, 1]
        is_noun = torch.isin(ids, words.nouns)
        nouns = [int(is_noun[row, :end].nonzero().max()) for row, end in zip(rows, first, strict=True)]
        objects = [item for items in listed for item in items]
        return Batch(
            ids,
            labels,
            image,
            torch.cat(drawn),
            grid,
            numbers,
            colour[:, 0],
            shape[:, 0],
            rows,
            torch.tensor(nouns),
            coordinates[:, :, 1] - 1,
            torch.tensor([tokens_of(item, overview) for item in objects]),
            torch.tensor([steps_of(item, overview) for item in objects]),
        )


def questions(scene: Scene, overview: View) -> list[list[int]]:
    """For each image token, row by row: column, row, and box, colour and shape of the object on it."""
    columns, rows = overview.shown_size.width // CELL, overview.shown_size.height // CELL
    asked = [[_step(column * CELL), _step(row * CELL), *[-100] * 6] for row in range(rows) for column in range(columns)]
    for item in sorted(scene.items, key=lambda item: -item.side):  # of two on one token the smaller one counts
        known = [*steps_of(item, overview), COLOUR_NAMES.index(item.colour), SHAPES.index(item.shape)]
        for token, there in zip(asked, tokens_of(item, overview), strict=True):
            if there:
                token[2:] = known
    return asked


def tokens_of(item: Item, overview: View) -> list[bool]:
    """On which image tokens, row by row, an object lies: those of which it takes a third of the side, or it lies half on."""
    columns, rows = overview.shown_size.width // CELL, overview.shown_size.height // CELL
    seen = overview.from_source(item.box, CoordinateSystem.ABSOLUTE)
    least = min(CELL / 3, 0.45 * seen.width)

    def across(low: float, high: float, count: int) -> list[bool]:
        return [min((k + 1) * CELL, high) - max(k * CELL, low) > least for k in range(count)]

    in_columns = across(seen.x0, seen.x1, columns)
    return [down and along for down in across(seen.y0, seen.y1, rows) for along in in_columns]


def steps_of(item: Item, overview: View) -> list[int]:
    """The box that points at an object, as indices into RASTER."""
    return [_step(value) for value in oracle.pointing_box(overview, item.box, CoordinateSystem.ABSOLUTE)]


def _step(value: float) -> int:
    return min(len(RASTER) - 1, round(value / oracle.SNAP))


class Words:
    """Token ids of the numbers of RASTER, of colours and shapes behind a space, and of shapes anywhere."""

    def __init__(self, tokenizer: Any) -> None:
        def ids(texts: list[str]) -> Tensor:
            return torch.tensor([tokenizer.encode(text, add_special_tokens=False)[0] for text in texts])

        self.numbers = ids([f"{number}," for number in RASTER])
        self.colours, self.shapes = ids([f" {name}" for name in COLOURS]), ids([f" {name}" for name in SHAPES])
        self.nouns = torch.cat([self.shapes, ids(list(SHAPES))])


class Maps(nn.Module):
    """States of image tokens -> logits; numbers through the embeddings of their own tokens. Colours and shapes are read
    off as they are: an image token is to look like the words for what is on it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.numbers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in ASKED)

    def forward(self, seen: Tensor, words: Words, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        numbers = torch.stack([one(seen) @ embeddings[words.numbers].T for one in self.numbers], dim=1)
        return numbers, seen @ embeddings[words.colours].T, seen @ embeddings[words.shapes].T


@torch.no_grad()
def look_for_alike(text: nn.Module) -> None:
    """Start attention above the first layers on tokens that resemble the one that looks: keys as queries."""
    for layer in list(text.layers)[LAYERS:]:  # type: ignore[arg-type]
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


@torch.no_grad()
def look_back(text: Any) -> None:
    """Start the last head of the first layer on the token before, by biases alone (see `vision.look_nearby`): what a
    noun means here depends on the adjective in front of it."""
    attention, size = text.layers[0].self_attn, text.layers[0].self_attn.head_dim
    frequencies = text.rotary_emb.inv_freq[:8]
    pairs = len(frequencies)
    for bias, angles in ((attention.q_proj.bias, -frequencies), (attention.k_proj.bias, torch.zeros(pairs))):
        head = bias[-size:]
        head[:pairs], head[size // 2 : size // 2 + pairs] = 5 * angles.cos(), 5 * angles.sin()


def train(
    model_dir: Path, output: Path, *, steps: int, rate: float, seed: int, part: float = 1.0, spot: bool = False
) -> None:
    """Train the language model of `model_dir`, and its vision tower slowly; a finished run is left as it is. part: of scenes,
    for a model that goes on; 1 for one that begins. spot: for a model that goes on, regions in place of signs.

    Raises:
        InputError: if `model_dir` holds no model, or `output` a run with other settings.
    """
    done = {
        "model": NANO if model_dir == WEIGHTS else str(model_dir),
        "steps": steps,
        "rate": rate,
        "seed": seed,
        "part": part,
        "spot": spot,
    }
    if is_finished(output / RECORD, done):
        return
    if not (model_dir / "model.safetensors").exists():
        raise InputError(f"{model_dir} holds no model.safetensors; run sft.nano.vision first.")
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    processor = load_processor(str(model_dir))
    speed_up_vision(model)
    text, tower, tokenizer = model.model.language_model, model.model.visual, processor.tokenizer
    if part == 1 and not spot:
        look_for_alike(text)
        look_back(text)
    maps, words = Maps(text.config.hidden_size), Words(tokenizer)
    learner = nn.ModuleDict({"text": text, "maps": maps, "tower": tower})
    groups = [{"params": part.parameters(), "lr": rate * (TOWER if part is tower else 1)} for part in learner.values()]
    optimiser = Optimiser(groups, rate, steps)
    stateful = {"learner": learner, "optimiser": optimiser}
    start = restore(output / STATE, stateful, done)
    report = Report(steps, start, "ground")
    lessons = Lessons(processor, steps, seed, part, spot, start)
    batches = report.track(DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=4))
    for step, (batch, pointing, crops) in enumerate(batches, start + 1):
        tower.requires_grad_(False)
        shares: dict[str, float] = {}
        if batch is not None:
            loss, shares = loss_of(model, maps, words, batch)
            loss.backward()
        loss, points = (
            spotting.loss_of(model, pointing)
            if isinstance(pointing, spotting.Spots)
            else closer.loss_of(model, pointing)
        )
        loss.backward()
        tower.requires_grad_(True)  # over crops alone: characters are what it knows least, and crops are small
        if crops is not None:
            loss, reads = reading.loss_of(model, crops)
            loss.backward()
            points |= reads
        optimiser.step()
        report.add(shares | points)
        if step % SAVE_EVERY == 0:
            keep(output / STATE, step, stateful, done)
    save(model, tokenizer, output)
    write_atomic(output / RECORD, json.dumps(done) + "\n")
    (output / STATE).unlink(missing_ok=True)


TOWER = 0.1  # of the learning rate, for the vision tower
STATE, RECORD = "ground-state.pt", "ground.json"


def loss_of(model: Any, maps: Maps, words: Words, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The loss of lists, and what `_accuracy` tells."""
    text = model.model.language_model
    with torch.autocast("cpu", torch.bfloat16):
        read = reading.forward(model, batch.ids, batch.patches, batch.grid)
        seen = text.norm(read.hidden_states[LAYERS])[:, batch.image].flatten(0, 1)
        numbers, colour, shape = (part.float() for part in maps(seen, words, text.embed_tokens.weight))
        logits = model.lm_head(read.last_hidden_state[:, :-1]).float()
    on_object, on_noun = _looks(read.attentions, batch)
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels[:, 1:]) * 3
    loss = loss - on_object.clamp(min=1e-6).log().mean() - on_noun.clamp(min=1e-6).log().mean()
    loss = loss + F.cross_entropy(numbers.transpose(1, 2), batch.numbers) * 2
    loss = loss + F.cross_entropy(colour, batch.colour) + F.cross_entropy(shape, batch.shape)
    guessed = logits.detach()[batch.rows[:, None], batch.before][:, :, words.numbers].argmax(-1)
    return loss, _accuracy(numbers.detach(), guessed, on_object.detach(), on_noun.detach(), batch)


def _looks(attentions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The attention of nouns on their objects, [objects, HEADS], and of coordinates on their nouns, [objects, HEADS, 4]."""
    rows = batch.rows
    of_nouns = attentions[LAYERS][rows, :HEADS, batch.nouns][:, :, batch.image].float()
    of_numbers = attentions[LAYERS + 1][rows[:, None], :HEADS, batch.before, batch.nouns[:, None]].float()
    return (of_nouns * batch.places[:, None]).sum(-1), of_numbers.transpose(1, 2)


def _accuracy(numbers: Tensor, guessed: Tensor, on_object: Tensor, on_noun: Tensor, batch: Batch) -> dict[str, float]:
    """Shares of columns and rows that are right, mean error of boxes on image tokens in shown pixels; how much attention
    falls where it is to; and shares of corners x0 and y0 that are guessed to 8 shown pixels."""
    found, there = numbers.argmax(2), batch.shape >= 0
    right = found == batch.numbers
    near = (guessed - batch.boxes).abs() * oracle.SNAP <= 8
    return {
        "column": right[:, 0].float().mean().item(),
        "row": right[:, 1].float().mean().item(),
        "box error": (found - batch.numbers)[there][:, 2:].abs().float().mean().item() * oracle.SNAP,
        "on object": on_object.mean().item(),
        "on noun": on_noun.mean().item(),
        "x0": near[:, 0].float().mean().item(),
        "y0": near[:, 1].float().mean().item(),
    }


def main() -> None:
    given = options(__doc__, "model", "output", flags=["spot"], steps=1000, rate=2e-3, part=1.0)
    model = WEIGHTS if str(given.model) == NANO else given.model
    train(model, given.output, steps=given.steps, rate=given.rate, seed=given.seed, part=given.part, spot=given.spot)


if __name__ == "__main__":
    explained("sft.nano.ground", main)
