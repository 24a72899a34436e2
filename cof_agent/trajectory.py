"""The record: what was asked, what the model did, what it saw, how it ended; and its JSONL store.

No pixels are kept. A crop is recomputed from source + region, byte for byte.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from cof_agent.errors import InputError
from cof_agent.geometry import Box, View


@dataclass(frozen=True, slots=True)
class Sample:
    """One task. `image` is a path; `boxes` are the objects the question needs, in source pixels.

    `answers` are accepted alternatives; with `choices`, the answer is one of them (its text or its letter).
    `regions`, source pixels too, are what `<region1>`, `<region2>`, ... in the question mean (see `regions`).
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    regions: tuple[Box, ...] = ()


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
    """Tokens of one generation: the prompt's (images included) and the completion's. None where a server does not say."""

    prompt: int | None = None
    completion: int | None = None

    def __add__(self, other: Tokens) -> Tokens:
        """Both together; what one of them does not know stays unknown."""
        prompts, completions = (self.prompt, other.prompt), (self.completion, other.completion)
        return Tokens(
            None if None in prompts else sum(n or 0 for n in prompts),
            None if None in completions else sum(n or 0 for n in completions),
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant message: its literal text, the actions in it, and one observation per zoom that was carried out."""

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


class StopReason(StrEnum):
    ANSWERED = "answered"
    MAX_ZOOMS = "max_zooms"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sample's whole conversation. `overview` is None only when the image could not be opened.

    strategy: how the zooms were spent (`strategies.registry`). resolution: long side in shown pixels at which the overview was
    asked for, where it was. play: which of several plays of the sample this is, from 1. shuffle_seed: of the order of the
    choices, where it was drawn. Of RL: the training `step`, `rewards` by name (None where one could not be scored), the
    `advantage`, and the `group` of plays that it was computed over. Fields that do not apply are None.
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
    resolution: int | None = None
    play: int | None = None
    shuffle_seed: int | None = None
    step: int | None = None
    rewards: dict[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    group: str | None = None

    @property
    def key(self) -> Key:
        """What tells it from the other trajectories of its run."""
        return self.sample.id, self.resolution, self.play

    @property
    def views(self) -> tuple[View, ...]:
        """Every image the model was shown, the overview first: what `"image": k` counts."""
        return views_of(self.overview, self.turns)

    @property
    def zooms(self) -> int:
        return max(0, len(self.views) - 1)

    @property
    def seconds(self) -> float:
        return sum(turn.seconds for turn in self.turns)

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture with the zooms, and the text of each turn (see `shown_by`)."""
        return _html(self) if _html else f"<pre>{escape(to_json(self))}</pre>"


_html: Callable[[Trajectory], str] | None = None


def shown_by(html: Callable[[Trajectory], str]) -> None:
    """Has trajectories show themselves in notebooks by `html`. The viewer lies above this module, so it is handed in."""
    global _html
    _html = html


def views_of(overview: View | None, turns: Iterable[Turn]) -> tuple[View, ...]:
    """The overview and every crop of `turns`, in the order in which the model saw them."""
    seen = [observation.view for turn in turns for observation in turn.observations]
    return tuple(view for view in (overview, *seen) if view is not None)


Record = TypeVar("Record")
"""A data class: `Sample`, `Trajectory`, or another that is kept a record a line."""


_adapters: dict[Any, Any] = {}


def _adapter(kind: Any) -> Any:
    if kind not in _adapters:
        from pydantic import TypeAdapter  # a tenth of a second that `cof --help` need not pay

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(record: object) -> str:
    """One line of JSON, without a line break."""
    plain = _adapter(type(record)).dump_python(record, mode="json")
    line = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "replace").decode()  # half a surrogate pair, as a server may send it, is no UTF-8


def from_json(line: str | bytes, kind: type[Record]) -> Record:
    """The record of one line of JSON.

    Raises:
        ValueError: if it is none of `kind`.
    """
    record: Record = _adapter(kind).validate_json(line)
    return record


def read_jsonl(path: str | Path, kind: type[Record]) -> Iterator[Record]:
    """Read records of `kind`, one a line; blank lines are skipped.

    A last line that has no line break and is no record is an append that was cut off; it is passed over.

    Raises:
        InputError: naming file and line of what is not such a record.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    try:
        with open(path, "rb") as file:  # bytes, since a line can be cut off within a character
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield adapter.validate_json(line)
                except ValidationError as error:
                    if not line.endswith(b"\n"):
                        return
                    first = error.errors()[0]
                    where = ".".join(str(part) for part in first["loc"]) or "the line"
                    raise InputError(
                        f"{path}, line {number} is no {kind.__name__.lower()}: {where}: {first['msg']}."
                    ) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None


class JsonlAppender:
    """Appends whole lines; a cut-off last line from an interrupted run is completed or removed on opening."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _end_last_line(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - held until `__exit__`

    def append(self, record: object) -> None:
        self._file.write((to_json(record) + "\n").encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _end_last_line(path: Path) -> None:
    """What `read_jsonl` takes for a record must stay one: only the line break is missing then."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        data = file.read()
        if not data or data.endswith(b"\n"):
            return
        start = data.rfind(b"\n") + 1
        try:
            json.loads(data[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.write(b"\n")


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file whole: to a temporary name beside it, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # an interrupt may come just after the renaming
        raise
