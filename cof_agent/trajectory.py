"""The record: what was asked, what the model did, what it saw, how it ended; and its JSONL store.

No pixels are kept. A crop is recomputed from source + region, byte for byte.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from cof_agent.errors import InputError
from cof_agent.fields import one_or_several
from cof_agent.geometry import Box, View
from cof_agent.output.files import LineFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One task. `image` is a path; `boxes` are the objects the question needs, in source pixels, also given as four numbers each.

    `answers` are accepted alternatives, or one text; with `choices`, the answer is one of them (its text or its letter).
    `regions`, source pixels too, are what `<region1>`, `<region2>`, ... in the question mean (see `region_refs`).
    `more_images` follow the first one where a question is about several; a file lists all of them as `images`. Boxes lie in
    the first image, and only a sample of one image has regions.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    regions: tuple[Box, ...] = ()
    more_images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.answers, str):
            object.__setattr__(self, "answers", (self.answers,))
        for name in ("boxes", "regions"):
            given = getattr(self, name)
            if any(type(box) is not Box for box in given):
                object.__setattr__(self, name, tuple(map(to_box, given)))

    @classmethod
    def __get_pydantic_core_schema__(cls, kind: Any, handler: Any) -> Any:
        return one_or_several(handler(kind), handler, "image", "more_images", "images")

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of all images, in order: `View.source` counts them."""
        return (self.image, *self.more_images)

    def with_images(self, paths: Iterable[str]) -> Sample:
        """The same task on these files."""
        first, *others = paths
        return replace(self, image=first, more_images=tuple(others))


def to_box(numbers: Iterable[float]) -> Box:
    """The box of four numbers x0, y0, x1, y1 in source pixels.

    Raises:
        InputError: if they are none.
    """
    try:
        return Box(*map(float, numbers))
    except (TypeError, ValueError):
        raise InputError(
            f"a box or a region is four numbers x0, y0, x1, y1 in source pixels, not {numbers!r}."
        ) from None


@dataclass(frozen=True, slots=True)
class Zoom:
    """The model asks to see `box` (as written, unchecked) of the `image`-th image of the conversation."""

    box: tuple[Any, ...]
    image: int = 0
    kind: Literal["zoom"] = "zoom"


@dataclass(frozen=True, slots=True)
class Use:
    """The model uses another tool on the `image`-th image of the conversation; `arguments` as written, unchecked."""

    tool: str
    arguments: dict[str, Any]
    image: int = 0
    kind: Literal["use"] = "use"


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class Malformed:
    """The text is no action; `reason` is the sentence the model reads."""

    reason: str
    kind: Literal["malformed"] = "malformed"


Action = Zoom | Use | Answer | Malformed


