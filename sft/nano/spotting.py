"""Lessons in the first turn of Chain-of-Spot for `sft.nano.ground`: questions about an overview, each answered with a region.

The model does not think first: the region follows the question at once, in digits of fractions, which nano has never written
before. So the nouns of a question are taught to attend to the image tokens of what they name, and what comes before each digit
to attend to the nouns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import CoordinateSystem, View
from cof_agent.nano.build import FAMILY
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.scene import SHAPES, Style, generate, part_of
from cof_agent.strategies.spot import protocol as spot
from cof_agent.trajectory import Sample
from sft.collate import IGNORED, AssistantCollator
from sft.dataset import to_row
from sft.nano.curriculum import WEIGHTS, overview_of, samples_about
from sft.nano.reading import HEADS, LAYERS, tokens_in

CONVERSATIONS = 8  # a step
QUESTIONS = 4  # of a conversation
NOUNS = tuple(f" {noun}" for noun in (*SHAPES, "object"))


@dataclass
class Spots:
    """Conversations about overviews of one size, with regions for replies."""

    inputs: dict[str, Tensor]
    labels: Tensor  # [conversations, length]
    image: slice  # where the image tokens stand
    rows: Tensor  # [nouns]: the conversation of each noun
    nouns: Tensor  # [nouns]: where it stands
    places: Tensor  # [nouns, tokens]: on which image tokens it is seen
    lines: Tensor  # [digits]: the conversation of each digit
    before: Tensor  # [digits]: what stands before it
    asked: Tensor  # [digits, 2]: where the first and the last noun of its question stand


def lesson(processor: Any, key: str, _environment: ZoomEnvironment, part: float = 1.0) -> Spots:
    """CONVERSATIONS conversations about scenes, or about such parts of scenes; the same for a key."""
    rows, places = [], []
    for number in range(CONVERSATIONS):
        scene = generate(f"spotting:{key}:{number}", part_of(Style(), part))
        overview = overview_of(scene, part=part)
        made = samples_about(scene, overview, Random(f"asked:{key}:{number}"), weights=WEIGHTS, most=QUESTIONS)
        samples = [replace(sample, choices=()) for sample in made]
        rows.append(to_row(_messages(samples, overview), [sketch(scene, overview.region, overview.shown_size)]))
        places.append([_places(sample, overview) for sample in samples])
    return _batch(processor, rows, places)


def _messages(samples: Sequence[Sample], overview: View) -> list[protocol.Message]:
    messages: list[protocol.Message] = []
    for sample in samples:
        region = oracle.pointing_box(overview, oracle.region(sample, overview), spot.SYSTEM)
        messages.append(spot.ask_region(sample, None if messages else 0))
        messages.append(protocol.assistant(spot.write_region(region)))
    return messages


def _places(sample: Sample, overview: View) -> list[list[bool]]:
    """For each noun of the question, in order, the image tokens of what it names."""
    seen = [overview.from_source(look.boxes[0], CoordinateSystem.ABSOLUTE) for look in oracle.looks(sample)]
    return [tokens_in(box, overview.shown_size) for box in seen]


def _batch(processor: Any, conversations: list[dict[str, Any]], asked: list[list[list[list[bool]]]]) -> Spots:
    """asked: for each conversation and question, what `_places` tells."""
    inputs = AssistantCollator(processor, FAMILY.markers)(conversations)
    labels, tokenizer = inputs.pop("labels"), processor.tokenizer
    nouns = {tokenizer.encode(noun, add_special_tokens=False)[0] for noun in NOUNS}
    named: list[tuple[int, int]] = []
    digits: list[tuple[int, int, int, int]] = []
    for row, questions in enumerate(asked):
        ids, said = inputs["input_ids"][row].tolist(), (labels[row] != IGNORED).tolist()
        held: list[int] = []
        waiting = iter(questions)
        for at in range(1, len(ids)):
            if said[at] and not said[at - 1]:  # a reply begins
                held = held[-len(next(waiting)) :]  # before them the instruction names a square
                named += [(row, noun) for noun in held]
            if said[at] and tokenizer.decode(ids[at]).isdecimal() and tokenizer.decode(ids[at - 1]) not in "[, ":
                digits.append((row, at - 1, held[0], held[-1]))
            if not said[at] and ids[at] in nouns:
                held.append(at)
    image = (inputs["input_ids"][0] == tokenizer.convert_tokens_to_ids(processor.image_token)).nonzero()
    places = torch.tensor([there for questions in asked for question in questions for there in question])
    rows, at_nouns = torch.tensor(named).unbind(1)
    lines, before, *nouns_asked = torch.tensor(digits).unbind(1)
    image_tokens = slice(int(image[0]), int(image[-1]) + 1)
    return Spots(inputs, labels, image_tokens, rows, at_nouns, places, lines, before, torch.stack(nouns_asked, 1))


def loss_of(model: Any, batch: Spots) -> tuple[Tensor, dict[str, float]]:
    """The loss, and shares: of attention that falls on what is named, and on the noun; and of digits that are right."""
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(**batch.inputs, use_cache=False, output_attentions=True)
        logits = model.lm_head(output.last_hidden_state[:, :-1]).float()
    of_nouns = output.attentions[LAYERS][batch.rows, :HEADS, batch.nouns][:, :, batch.image].float()
    on_thing = (of_nouns * batch.places[:, None]).sum(-1)
    of_digits = output.attentions[LAYERS + 1][batch.lines, :HEADS, batch.before].float()
    first, last = of_digits.gather(2, batch.asked[:, None].expand(-1, HEADS, -1)).unbind(-1)
    on_nouns = first + last * (batch.asked[:, 0] != batch.asked[:, 1])[:, None]
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels[:, 1:]) * 3
    loss = loss - on_thing.clamp(min=1e-6).log().mean() - on_nouns.clamp(min=1e-6).log().mean()
    guessed, digits = logits.detach()[batch.lines, batch.before].argmax(-1), batch.labels[batch.lines, batch.before + 1]
    shares = {"on thing": on_thing.detach(), "on asked": on_nouns.detach(), "digit": (guessed == digits).float()}
    return loss, {name: share.mean().item() for name, share in shares.items()}
