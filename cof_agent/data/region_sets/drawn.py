"""Drawn scenes with questions about regions: what is it, what is written on it, which of two or three has this colour. Objects
are large enough for their labels to be legible in an overview of 448 shown pixels, so that no zoom is needed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from cof_agent.geometry import Box
from cof_agent.scenes.scene import FULL, Item, Scene, Style, generate
from cof_agent.trajectory import Sample

THOUGHT = "thought"
"""Key of a sample's metadata: what to think before the answer, for training; in words that nano knows, since in the first stage
its language model does not learn new ones."""

WHICH, WHICH_OF_THREE = "which", "which of three"
"""Categories of the samples that ask which region has a colour."""

SHOW = "show"
"""Category of a sample that is answered with a zoom into its region, for training."""

STYLE = Style(size=FULL, count=(3, 8), side=(0.1, 0.17), label_lengths=(1, 2, 2), clutter=(3, 20), signs=0.0)
"""At 448 of 3840 pixels an object is 45 to 76 shown pixels wide, and its letters 15 to 25 high."""


def scene_of(key: str) -> Scene:
    """The scene of a key: at least two objects."""
    for attempt in range(100):
        scene = generate(f"regions:{key}:{attempt}", STYLE)
        if len(scene.items) > 1:
            return scene
    raise AssertionError("a scene always has room for two objects")


def samples_of(scene: Scene, key: str, image: str = "", *, scale: float = 1.0) -> Iterator[Sample]:
    """Up to four samples about objects of a scene; the same for a key. scale: pixels of the image per pixel of the scene."""
    random = Random(f"asked:{key}")
    one, other = random.sample(scene.items, 2)
    written = random.choice(scene.items)
    asked: list[tuple[str, str, str, tuple[Item, ...], str]] = [
        ("object", "What is <region1>?", one.name, (one,), "It can be seen well."),
        ("label", "What is written on <region1>?", written.label, (written,), f"The {written.name} can be seen well."),
    ]
    if one.colour != other.colour:
        asked.append(_which(WHICH, (one, other), random.choice((1, 2))))
    random = Random(f"three:{key}")
    if len(scene.items) > 2:
        three, number = tuple(random.sample(scene.items, 3)), random.choice((1, 2, 3))
        if [item.colour for item in three].count(three[number - 1].colour) == 1:
            asked.append(_which(WHICH_OF_THREE, three, number))
    for kind, question, answer, items, thought in asked:
        boxes = tuple(Box(*(value * scale for value in item.box)) for item in items)
        metadata = {"category": kind, THOUGHT: thought}
        yield Sample(f"{key}-{kind}", image, question, (answer,), metadata=metadata, boxes=boxes, regions=boxes)


def _which(kind: str, items: tuple[Item, ...], number: int) -> tuple[str, str, str, tuple[Item, ...], str]:
    """Kind, question, answer, regions and thought. number: of the region with the colour, which no other has."""
    colour, names = items[number - 1].colour, ", ".join(f"<region{at}>" for at in range(1, len(items) + 1))
    # In words by which nano looks for things. It has not learned this yet, nor to compare colours that it has said.
    return kind, f"Which of {names} is {colour}?", f"region {number}", items, f"The {colour} object is region {number}."


def show_of(scene: Scene, key: str) -> Sample:
    """A sample that asks where one object of a scene is; the same for a key."""
    item = Random(f"shown:{key}").choice(scene.items)
    metadata = {"category": SHOW, THOUGHT: "It can be seen well."}
    return Sample(f"{key}-{SHOW}", "", "Show <region1>.", (), metadata=metadata, boxes=(item.box,), regions=(item.box,))
