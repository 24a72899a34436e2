"""Lessons in reading for `sft.nano.ground`: crops as the agent gets them, or overviews of parts of scenes, one question each, and
where its characters stand.

As with places, what conversations alone teach too slowly is asked for directly: image tokens, after the first layers, are
to look like the words for the characters on them; and where a character is to be said, heads of the fourth layer are to
attend to the image tokens that show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.nano.build import FAMILY
from cof_agent.scenes import oracle
from cof_agent.scenes.draw import sketch
from cof_agent.scenes.questions import sign_on, written_on
from cof_agent.scenes.scene import LABEL_HEIGHT, SHAPES, SIGN_TEXT, Item, Scene, Style, generate, part_of
from sft.collate import assistant_mask
from sft.nano.curriculum import crop_of, overview_of, sample_without_image
from sft.nano.vision import CHARACTERS, READABLE, character_boxes, patches_of

CROPS = 12  # a step
OVERVIEWS = 8  # in their place
SHOWN = tuple(Size(side, side) for side in (112, 140, 168))  # what nearly all crops are; others are passed over
CELL = FAMILY.vision.grid  # shown pixels of an image token
LAYERS = 2  # after which image tokens are to know what they show
HEADS = 2  # of each of the two layers above that are told where to attend


@dataclass
class Reading:
    """Conversations about one image each, crops or overviews."""

    ids: Tensor  # [crops, length]
    labels: Tensor  # [crops, length]
    image: slice  # where the image tokens stand
    patches: Tensor
    grid: Tensor
    rows: Tensor  # [characters]: the crop of each character of an answer
    before: Tensor  # [characters]: what stands before it
    nouns: Tensor  # [characters]: where the shape stands that was named last before it; none for crops
    places: Tensor  # [characters, tokens]: on which image tokens it is seen
    shown: Tensor  # [crops x tokens, CHARACTERS]: what characters an image token shows
    alphabet: Tensor  # [CHARACTERS]: token ids


def lesson(processor: Any, key: str, environment: ZoomEnvironment, part: float = 1.0) -> Reading:
    """CROPS crops with questions, or where `part` is less than 1 OVERVIEWS overviews of such parts of scenes, in which there is
    more than one label to read; the same for a key."""
    random = Random(f"reading:{key}")
    made = _crops(key, random, environment) if part == 1 else _overviews(key, random, part)
    size, tokenizer = made[0][3].shown_size, processor.tokenizer
    texts = [_question_and_answer(*one, random, environment) for one in made]
    ids, labels, image = encode(processor, texts, size.width * size.height // CELL**2)
    alphabet = torch.tensor([tokenizer.encode(character, add_special_tokens=False)[0] for character in CHARACTERS])
    rows, positions = torch.isin(labels, alphabet).nonzero().unbind(1)
    nouns = _nouns(tokenizer, ids, rows, positions) if part < 1 else torch.empty(0)
    boxes = [box for scene, item, sign, view in made for _, box in characters_of(item, sign, view)]
    shown = torch.zeros(len(made), image.stop - image.start, len(CHARACTERS))
    for crop, (scene, _, _, view) in enumerate(made):
        for item in scene.items:
            for sign in (False, True)[: 1 + bool(item.sign)]:
                for character, box in characters_of(item, sign, view):
                    if box.height >= READABLE:
                        shown[crop, torch.tensor(tokens_in(box, size)), CHARACTERS.index(character)] = 1
    pixels = torch.cat([patches_of(sketch(scene, view.region, size)) for scene, _, _, view in made])
    grid = torch.tensor([(1, size.height // FAMILY.vision.patch, size.width // FAMILY.vision.patch)] * len(made))
    places = torch.tensor([tokens_in(box, size) for box in boxes])
    return Reading(ids, labels, image, pixels, grid, rows, positions - 1, nouns, places, shown.flatten(0, 1), alphabet)


def _crops(key: str, random: Random, environment: ZoomEnvironment) -> list[tuple[Scene, Item, bool, View]]:
    """Scenes with the object that is asked about, whether for its sign, and the crop: all of one size."""
    attempt = 0
    made: list[tuple[Scene, Item, bool, View]] = []
    while len(made) < CROPS:
        attempt += 1
        scene = generate(f"reading:{key}:{attempt}", replace(Style(), count=(2, 6), label_lengths=(1, 2, 2, 3)))
        sign = random.random() < 0.5
        item = random.choice([item for item in scene.items if item.sign or not sign] or scene.items)
        sign = sign and bool(item.sign)
        view = crop_of(item, overview_of(scene), environment, random, sign=sign)
        size = view.shown_size
        if size in SHOWN and size == (made[0][3].shown_size if made else size):  # all of a lesson have one size
            made.append((scene, item, sign, view))
    return made


def _overviews(key: str, random: Random, part: float) -> list[tuple[Scene, Item, bool, View]]:
    style = part_of(replace(Style(), label_lengths=(1, 2, 2, 3)), part)
    scenes = [generate(f"reading:{key}:{place}", style) for place in range(OVERVIEWS)]
    return [(scene, random.choice(scene.items), False, overview_of(scene, part=part)) for scene in scenes]


def _nouns(tokenizer: Any, ids: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    words = torch.tensor([tokenizer.encode(f" {shape}", add_special_tokens=False)[0] for shape in SHAPES])
    named = torch.isin(ids, words)
    return torch.stack([named[row, :at].nonzero().max() for row, at in zip(rows, positions, strict=True)])


def _question_and_answer(
    scene: Scene, item: Item, sign: bool, view: View, random: Random, environment: ZoomEnvironment
) -> tuple[str, str]:
    question = sign_on(scene, item, random) if sign else written_on(scene, item, random)
    sample = sample_without_image(scene, question, random, choices=False)
    return protocol.question_text(sample), oracle.answer(sample, view, environment)


def encode(processor: Any, texts: list[tuple[str, str]], tokens: int) -> tuple[Tensor, Tensor, slice]:
    """Conversations of one question and reply each, about an image of `tokens` tokens: ids and labels [texts, longest],
    -100 where no assistant speaks, and where the image tokens stand."""
    tokenizer, rows = processor.tokenizer, []
    image_ids = [tokenizer.convert_tokens_to_ids(processor.image_token)] * tokens
    for question, reply in texts:
        prompt = {"type": "text", "text": protocol.system_prompt(CoordinateSystem.ABSOLUTE)}
        messages = [
            {"role": "system", "content": [prompt]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": reply}]},
        ]
        halves = processor.apply_chat_template(messages, tokenize=False).split(processor.image_token)
        head, tail = (tokenizer.encode(half, add_special_tokens=False) for half in halves)
        rows.append(torch.tensor([*head, *image_ids, *tail]))
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = ids.masked_fill(~assistant_mask(ids, tokenizer, FAMILY.markers), -100)
    return ids, labels, slice(len(head), len(head) + tokens)


def characters_of(item: Item, sign: bool, view: View) -> list[tuple[str, Box]]:
    """The characters of a label or a sign with their boxes in shown pixels."""
    scale = view.shown_size.height / view.region.height
    text, box = (item.sign, item.sign_box) if sign else (item.label, item.box)
    height = item.side * scale * (SIGN_TEXT if sign else LABEL_HEIGHT)
    return character_boxes(text, view.from_source(box, CoordinateSystem.ABSOLUTE).center, height)


def tokens_in(box: Box, shown: Size) -> list[bool]:
    """The tokens of an image of size `shown` that show a fair part of `box`, row by row."""
    cells = [
        Box(column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL)
        for row in range(shown.height // CELL)
        for column in range(shown.width // CELL)
    ]
    most = max(cell.intersection(box) for cell in cells)
    return [cell.intersection(box) > 0.4 * most > 0 for cell in cells]


def forward(model: Any, ids: Tensor, patches: Tensor, grid: Tensor) -> Any:
    """The model's output with all hidden states and attentions, of one image a row."""
    return model.model(
        input_ids=ids,
        pixel_values=patches,
        image_grid_thw=grid,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        use_cache=False,
        output_hidden_states=True,
        output_attentions=True,
    )


