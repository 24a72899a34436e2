"""Asks about a scene: a question with its answer, and what must be looked at to know it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from cof_agent.geometry import Box
from cof_agent.scenes.scene import COLOURS, LABEL_HEIGHT, SHAPES, SIGN_TEXT, Item, Scene, label

CATEGORIES = ("direct_attributes", "relative_position", "nested")


@dataclass(frozen=True, slots=True)
class Look:
    """One thing that must be seen: `boxes` from the outer to the inner one, in source pixels.

    `detail` is the height in source pixels of the smallest thing to tell in the innermost box.
    """

    name: str
    boxes: tuple[Box, ...]
    detail: float

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "boxes": [list(box) for box in self.boxes], "detail": self.detail}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Look:
        return cls(data["name"], tuple(Box(*box) for box in data["boxes"]), data["detail"])


@dataclass(frozen=True, slots=True)
class Question:
    """`kind` is the finer sort within a category: label, colour, shape, across, down or sign."""

    category: str
    kind: str
    text: str
    answer: str
    looks: tuple[Look, ...]
    options: tuple[str, ...]  # wrong answers that would be plausible
    about: tuple[Item, ...] = ()


def ask(scene: Scene, category: str, random: Random) -> Question | None:
    """A question of `category` about the scene; None if it has nothing to ask about."""
    if category == "nested":
        return _sign(scene, random)
    if category == "relative_position":
        return _relative(scene, random)
    rare: Callable[[Scene, Random], Question | None] = random.choice((colour, shape))
    question = rare(scene, random) if random.random() < 0.4 else None
    return question or written_on(scene, random.choice(scene.items), random)


def written_on(scene: Scene, item: Item, random: Random) -> Question:
    """What is the label of `item`?"""
    others = {other.label for other in scene.items if len(other.label) == len(item.label)}
    others |= {label(random, len(item.label)) for _ in range(6)}
    return Question(
        "direct_attributes",
        "label",
        f"What is written on the {item.name}?",
        item.label,
        (Look(f"the {item.name}", (item.box,), item.side * LABEL_HEIGHT),),
        tuple(sorted(others - {item.label})),
        (item,),
    )


def _sign(scene: Scene, random: Random) -> Question | None:
    signed = [item for item in scene.items if item.sign]
    return sign_on(scene, random.choice(signed), random) if signed else None


def sign_on(scene: Scene, item: Item, random: Random) -> Question:
    """What does the sign on `item` say?"""
    others = {other.sign for other in scene.items if other.sign} | {item.label} | {label(random, 2) for _ in range(6)}
    return Question(
        "nested",
        "sign",
        f"What is on the sign on the {item.name}?",
        item.sign,
        (Look(f"the sign on the {item.name}", (item.box, item.sign_box), item.side * SIGN_TEXT),),
        tuple(sorted(others - {item.sign})),
        (item,),
    )


# An outline is told at a lower height than a letter: a shape of 9 shown pixels can be named, a letter of 9 cannot.
_OUTLINE = 1.6


def _seen(item: Item, name: str) -> Look:
    return Look(name, (item.box,), item.side * _OUTLINE)


def colour(scene: Scene, random: Random) -> Question | None:
    """The colour of an object that is the only one of its shape."""
    item = _single(scene, random, lambda item: item.shape)
    if item is None:
        return None
    options = tuple(other for other in COLOURS if other != item.colour)
    text, look = f"What colour is the {item.shape}?", _seen(item, f"the {item.shape}")
    return Question("direct_attributes", "colour", text, item.colour, (look,), options, (item,))


def shape(scene: Scene, random: Random) -> Question | None:
    """The shape of an object that is the only one of its colour."""
    item = _single(scene, random, lambda item: item.colour)
    if item is None:
        return None
    options = tuple(other for other in SHAPES if other != item.shape)
    text, look = f"What shape is the {item.colour} object?", _seen(item, f"the {item.colour} object")
    return Question("direct_attributes", "shape", text, item.shape, (look,), options, (item,))


def _single(scene: Scene, random: Random, key: Callable[[Item], str]) -> Item | None:
    """An object that is alone with its colour, or its shape."""
    counts = Counter(key(item) for item in scene.items)
    alone = [item for item in scene.items if counts[key(item)] == 1]
    return random.choice(alone) if alone else None


def _relative(scene: Scene, random: Random) -> Question | None:
    if len(scene.items) < 2:
        return None
    for _ in range(20):
        first, second = random.sample(scene.items, 2)
        across = random.random() < 0.5
        distance = first.x - second.x if across else first.y - second.y
        if abs(distance) < 0.04 * scene.size.long_side:
            continue
        words = ("left", "right") if across else ("above", "below")
        middle = "to the left or to the right of" if across else "above or below"
        answer, other = words if distance < 0 else words[::-1]
        looks = tuple(_seen(item, f"the {item.name}") for item in (first, second))
        text = f"Is the {first.name} {middle} the {second.name}?"
        return Question(
            "relative_position", "across" if across else "down", text, answer, looks, (other,), (first, second)
        )
    return None