def is_look(action: Action) -> bool:
    """Whether an action asks to be shown something: a zoom, or the use of another tool."""
    return isinstance(action, Zoom | Use)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment gave back: a view, the words of a tool, or the error sentence that the model reads.

    `note` is said beside a view.
    """

    view: View | None = None
    error: str | None = None
    note: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one generation: the prompt's (images included) and the completion's. None where a server does not say, or
    says what no count can be."""

    prompt: int | None = None
    completion: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            count = getattr(self, name)
            if count is not None and not 0 <= count < 2**53:
                object.__setattr__(self, name, None)

    def __add__(self, other: Tokens) -> Tokens:
        """Both together; what one of them does not know stays unknown."""
        prompts, completions = (self.prompt, other.prompt), (self.completion, other.completion)
        return Tokens(
            None if None in prompts else sum(n or 0 for n in prompts),
            None if None in completions else sum(n or 0 for n in completions),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant message: its literal text, the actions in it, and one observation for each of these that is no answer, up to
    where `ZoomEnvironment.step` ends the turn."""

    text: str
    actions: tuple[Action, ...]
    observations: tuple[Observation, ...] = ()
    tokens: Tokens = Tokens()
    seconds: float = 0.0

    @property
    def boxes(self) -> tuple[tuple[tuple[Any, ...], int], ...]:
        """What its zooms point at: each box as written, and the number of the image."""
        return tuple((action.box, action.image) for action in self.actions if isinstance(action, Zoom))


Key = tuple[str, int | None, int | None]
"""A sample's id, the resolution it is asked at, and which of several plays it is."""


Failure = Literal["image", "model"]
"""What a run that ended in an error could not use: the image could not be read, or the model gave no answer."""


class StopReason(StrEnum):
    ANSWERED = "answered"
    MAX_ZOOMS = "max_zooms"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sample's whole conversation. `overview` is None only when an image could not be opened; `more_overviews` are those
    of further images, and a file lists all of them as `overviews`.

    strategy: how the zooms were spent (`strategies.registry`). dialect: in which the conversation was held
    (`protocol.dialects`); one that is not ours is among the settings in full. resolution: long side in shown pixels
    at which the overview was asked for, where it was. play: which of several plays of the sample this is, from 1.
    shuffle_seed: of the order of the choices, where it was drawn. failure: what failed where it ended in an error, whose
    sentence is `error`. warning: why the answer is unreliable, where that is known (`backends.scenes_only`). notes: what is
    wrong with the image files although all their pixels were read. Of RL: the training `step`, `rewards` by name (None where
    one could not be scored), the `advantage`, and the `group` of plays that it was computed over. Fields that do not apply
    are None.
    """

    sample: Sample
    overview: View | None
    turns: tuple[Turn, ...]
    stop: StopReason
    answer: str | None = None
    policy: str = ""
    protocol_version: str = ""
    error: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    strategy: str = "focus"
    dialect: str = "ours"
    resolution: int | None = None
    play: int | None = None
    shuffle_seed: int | None = None
    step: int | None = None
    rewards: dict[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    group: str | None = None
    failure: Failure | None = None
    warning: str | None = None
    more_overviews: tuple[View, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.sample.images)
        if any(not 0 <= view.source < count for view in self.views):
            raise ValueError(f"a view is of an image beyond the {count} of the sample")

    @classmethod
    def __get_pydantic_core_schema__(cls, kind: Any, handler: Any) -> Any:
        return one_or_several(handler(kind), handler, "overview", "more_overviews", "overviews")

    @property
    def key(self) -> Key:
        """What tells it from the other trajectories of its run."""
        return self.sample.id, self.resolution, self.play

    @property
    def overviews(self) -> tuple[View, ...]:
        """The overview of each image, in order; empty if an image could not be opened."""
        return all_of(self.overview, self.more_overviews)

    @property
    def views(self) -> tuple[View, ...]:
        """Every image the model was shown, the overviews first: what `"image": k` counts."""
        return views_of(self.overviews, self.turns)

    @property
    def crops(self) -> tuple[View, ...]:
        """What the model was shown because it asked for it."""
        return self.views[len(self.overviews) :]

    @property
    def zooms(self) -> int:
        return len(self.crops)

    @property
    def seconds(self) -> float:
        return sum(turn.seconds for turn in self.turns)

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture with the zooms, and the text of each turn (see `shown_by`)."""
        return _html(self) if _html else f"<pre>{escape(to_json(self))}</pre>"


def failures(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """How many ended in an error, by what failed; `unknown` where an older record does not say."""
    found = Counter(one.failure or "unknown" for one in trajectories if one.stop is StopReason.ERROR)
    return dict(sorted(found.items()))


_html: Callable[[Trajectory], str] | None = None


def shown_by(html: Callable[[Trajectory], str]) -> None:
    """Has trajectories show themselves in notebooks by `html`. The viewer lies above this module, so it is handed in."""
    global _html
    _html = html


def all_of(overview: View | None, further: Iterable[View]) -> tuple[View, ...]:
    """The overviews of a conversation; none where there is no first one."""
    return () if overview is None else (overview, *further)


def views_of(overviews: Iterable[View], turns: Iterable[Turn]) -> tuple[View, ...]:
    """The overviews and every crop of `turns`, in the order in which the model saw them."""
    seen = [observation.view for turn in turns for observation in turn.observations]
    return (*overviews, *(view for view in seen if view is not None))


Record = TypeVar("Record")
"""A data class: `Sample`, `Trajectory`, or another that is kept a record a line."""


_adapters: dict[Any, Any] = {}


def _adapter(kind: Any) -> Any:
    if kind not in _adapters:
        from pydantic import TypeAdapter  # a tenth of a second that `cof --help` need not pay

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(record: object) -> str:
    """One line of JSON, without a line break. A number that is not finite becomes null: JSON has no word for it."""
    plain = _adapter(type(record)).dump_python(record, mode="json")
    try:
        line = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        line = json.dumps(_finite(plain), ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "replace").decode()  # half a surrogate pair, as a server may send it, is no UTF-8


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(line: str | bytes, kind: type[Record]) -> Record:
    """The record of one line of JSON.

    Raises:
        ValueError: if it is none of `kind`, in one line of text.
    """
    from pydantic import ValidationError

    try:
        record: Record = _adapter(kind).validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise ValueError(f"{where}: {first['msg']}") from None
    if _SUSPECT.search(line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line):
        json.loads(line, parse_constant=_counted, parse_float=_counted, parse_int=_counted)
    return record


_SUSPECT = re.compile(rb"NaN|Infinity|\d{19}|[eE]\+?\d{3}")
"""Where a number may stand that breaks arithmetic; a faster search than reading every line twice."""


def _counted(number: str) -> float:
    """The value of a JSON number.

    Raises:
        ValueError: if it is not finite, or a whole number that no counter reaches.
    """
    value = float(number)
    if not math.isfinite(value) or (number.lstrip("-").isdigit() and abs(value) >= _LARGEST):
        raise ValueError(f"{number[:20]} is no number that can be reckoned with")
    return value


_LARGEST = 2.0**63


def read_jsonl(path: str | Path, kind: type[Record], *, strict: bool = False) -> Iterator[Record]:
    """Read records of `kind`, one a line; blank lines are skipped.

    A last line that has no line break and is no record is an append that was cut off; it is passed over. Other lines that
    are no records are left out, and one warning names them; but a file that has no record at all is refused.

    strict: refuse the file for any such line, as is right for what people write.

    Raises:
        InputError: naming file and line of what is not such a record.
    """
    broken: list[int] = []
    first, read = "", False
    try:
        with open(path, "rb") as file:  # bytes, since a line can be cut off within a character
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    record = from_json(line, kind)
                except ValueError as error:
                    if not line.endswith(b"\n"):
                        break
                    broken.append(number)
                    first = first or f"{path}, line {number} is no {kind.__name__.lower()}: {error}."
                    if strict:
                        raise InputError(first) from None
                    continue
                read = True
                yield record
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    finally:
        if broken and read and not strict:
            _tell_of(str(path), tuple(broken), kind.__name__.lower())
    if broken and not read:
        raise InputError(first)


@cache
def _tell_of(path: str, lines: tuple[int, ...], name: str) -> None:
    """One warning for each file and its broken lines, however often it is read."""
    named = ", ".join(map(str, lines[:_NAMED])) + (f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else "")
    if len(lines) == 1:
        _log.warning("%s: line %s is no %s and was left out.", path, named, name)
        return
    plural = f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"
    _log.warning("%s: lines %s are no %s and were left out.", path, named, plural)


_NAMED = 20  # broken lines that a warning names


class JsonlAppender:
    """Appends records, one a line, each whole or not at all; a cut-off last line of an earlier run is mended first.

    Raises:
        InputError: if the file cannot be written, or another run is writing to it.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = LineFile(Path(path))

    def append(self, record: object) -> None:
        """Writes it at once.

        Raises:
            InputError: if it cannot be written; the file is then as it was.
        """
        self._file.append((to_json(record) + "\n").encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
