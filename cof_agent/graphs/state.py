"""What the zoom graph keeps between its nodes: the record so far, as plain JSON values.

Plain values survive any checkpointer and any JSON-speaking front end as they are, and reading a checkpoint back
constructs nothing but strings, numbers, lists and dictionaries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.trajectory import Answer, Failure, Malformed, Sample, StopReason, Turn, all_of, views_of

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


class Ask(TypedDict):
    """The graph's input: a `Sample` as JSON; `image` (or `images`) and `question` suffice."""

    sample: dict[str, Any]


class State(Ask, total=False):
    """The record so far; the values are `Sample`, `View`, `Turn`, `StopReason` as JSON.

    `changed` is when the image's file was last changed, in nanoseconds; of several images, a list. `more_overviews` are those
    of further images.
    A last turn that acts but has no observations yet is waiting for the zoom node.
    """

    overview: dict[str, Any] | None
    more_overviews: list[dict[str, Any]]
    changed: int | list[int]
    turns: list[dict[str, Any]]
    stop: str | None
    answer: str | None
    error: str | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Progress:
    """`State`, typed."""

    sample: Sample
    overview: View | None = None
    more_overviews: tuple[View, ...] = ()
    changed: int | tuple[int, ...] | None = None
    turns: tuple[Turn, ...] = ()
    stop: StopReason | None = None
    answer: str | None = None
    error: str | None = None
    failure: Failure | None = None

    @property
    def overviews(self) -> tuple[View, ...]:
        return all_of(self.overview, self.more_overviews)

    @property
    def views(self) -> tuple[View, ...]:
        return views_of(self.overviews, self.turns)

    @property
    def zooms(self) -> int:
        """Crops shown so far."""
        return len(self.views) - len(self.overviews)

    @property
    def texts(self) -> int:
        """Looks that were answered in words so far."""
        return sum(observation.text is not None for turn in self.turns for observation in turn.observations)

    @property
    def fruitless(self) -> int:
        """Turns in a row, up to the last one, that brought nothing to see: malformed, or with refused boxes only."""
        count = 0
        for turn in reversed(self.turns):
            if any(observation.error is None for observation in turn.observations):
                break
            count += 1
        return count

    def refused(self, max_zooms: int) -> bool:
        """Whether a zoom was refused because `max_zooms` were used up, so that the model has been told."""
        looks = 0
        for turn in self.turns:
            acted = (action for action in turn.actions if not isinstance(action, Answer))
            for action, observation in zip(acted, turn.observations, strict=False):
                if not isinstance(action, Malformed) and looks >= max_zooms:
                    return True
                looks += observation.error is None
        return False


_PROGRESS = TypeAdapter(Progress)
_VALUES: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Sample, View, Turn)}


def progress(state: State | dict[str, Any]) -> Progress:
    """The typed record in a state.

    Raises:
        InputError: if the input of the graph is no sample.
    """
    sample = state.get("sample")
    if isinstance(sample, dict):
        named = sample.get("image") or next(iter(sample.get("images") or ()), "")
        state = {**state, "sample": {"id": str(named), **sample}}
    try:
        return _PROGRESS.validate_python(state)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"the input of the graph is no sample: {where}: {first['msg']}.") from None


def plain(record: Sample | View | Turn) -> Any:
    """A record as JSON values."""
    return _VALUES[type(record)].dump_python(record, mode="json")


@asynccontextmanager
async def open_checkpoints(path: str | Path) -> AsyncIterator[AsyncSqliteSaver]:
    """A SQLite checkpointer for `focus.run`: a run that was killed goes on from its last finished step.

    Raises:
        InputError: if the file cannot be opened as a SQLite database.
    """
    import sqlite3

    import aiosqlite
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        async with aiosqlite.connect(path) as connection:
            # No type beyond LangGraph's own safe ones is ever constructed from the file.
            saver = AsyncSqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
            await saver.setup()
            yield saver
    except sqlite3.DatabaseError as error:
        raise InputError(f"cannot use {path} for checkpoints: {error}.") from None
