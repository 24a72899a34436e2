"""Teaches nano to tell regions apart, for `sft.papers.gpt4roi`: `python -m sft.papers.region_lessons --model DIR --output OUT`.

From conversations alone nano names what is at a region, but it never learned which of two has a colour. So, as in
`sft.nano.ground`, each step on the way is asked for:
- the slot of a region, after the first two layers: to look like the words for the colour and the shape that are there;
- the noun of "The red object is region 2", in the third layer: heads are to attend to the slot of that region;
- what comes before that number, in the fourth layer: heads are to attend to the noun;
- of a label, what comes before each of its characters: to attend to the noun, and to the image tokens that show it;
- the slot of a region, in the third layer: to attend to the image tokens of what is there, as nouns do; these know its box;
- of a zoom, what comes before each number of its box, in the fourth layer: to attend to the slot of the region.
Every second step also lists objects with their boxes, as in `sft.nano.ground`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cof_agent.backends.local.vision import speed_up_vision
from cof_agent.backends.regions.features import SLOT, with_regions
from cof_agent.data.region_sets import drawn
from cof_agent.geometry import CoordinateSystem, View
from cof_agent.nano.build import FAMILY, save
from cof_agent.output.files import write_atomic
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.scene import COLOURS, SHAPES, Item, Scene
from cof_agent.training.command import explained
from cof_agent.trajectory import Sample
from sft.collate import IGNORED
from sft.nano import ground
from sft.nano.curriculum import nano_environment
from sft.nano.ground import RASTER, tokens_of
from sft.nano.reading import HEADS, LAYERS, characters_of, tokens_in
from sft.nano.stage import SAVE_EVERY, Optimiser, Report, is_finished, keep, options, restore
from sft.nano.vision import CHARACTERS
from sft.papers.gpt4roi import RegionCollator, row_of

CONVERSATIONS = 8  # a step
ASKED = 2  # times that the kinds of questions are asked in each
STATE, RECORD = "regions-state.pt", "regions.json"


@dataclass
class Looks:
    """Where attention is to go in one layer: from `at` of a conversation to `to`, or to image tokens."""

    rows: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    to: list[int] = field(default_factory=list)

    def add(self, row: int, at: int, to: int) -> None:
        self.rows.append(row)
        self.at.append(at)
        self.to.append(to)

    def shares(self, attention: Tensor) -> Tensor:
        """[looks, HEADS]: how much of a layer's attention, [conversations, heads, length, length], goes there."""
        return attention[self.rows, :HEADS, self.at, self.to].float()


@dataclass
class Regions:
    """Conversations about overviews of one size, each with several regions."""

    inputs: dict[str, Tensor]
    labels: Tensor  # [conversations, length]
    image: slice  # where the image tokens stand
    slots: list[tuple[int, int]]  # the conversation and the place of each region
    items: list[Item]  # what is there
    nouns: Looks = field(default_factory=Looks)  # from the noun to the slot
    numbers: Looks = field(default_factory=Looks)  # from before the region's number to the noun
    names: Looks = field(default_factory=Looks)  # from before a character to the noun
    letters: Looks = field(default_factory=Looks)  # from before a character; `to` is not used
    places: list[list[bool]] = field(default_factory=list)  # of each letter: on which image tokens it is seen
    edges: Looks = field(default_factory=Looks)  # from before a number of a box to the slot
    grounds: list[list[bool]] = field(default_factory=list)  # of each slot: on which image tokens the object is seen


@dataclass
class Lessons(IterableDataset[tuple[Regions, ground.Batch | None]]):
    """The batches of a run, drawn in a process beside the training; every second one comes with lists of objects, so that nano
    does not forget what image tokens know of boxes."""

    processor: Any
    steps: int
    seed: int
    start: int = 0

    def __iter__(self) -> Iterator[tuple[Regions, ground.Batch | None]]:
        lists = ground.Lessons(self.processor, self.steps, self.seed)
        for step in range(self.start, self.steps):
            yield lesson(self.processor, f"{self.seed}:{step}"), None if step % 2 else lists.lists(step)


def lesson(processor: Any, key: str) -> Regions:
    """CONVERSATIONS conversations about drawn scenes; the same for a key."""
    environment, rows, asked, views = nano_environment(), [], [], []
    for number in range(CONVERSATIONS):
        scene = drawn.scene_of(f"lesson:{key}:{number}")
        view = environment.overview(scene.size)
        samples = []
        for time in (f"{key}:{number}:{time}" for time in range(ASKED)):
            samples += [*drawn.samples_of(scene, time), drawn.show_of(scene, time)]
        Random(f"order:{key}:{number}").shuffle(samples)
        image = sketch(scene, view.region, view.shown_size)
        rows.append(row_of(samples, view, image, CoordinateSystem.ABSOLUTE, as_text=False))
        asked.append((scene, samples))
        views.append(view)
    inputs = RegionCollator(processor, FAMILY.markers)(rows)
    return _marked(processor, inputs, asked, views)


