"""Lessons in pointing at signs for `sft.nano.ground`: the second zoom of a conversation, and where it points.

The sign on an object is found in the crop of that object, the second image, which begins at another place in every
conversation. From whole conversations alone nano learned where signs mostly are, and hardly where this one is. As with
lists, the way there is asked for: the word "sign" is to attend to the image tokens that show it, and what comes before
each coordinate to that word. In overviews of parts of scenes a sign is found at once, among others: there it is the name
of what bears the sign that attends to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.nano.build import FAMILY
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.questions import sign_on
from cof_agent.scenes.scene import SHAPES, Item, Style, generate, part_of
from cof_agent.trajectory import Sample, Turn
from sft.collate import AssistantCollator
from sft.dataset import to_row
from sft.nano.curriculum import SHOWN, overview_of, sample_without_image
from sft.nano.reading import HEADS, LAYERS, tokens_in

ABSOLUTE = CoordinateSystem.ABSOLUTE
CONVERSATIONS = 6  # a step
JITTER = 3  # steps of the raster by which a first box may be off


@dataclass
class Pointing:
    """Conversations that end with a zoom into their last image."""

    inputs: dict[str, Tensor]
    labels: Tensor  # [conversations, length]
    crops: Tensor  # [conversations, tokens]: where the tokens of the last image stand; -1 behind them
    places: Tensor  # [conversations, tokens]: on which of them the sign is seen
    nouns: Tensor  # [conversations]: where the word that is to attend to the sign stands in the last thought
    before: Tensor  # [conversations, 4]: what stands before each coordinate


def lesson(processor: Any, key: str, environment: ZoomEnvironment, part: float = 1.0) -> Pointing:
    """CONVERSATIONS conversations, about scenes or where `part` is less than 1 such parts of scenes; the same for a key."""
    random, attempt = Random(f"closer:{key}"), 0
    rows: list[dict[str, Any]] = []
    places: list[list[bool]] = []
    look = part_of(replace(Style(), count=(4, 14), signs=0.8), part)
    while len(rows) < CONVERSATIONS:
        attempt += 1
        scene = generate(f"closer:{key}:{attempt}", look)
        signed = [item for item in scene.items if item.sign]
        if not signed:
            continue
        item = random.choice(signed)
        sample = sample_without_image(scene, sign_on(scene, item, random), random, choices=random.random() < 0.3)
        overview = overview_of(scene, part=part)
        zooms = _at_once if part < 1 else _in_two
        if found := zooms(item, sample, overview, environment, random):
            texts, views = found
            images = [sketch(scene, view.region, view.shown_size) for view in views]
            rows.append(to_row(_messages(sample, texts, views, environment), images))
            sign = views[-1].from_source(item.sign_box, ABSOLUTE)
            places.append(tokens_in(sign, views[-1].shown_size))
    return _batch(processor, rows, places, [f" {shape}" for shape in SHAPES] if part < 1 else [" sign"])


def _in_two(
    item: Item, sample: Sample, overview: View, environment: ZoomEnvironment, random: Random
) -> tuple[list[str], list[View]] | None:
    """Two zooming turns, the first a little off, and the views they point into; None where two are not needed."""
    first = oracle.next_zoom(sample, [overview], environment)
    if first is None:
        return None
    box = oracle.pointing_box(overview, item.box, ABSOLUTE)
    dx, dy = (random.randint(-JITTER, JITTER) * oracle.SNAP for _ in range(2))
    moved = Box(box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy).clipped(overview.shown_size)
    first = protocol.write_zoom(protocol.thought(first), moved)
    (seen,) = environment.step(protocol.parse(first), [overview])
    if seen.view is None or seen.view.region.coverage(item.sign_box) < 0.97:
        return None
    second = oracle.next_zoom(sample, [overview, seen.view], environment)
    return ([first, second], [overview, seen.view]) if second else None


def _at_once(
    item: Item, sample: Sample, overview: View, environment: ZoomEnvironment, _random: Random
) -> tuple[list[str], list[View]] | None:
    """One zooming turn at the sign, which can be found in the overview; else None."""
    found = oracle.next_target(sample, [overview], environment)
    if found is None or found[2] != item.sign_box:
        return None
    look, _, box = found
    return [protocol.write_zoom(oracle.too_small(look), oracle.pointing_box(overview, box, ABSOLUTE))], [overview]


def _messages(
    sample: Sample, texts: list[str], views: list[View], environment: ZoomEnvironment
) -> list[protocol.Message]:
    turns = [Turn(text, protocol.parse(text)) for text in texts]
    seen = [replace(turn, observations=environment.step(turn.actions, views[:1])) for turn in turns[:-1]]
    rendered = protocol.render_turns([*seen, turns[-1]], first_view=1, system=ABSOLUTE)
    return protocol.opening(sample, views[0], system=ABSOLUTE) + rendered


def _batch(processor: Any, rows: list[dict[str, Any]], places: list[list[bool]], words: list[str]) -> Pointing:
    inputs = AssistantCollator(processor, FAMILY.markers)(rows)
    labels, ids, tokenizer = inputs.pop("labels"), inputs["input_ids"], processor.tokenizer
    image_token = tokenizer.convert_tokens_to_ids(processor.image_token)
    looking = {tokenizer.encode(word, add_special_tokens=False)[0] for word in words}
    numbers = {tokenizer.encode(f"{number},", add_special_tokens=False)[0] for number in range(0, SHOWN, oracle.SNAP)}
    width = max(len(row) for row in places)
    crops, where, nouns, before = [], [], [], []
    for row, there in zip(range(len(rows)), places, strict=True):
        spoken = (labels[row] != -100).nonzero().flatten().tolist()
        coordinates = [at for at in spoken if int(ids[row, at]) in numbers][-4:]
        last = (ids[row] == image_token).nonzero().flatten().tolist()[-len(there) :]
        crops.append(last + [-1] * (width - len(last)))
        where.append(there + [False] * (width - len(there)))
        nouns.append(max(at for at in spoken if at < coordinates[0] and int(ids[row, at]) in looking))
        before.append([at - 1 for at in coordinates])
    return Pointing(inputs, labels, torch.tensor(crops), torch.tensor(where), torch.tensor(nouns), torch.tensor(before))


def loss_of(model: Any, batch: Pointing) -> tuple[Tensor, dict[str, float]]:
    """The loss, and shares: of attention that falls on the sign, and of coordinates that are exactly right."""
    with torch.autocast("cpu", torch.bfloat16):
        output = model.model(**batch.inputs, use_cache=False, output_attentions=True)
        logits = model.lm_head(output.last_hidden_state[:, :-1]).float()
    rows = torch.arange(len(batch.labels))
    of_sign = output.attentions[LAYERS][rows, :HEADS, batch.nouns].float()  # [conversations, HEADS, length]
    index = batch.crops.clamp(min=0)[:, None].expand(-1, HEADS, -1)
    on_sign = (of_sign.gather(2, index) * batch.places[:, None]).sum(-1)
    of_numbers = output.attentions[LAYERS + 1][rows[:, None], :HEADS, batch.before, batch.nouns[:, None]].float()
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels[:, 1:]) * 3
    loss = loss - on_sign.clamp(min=1e-6).log().mean() - of_numbers.clamp(min=1e-6).log().mean()
    guessed, said = logits.detach()[rows[:, None], batch.before].argmax(-1), batch.inputs["input_ids"]
    right = guessed == said[rows[:, None], batch.before + 1]
    return loss, {"on sign": on_sign.detach().mean().item(), "sign box": right.float().mean().item()}
