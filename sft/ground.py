"""Teaches nano's language model to find things among its image tokens: `python -m sft.ground --model DIR --output DIR`.

Qwen2.5-VL gives a vision token no absolute position; the language model has to work it out from rotary phases, and then
to find the token that a name is about. Learned through the few coordinates that a conversation asks for, neither began
within hundreds of steps. Here both are asked densely:
- every image token, after the first two layers: your column and row, and the box, colour and shape of the object on you;
- every name in a list behind the image: in the third layer, heads are to attend to what it names (the word-region
  matching of grounded pretraining, put on the attention itself); after the last one, its box.
The linear maps that answer are thrown away.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset
from transformers import AutoModelForImageTextToText

from cof_agent import protocol
from cof_agent.backends.cpu import speed_up_vision
from cof_agent.backends.processor import load_processor
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, View
from cof_agent.nano.build import save
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.scene import COLOURS, SHAPES, Item, Scene, generate
from cof_agent.trajectory import write_atomic
from sft.curriculum import SHOWN, overview_of, style
from sft.vision import COLOUR_NAMES, Report, one_cycle, patches_of

LAYERS = 2
IMAGES = 8  # a step, all of one size
CELL = 28  # shown pixels of an image token
RASTER = range(0, SHOWN + oracle.SNAP, oracle.SNAP)
NAMES = 10  # an image, drawn with replacement
POINTING = 2  # heads of the layer above LAYERS that are to attend to what a name means
ASKED = ("column", "row", "x0", "y0", "x1", "y1")


@dataclass
class Batch:
    """Overviews of one size: their patches and grid, what each image token [images x tokens] is asked; -100 is nothing."""

    patches: Tensor
    grid: Tensor
    numbers: Tensor  # [images x tokens, 6]: indices into RASTER, in the order of ASKED
    colour: Tensor
    shape: Tensor
    names: list[list[str]]  # NAMES of each image
    boxes: Tensor  # [images x NAMES, 4]: indices into RASTER
    places: Tensor  # [images, NAMES, tokens]: on which image tokens the named object lies


@dataclass
class Overviews(IterableDataset[Batch]):
    """The batches of a run, drawn in a process beside the training."""

    steps: int
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            random = Random(f"ground:{self.seed}:{step}")
            growth = min(1.0, max(0.0, random.uniform(-0.3, 1.6)))
            look = replace(style(growth), count=(3, 6) if growth < 0.2 else (10, 30))
            scenes = [generate(f"ground:{self.seed}:{step}:{k}", look) for k in range(IMAGES)]
            views = [overview_of(scene) for scene in scenes]
            pairs = list(zip(scenes, views, strict=True))
            rows, columns = views[0].shown_size.height // 14, views[0].shown_size.width // 14
            drawn = [patches_of(sketch(scene, view.region, view.shown_size)) for scene, view in pairs]
            asked = [torch.tensor(questions(scene, view)) for scene, view in pairs]
            numbers, colour, shape = torch.cat(asked).split((len(ASKED), 1, 1), dim=1)
            grid = torch.tensor([(1, rows, columns)] * IMAGES)
            named = [[random.choice(scene.items) for _ in range(NAMES)] for scene in scenes]
            boxes = [steps_of(item, views[0]) for items in named for item in items]
            places = torch.stack([torch.tensor([tokens_of(item, views[0]) for item in items]) for items in named])
            names = [[item.name for item in items] for items in named]
            yield Batch(torch.cat(drawn), grid, numbers, colour[:, 0], shape[:, 0], names, torch.tensor(boxes), places)


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
    """The embeddings of numbers, colours and shapes, [words, width] each."""

    def __init__(self, tokenizer: Any, embeddings: nn.Embedding) -> None:
        def of(texts: list[str]) -> Tensor:
            first = [tokenizer.encode(text, add_special_tokens=False)[0] for text in texts]
            return embeddings.weight[torch.tensor(first)]

        self.numbers = of([f"{number}," for number in RASTER])
        self.colours = of([f" {colour}" for colour in COLOURS])
        self.shapes = of([f" {shape}" for shape in SHAPES])


class Heads(nn.Module):
    """Hidden states of image tokens -> logits; numbers through the embeddings of their own tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.numbers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in ASKED)
        self.found = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in ASKED[2:])

    def forward(self, seen: Tensor, named: Tensor, words: Words) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Colours and shapes are read off as they are: an image token is to look like the words for what is on it."""
        numbers = torch.stack([head(seen) @ words.numbers.T for head in self.numbers], dim=1)
        boxes = torch.stack([head(named) @ words.numbers.T for head in self.found], dim=1)
        return numbers, seen @ words.colours.T, seen @ words.shapes.T, boxes


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


def train(model_dir: Path, output: Path, *, steps: int, rate: float, seed: int) -> None:
    """Train the first layers of the language model of `model_dir`; a finished run is left as it is.

    Raises:
        InputError: if `model_dir` holds no model.
    """
    if (output / RECORD).exists():
        return
    if not (model_dir / "model.safetensors").exists():
        raise InputError(f"{model_dir} holds no model.safetensors; run sft.vision first.")
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    processor = load_processor(str(model_dir))
    speed_up_vision(model)
    text, tower, tokenizer = model.model.language_model, model.model.visual, processor.tokenizer
    tower.requires_grad_(False)
    look_for_alike(text)
    look_back(text)
    heads = Heads(text.config.hidden_size)
    learner = nn.ModuleDict({"text": text, "heads": heads})
    optimiser = torch.optim.AdamW(learner.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / steps))
    report = Report(steps, 0, "ground")
    for batch in DataLoader(Overviews(steps, seed), batch_size=None, num_workers=1, prefetch_factor=4):
        with torch.autocast("cpu", torch.bfloat16):
            seen, named, looked = _states(model, processor, batch)
            outputs = heads(seen, named, Words(tokenizer, text.embed_tokens))
        numbers, colour, shape, boxes = (part.float() for part in outputs)
        loss = F.cross_entropy(numbers.transpose(1, 2), batch.numbers) * 2
        loss = loss + F.cross_entropy(boxes.transpose(1, 2), batch.boxes) * 2
        on_target = (looked * batch.places[:, None]).sum(-1)  # [images, heads, names]
        loss = loss - on_target.clamp(min=1e-6).log().mean()
        loss = loss + F.cross_entropy(colour, batch.colour) + F.cross_entropy(shape, batch.shape)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        report.add(_accuracy(numbers.detach(), boxes.detach(), on_target.detach(), batch))
    save(model, tokenizer, output)
    write_atomic(output / RECORD, json.dumps({"steps": steps, "rate": rate, "seed": seed}) + "\n")


RECORD = "ground.json"


def _states(model: Any, processor: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What the model makes of the images and NAMES names behind them, in the usual opening of a conversation.

    Returns the states of the image tokens after LAYERS layers, [images x tokens, width]; those of the last token of each
    name after all, [images x NAMES, width]; and how these attend to the image tokens, [images, POINTING, NAMES, tokens].
    """
    tokenizer, image_token = processor.tokenizer, model.config.image_token_id
    opening = [
        {"role": "system", "content": [{"type": "text", "text": protocol.system_prompt(CoordinateSystem.ABSOLUTE)}]},
        {"role": "user", "content": [{"type": "image"}]},
    ]
    text = processor.apply_chat_template(opening, tokenize=False)
    before = tokenizer.encode(text.split(processor.image_token)[0], add_special_tokens=False)
    tokens = int(batch.grid[0].prod()) // 4
    end = tokenizer.convert_tokens_to_ids("<|vision_end|>")
    lists = [tokenizer.encode("".join(f" {name}" for name in names), add_special_tokens=False) for names in batch.names]
    ids = torch.tensor([[*before, *[image_token] * tokens, end, *names] for names in lists])
    output = model.model(
        input_ids=ids,
        pixel_values=batch.patches,
        image_grid_thw=batch.grid,
        mm_token_type_ids=(ids == image_token).int(),
        use_cache=False,
        output_hidden_states=True,
        output_attentions=True,
    )
    image = slice(len(before), len(before) + tokens)
    last = slice(image.stop + 2, None, 2)  # a name is two tokens, colour and shape
    seen = model.model.language_model.norm(output.hidden_states[LAYERS])[:, image]
    looked = output.attentions[LAYERS][:, :POINTING, last, image].float()
    return seen.flatten(0, 1), output.last_hidden_state[:, last].flatten(0, 1), looked


def _accuracy(numbers: Tensor, boxes: Tensor, on_target: Tensor, batch: Batch) -> dict[str, float]:
    """Shares of columns, rows and boxes of names (all edges within 8 shown pixels) that are right; mean error of boxes
    on image tokens in shown pixels; the attention that falls on what is named."""
    found, there = numbers.argmax(2), batch.shape >= 0
    right = found == batch.numbers
    error = (found - batch.numbers)[there][:, 2:].abs().float().mean() * oracle.SNAP
    return {
        "column": right[:, 0].float().mean().item(),
        "row": right[:, 1].float().mean().item(),
        "box error": error.item(),
        "attention": on_target.mean().item(),
        "found": ((boxes.argmax(2) - batch.boxes).abs() * oracle.SNAP <= 8).all(1).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        train(options.model, options.output, steps=options.steps, rate=options.rate, seed=options.seed)
    except InputError as error:
        sys.exit(f"sft.ground: {error}")


if __name__ == "__main__":
    main()