def _marked(
    processor: Any, inputs: dict[str, Tensor], asked: Sequence[tuple[Scene, Sequence[Sample]]], views: Sequence[View]
) -> Regions:
    labels, ids, words = inputs.pop("labels"), inputs["input_ids"], Words(processor.tokenizer)
    image = (ids[0] == processor.tokenizer.convert_tokens_to_ids(processor.image_token)).nonzero()
    slots = [(int(row), int(at)) for row, at in (ids == words.slot).nonzero()]
    items = [_item(scene, box) for scene, samples in asked for sample in samples for box in sample.regions]
    made = Regions(inputs, labels, slice(int(image[0]), int(image[-1]) + 1), slots, items)
    made.grounds = [tokens_of(item, views[row]) for (row, _), item in zip(slots, items, strict=True)]
    for row, ((scene, samples), view) in enumerate(zip(asked, views, strict=True)):
        own = iter([at for of, at in slots if of == row])
        for sample, (start, end) in zip(samples, _spans(labels[row]), strict=True):
            there = [next(own) for _ in sample.regions]
            reply = range(start, end)
            if sample.metadata["category"] in (drawn.WHICH, drawn.WHICH_OF_THREE):
                _mark_which(made, row, ids[row].tolist(), reply, there, sample, words)
            elif sample.metadata["category"] == "label":
                item = _item(scene, sample.regions[0])
                _mark_label(made, row, ids[row].tolist(), reply, item, view, words)
            elif sample.metadata["category"] == drawn.SHOW:
                for at in (at for at in reply if int(ids[row, at]) in words.raster):
                    made.edges.add(row, at - 1, there[0])
    return made


def _spans(labels: Tensor) -> list[tuple[int, int]]:
    """Where the assistant speaks in one conversation: the first place of each reply, and the one after its last."""
    said = (labels != IGNORED).int()
    change = torch.diff(said, prepend=said.new_zeros(1), append=said.new_zeros(1))
    starts, ends = ((change == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))


def _item(scene: Scene, box: Any) -> Item:
    return next(item for item in scene.items if tuple(item.box) == tuple(box))


class Words:
    """Token ids: of the slot, of colours and shapes behind a space, of nouns, digits, characters, and the numbers of a box."""

    def __init__(self, tokenizer: Any) -> None:
        def ids(texts: Sequence[str]) -> list[int]:
            return [tokenizer.encode(text, add_special_tokens=False)[0] for text in texts]

        self.slot = int(tokenizer.convert_tokens_to_ids(SLOT))
        self.colours, self.shapes = (torch.tensor(ids([f" {name}" for name in names])) for names in (COLOURS, SHAPES))
        self.nouns = set(ids([f" {name}" for name in (*SHAPES, "object")]))
        self.digits = set(ids(["1", "2", "3"]))
        self.characters = set(ids(CHARACTERS))
        self.steps = torch.tensor(ids([f"{number}," for number in RASTER]))
        self.raster = set(self.steps.tolist())


def _mark_which(
    made: Regions, row: int, ids: list[int], reply: range, slots: Sequence[int], sample: Sample, words: Words
) -> None:
    """The thought is "The red object is region 2.", the answer "region 2"."""
    noun = next(at for at in reply if ids[at] in words.nouns)
    made.nouns.add(row, noun, slots[int(sample.answers[0][-1]) - 1])
    for at in reply:
        if ids[at] in words.digits:
            made.numbers.add(row, at - 1, noun)


def _mark_label(made: Regions, row: int, ids: list[int], reply: range, item: Item, view: View, words: Words) -> None:
    """The thought names the object, the answer is its label."""
    noun = [at for at in reply if ids[at] in words.nouns][-1]
    said = [at for at in reply if at > noun and ids[at] in words.characters][-len(item.label) :]
    for at, (_, box) in zip(said, characters_of(item, False, view), strict=True):
        made.names.add(row, at - 1, noun)
        made.letters.add(row, at - 1, 0)
        made.places.append(tokens_in(box, view.shown_size))


