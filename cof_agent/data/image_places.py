"""Where the images of a conversation stand: among the parts of its messages, beside a message, or at marks in its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cof_agent.data.images import Reference, references
from cof_agent.data.questions import MARK, counts_from_nought, number_in
from cof_agent.data.unusable import BAD_TURNS, IMAGE_IN_REPLY, IMAGES_AND_MARKS, ONE_TURN_TRACE, Unusable
from cof_agent.protocol.published import holds_results

_PATH = re.compile(r"<img>([^<]*[^<\s][^<]*)</img>")


@dataclass(slots=True)
class Slot:
    """The place of an image. given: what the message itself says of it; number: which of the row's images it is, from 0."""

    given: Any = None
    number: int | None = None


@dataclass(slots=True)
class Said:
    """What one turn says, texts and places of images in order. role: system, user, assistant or tool."""

    role: str
    parts: list[str | Slot] = field(default_factory=list)

    @property
    def slots(self) -> list[Slot]:
        return [part for part in self.parts if isinstance(part, Slot)]


def placed(said: Sequence[Said], column: list[Reference]) -> list[Reference]:
    """The image of each slot, in order. Marks in the texts become slots first: in all messages where none has any, else in those
    without one, if that is what the images are missing."""
    waiting_slots = [slot for one in said for slot in one.slots if slot.given is None]
    without = [one for one in said if not one.slots]
    if len(without) == len(said) or len(waiting_slots) + _counts(without)["user"] == len(column):
        _mark(without, len(column) - len(waiting_slots))
    if any(one.slots for one in said if one.role == "assistant"):
        held = any(holds_results(part) for one in said for part in one.parts if isinstance(part, str))
        raise Unusable(ONE_TURN_TRACE if held else IMAGE_IN_REPLY)
    slots = [slot for one in said for slot in one.slots]
    if slots and all(slot.given is not None for slot in slots):
        return [_named(slot) for slot in slots]
    numbers = [slot.number for slot in slots]
    if None not in numbers and set(numbers) == set(range(len(column))):
        return [column[number] for number in numbers if number is not None]
    waiting = iter(column)
    shown = [next(waiting, None) if slot.given is None else _named(slot) for slot in slots]
    if None in shown or next(waiting, None) is not None or any(number is not None for number in numbers):
        raise Unusable(IMAGES_AND_MARKS, f"{len(slots)} places for {len(column)} images")
    return [one for one in shown if one is not None]


def _named(slot: Slot) -> Reference:
    """The image that a message itself names in a place."""
    if isinstance(slot.given, Reference):
        return slot.given
    named = references(slot.given)
    if len(named) != 1:
        raise Unusable(IMAGES_AND_MARKS, f"{len(named)} images in one place")
    return named[0]


def _mark(said: Sequence[Said], images: int) -> None:
    """Makes slots of the marks for images. What an assistant or the system says is text, unless images were left over without
    its marks; images without any mark stand before the first words of a user."""
    counts = _counts(said)
    shown, nought = counts["user"], counts_from_nought(_texts(said))
    paths = any(_PATH.search(part) for one in said for part in one.parts if isinstance(part, str))
    if images and not shown and not counts["assistant"]:
        first = next((one for one in said if one.role == "user"), None)
        if first is not None:
            first.parts = [*(Slot() for _ in range(images)), *first.parts]
        return
    roles = {"user", "tool"}
    if counts["assistant"] and images == shown + counts["assistant"]:
        roles.add("assistant")
    if shown or paths or "assistant" in roles:
        for one in said:
            if one.role in roles:
                one.parts = [piece for part in one.parts if isinstance(part, str) for piece in _pieces(part, nought)]


def _texts(said: Sequence[Said]) -> list[str]:
    return [part for one in said for part in one.parts if isinstance(part, str)]


def _counts(said: Sequence[Said]) -> dict[str, int]:
    """How many marks for images users (and tools) have in their texts, and assistants."""
    texts = [(one.role, part) for one in said for part in one.parts if isinstance(part, str)]
    counts = {"user": 0, "assistant": 0}
    for role, text in texts:
        if role != "system":
            counts["assistant" if role == "assistant" else "user"] += len(MARK.findall(text))
    return counts


def _pieces(text: str, from_nought: bool) -> Iterator[str | Slot]:
    """The texts and the places of images in a text. from_nought: whether its marks count images from 0."""
    place = 0
    for mark in MARK.finditer(text):
        path, number = _PATH.fullmatch(mark[0]), number_in(mark[0])
        yield text[place : mark.start()]
        yield Slot(path[1].strip()) if path else Slot(number=None if number is None else number - (not from_nought))
        place = mark.end()
    yield text[place:]


def with_beside(parts: list[str | Slot], beside: list[Reference]) -> list[str | Slot]:
    """The parts with the images that stand beside them in a message: at its marks, or before its words."""
    if any(isinstance(part, Slot) for part in parts):
        raise Unusable(BAD_TURNS, "images in a message and beside it")
    pieces = [piece for part in parts if isinstance(part, str) for piece in _pieces(part, counts_from_nought([part]))]
    slots = [piece for piece in pieces if isinstance(piece, Slot)]
    if not slots:
        return [*(Slot(one) for one in beside), *parts]
    if len(slots) != len(beside):
        raise Unusable(IMAGES_AND_MARKS, f"{len(slots)} places for {len(beside)} images")
    for slot, one in zip(slots, beside, strict=True):
        slot.given, slot.number = one, None
    return pieces