def loss_of(model: Any, batch: Reading) -> tuple[Tensor, dict[str, float]]:
    """The loss, and the share of characters that are right and of attention that falls on them."""
    text = model.model.language_model
    with torch.autocast("cpu", torch.bfloat16):
        read = forward(model, batch.ids, batch.patches, batch.grid)
        seen = text.norm(read.hidden_states[LAYERS])[:, batch.image].flatten(0, 1)
        said = batch.ids[batch.rows, batch.before + 1]
        alphabet = text.embed_tokens.weight[batch.alphabet]
        likeness = (seen @ alphabet.T).float()
        logits = model.lm_head(read.last_hidden_state[:, :-1]).float()
    attention = read.attentions[LAYERS + 1][batch.rows, :HEADS, batch.before][:, :, batch.image].float()
    on_it = (attention * batch.places[:, None]).sum(-1)
    some = batch.shown.sum(1, keepdim=True)
    spread = batch.shown / some.clamp(min=1)
    loss = F.cross_entropy(logits.transpose(1, 2), batch.labels[:, 1:]) * 3
    loss = loss - on_it.clamp(min=1e-6).log().mean()
    loss = loss - (likeness.log_softmax(1) * spread).sum() / (some > 0).sum().clamp(min=1)
    if len(batch.nouns):
        on_noun = read.attentions[LAYERS][batch.rows, :HEADS, batch.before, batch.nouns].float()
        loss = loss - on_noun.clamp(min=1e-6).log().mean()
    guessed = logits.detach()[batch.rows, batch.before].argmax(1)
    return loss, {"read": (guessed == said).float().mean().item(), "on char": on_it.detach().mean().item()}