def loss_of(model: Any, words: Words, batch: Regions) -> tuple[Tensor, dict[str, float]]:
    """The loss, and shares: of slots whose colour is right, of attention that falls where it should, of numbers and characters
    that are right when all words before them are the true ones, and of edges of boxes that are right to 8 shown pixels then."""
    text = model.model.language_model
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(**batch.inputs, use_cache=False, output_attentions=True, output_hidden_states=True)
        rows, at = (list(part) for part in zip(*batch.slots, strict=True))
        seen = text.norm(output.hidden_states[LAYERS][rows, at])
        likeness = [(seen @ text.embed_tokens.weight[ids].T).float() for ids in (words.colours, words.shapes)]
        logits = model.lm_head(output.last_hidden_state[:, :-1]).float()
    low, high = output.attentions[LAYERS], output.attentions[LAYERS + 1]
    looks = {
        "on slot": batch.nouns.shares(low),
        "on noun": batch.numbers.shares(high),
        "on name": batch.names.shares(low),
        "on object": _on_image(low, rows, at, batch.image, batch.grounds),
        "on place": batch.edges.shares(high),
        "on char": _on_image(high, batch.letters.rows, batch.letters.at, batch.image, batch.places),
    }
    colours = torch.tensor([list(COLOURS).index(item.colour) for item in batch.items])
    shapes = torch.tensor([list(SHAPES).index(item.shape) for item in batch.items])
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels[:, 1:], ignore_index=IGNORED) * 3
    loss = loss + F.cross_entropy(likeness[0], colours) + F.cross_entropy(likeness[1], shapes)
    for share in looks.values():
        if share.numel():
            loss = loss - share.clamp(min=1e-6).log().mean()
    right = logits.detach().argmax(-1) == batch.inputs["input_ids"][:, 1:]
    told = (likeness[0].detach().argmax(1) == colours).float().mean().item()
    shares = {"colour": told} | {name: share.detach().mean().item() for name, share in looks.items() if share.numel()}
    for name, asked in (("number", batch.numbers), ("read", batch.letters)):
        if asked.at:
            shares[name] = right[asked.rows, asked.at].float().mean().item()
    if batch.edges.at:
        guessed = logits.detach()[batch.edges.rows, batch.edges.at][:, words.steps].argmax(1)
        true = (
            (batch.inputs["input_ids"][:, 1:][batch.edges.rows, batch.edges.at][:, None] == words.steps).int().argmax(1)
        )
        shares["edge"] = ((guessed - true).abs() * oracle.SNAP <= 8).float().mean().item()
    return loss, shares


def _on_image(
    attention: Tensor, rows: Sequence[int], at: Sequence[int], image: slice, places: Sequence[Sequence[bool]]
) -> Tensor:
    """[looks, HEADS]: how much of a layer's attention goes from these tokens to the image tokens of their `places`."""
    return (attention[rows, :HEADS, at][:, :, image].float() * torch.tensor(places)[:, None]).sum(-1)


def train(model_dir: str, output: Path, *, steps: int, rate: float, seed: int) -> None:
    """Train all of a region model but its vision tower; a finished run is left as it is.

    Raises:
        InputError: if there is no such model, or `output` holds a run with other settings.
    """
    done = {"model": model_dir, "steps": steps, "rate": rate, "seed": seed}
    if is_finished(output / RECORD, done):
        return
    model, processor = with_regions(model_dir, seed=seed, dtype=torch.float32, attn_implementation="eager")
    speed_up_vision(model)
    model.model.visual.requires_grad_(False)
    torch.manual_seed(seed)
    maps, numbers = ground.Maps(model.config.text_config.hidden_size), ground.Words(processor.tokenizer)
    learned = [part for part in (*model.parameters(), *maps.parameters()) if part.requires_grad]
    optimiser = Optimiser(learned, rate, steps)
    stateful = {"model": model, "maps": maps, "optimiser": optimiser}
    start = restore(output / STATE, stateful, done)
    report, words = Report(steps, start, "regions"), Words(processor.tokenizer)
    lessons = DataLoader(Lessons(processor, steps, seed, start), batch_size=None, num_workers=1, prefetch_factor=4)
    for step, (batch, lists) in enumerate(report.track(lessons), start + 1):
        loss, shares = loss_of(model, words, batch)
        loss.backward()
        if lists is not None:
            loss, listed = ground.loss_of(model, maps, numbers, lists)
            loss.backward()
            shares["listed"] = (listed["x0"] + listed["y0"]) / 2
        optimiser.step()
        report.add(shares)
        if step % SAVE_EVERY == 0:
            keep(output / STATE, step, stateful, done)
    save(model, processor.tokenizer, output)
    write_atomic(output / RECORD, json.dumps(done) + "\n")
    (output / STATE).unlink(missing_ok=True)


def main() -> None:
    given = options(__doc__, "model", "output", steps=1000, rate=1e-3)
    train(str(given.model), given.output, steps=given.steps, rate=given.rate, seed=given.seed)


if __name__ == "__main__":
    explained("sft.papers.region_lessons", main)
