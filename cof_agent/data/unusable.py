"""What cannot become a sample: the exception that says why, the count of it, and the record in `left_out.jsonl`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cof_agent.output.files import write_atomic

Made = TypeVar("Made")

NO_OBJECT = "not an object with named fields"
NO_QUESTION = "no question"
NO_IMAGE = "no image"
SEVERAL_IMAGES = "several images"
TWO_IMAGES = "several columns hold an image"
OTHER_MARKS = "more or fewer images than marks for them"
VIDEO = "video"
AUDIO = "audio"
IMAGE_MISSING = "image file not found"
IMAGE_BY_URL = "image by URL"
NOT_AN_IMAGE = "not an image"
NO_ANSWER = "no answer"
NOT_A_CHOICE = "answer is none of the choices"
TWO_CHOICES = "answer names two different choices"
BAD_CHOICES = "choices cannot be read"
BAD_ANSWER = "answer cannot be read"
BAD_BOX = "box is not four numbers"
BOX_BEYOND = "box beyond its image"
OTHER_COORDINATES = "boxes in the coordinates of another model"
BAD_TURNS = "conversation cannot be read"
UNFINISHED = "conversation without an answer"
PLACEHOLDER = "placeholder of a box or an object in the text"
NO_CONVERSATION = "no conversation"
NO_REPLY = "no turn of an assistant"
EMPTY_REPLY = "turn of an assistant without a word"
MASKED_REPLY = "reply that is not to be trained on"
UNCLEAR_TRUTH = "two columns that may be the answer"
NOT_WANTED = "reply that is marked as not wanted"
IMAGES_AND_MARKS = "images and their places do not match"
IMAGE_IN_REPLY = "image inside a turn of an assistant"
ONE_TURN_TRACE = "results of tools inside a turn of an assistant"
TOOLS_APART = "tools in a column of their own"
DAMAGED_IMAGE = "damaged image"
TOO_LARGE = "image too large"
BAD_CHARACTERS = "text with half a surrogate pair, which is no character"
BAD_METADATA = "metadata is no object"
BAD_RULE = "scoring rule cannot be used"
BAD_IMAGES = "images cannot be read"
BAD_REGIONS = "question and regions do not fit"

HINTS = {
    NO_QUESTION: "name its column, as in --column question=NAME",
    NO_IMAGE: "name its column, as in --column image=NAME, if there is one",
    IMAGE_MISSING: "say with --images DIR what image paths are relative to, and unpack archives",
    IMAGE_BY_URL: "nothing is downloaded unless you add --download",
    TWO_IMAGES: "name the one that is asked about, as in --column image=NAME",
    UNCLEAR_TRUTH: "name the one that is the truth, as in --column answer=NAME",
    NO_ANSWER: "name its column, as in --column answer=NAME, if there is one",
    SEVERAL_IMAGES: "only the strategies focus and direct, and training, take samples of several images, and mini-o3 does not",
    NO_CONVERSATION: "name its column, as in --column messages=NAME; `cof collect` makes conversations of questions",
    ONE_TURN_TRACE: "a conversation is trained where each result is a turn of its own; code is never run here",
    TOOLS_APART: "write them into the system message, as your model is told of tools",
    BOX_BEYOND: "say with --boxes what the numbers of boxes mean, if it is not pixels of the image files",
    OTHER_COORDINATES: "export the trajectories anew with this model's, or train on trajectories.jsonl itself",
    TOO_LARGE: "if you trust the file, raise --max-source-pixels",
}
"""What a user can do about a reason, where there is something."""


class Unusable(ValueError):
    """A row or question that no sample can be made of. reason: one of the constants above, under which it is counted.
    detail: what exactly was found, for the record."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = str(detail)[:200].encode("utf-8", "backslashreplace").decode()  # it is written into a file

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


_SURROGATE = re.compile("[\ud800-\udfff]")
_HOLD_TEXTS = (str, dict, list, tuple)


def check_characters(values: Any) -> None:
    """Refuses a row with a text that cannot be written: a record is UTF-8, and an id would come back as another one.

    Raises:
        Unusable: if one holds half a surrogate pair.
    """
    kind = type(values)
    if kind is str:
        if not values.isascii() and _SURROGATE.search(values):
            raise Unusable(BAD_CHARACTERS, values)
    elif kind is dict:
        for name, value in values.items():
            check_characters(name)
            if type(value) in _HOLD_TEXTS:
                check_characters(value)
    elif kind in (list, tuple):
        for value in values:
            if type(value) in _HOLD_TEXTS:
                check_characters(value)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One row that was left out. row: its number in `file`, from 1."""

    reason: str
    row: int
    file: str
    detail: str = ""


@dataclass(slots=True)
class Tally:
    """What came of the rows of a set. rows: how many were read. kinds: how many of each kind, where they are told apart.
    notes: what was decided about the set, in sentences."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def attempt(self, row: int, file: Path, make: Callable[[], Made]) -> Made | None:
        """What `make` returns for a row; None if the row is unusable, which is then recorded."""
        try:
            return make()
        except Unusable as why:
            self.leave_out(row, file, why)
            return None

    def leave_out(self, row: int, file: Path, why: Unusable) -> None:
        """Records a row that is unusable."""
        self.left_out.append(LeftOut(why.reason, row, str(file), why.detail))

    @property
    def reasons(self) -> dict[str, int]:
        """How many were left out for each reason, the most frequent first."""
        return dict(Counter(one.reason for one in self.left_out).most_common())


def write_left_out(path: Path, left_out: Iterable[LeftOut]) -> None:
    """One JSON object per line."""
    write_atomic(path, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in left_out))
