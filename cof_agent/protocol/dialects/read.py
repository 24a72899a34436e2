"""Dialects by name, or from a file of the user's: YAML in, `Dialect` out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic
from cof_agent.protocol.dialects.record import PLACEHOLDER, Dialect
from cof_agent.trajectory import Trajectory

SHIPPED = Path(__file__).parent / "shipped"
OURS = "ours"
RECORD = "dialect.yaml"
"""The file beside a checkpoint that says in which dialect it was trained; without one it was ours."""
CODE = {
    "thyme": "Thyme",
    "deepeyesv2": "DeepEyesV2",
    "deepeyes-v2": "DeepEyesV2",
    "pyvision": "PyVision",
}
"""Checkpoints that answer in Python programs, by the names that people give them."""


def names() -> list[str]:
    """Of the dialects that the package brings, ours first."""
    return sorted((file.stem for file in SHIPPED.glob("*.yaml")), key=lambda name: (name != OURS, name))


def dialect(spec: str) -> Dialect:
    """The dialect of a name or a file, ready for use.

    Raises:
        InputError: if there is none, it is not as it must be, or its words have still to be fetched.
    """
    found = described(spec)
    if found.missing:
        raise InputError(_how_to_fetch(found))
    return found


def described(spec: str) -> Dialect:
    """The dialect of a name or a file, with or without its words.

    Raises:
        InputError: if there is none, or it is not as it must be.
    """
    if spec in names():
        return _shipped(spec)
    if spec.lower() in CODE:
        raise InputError(
            f"{CODE[spec.lower()]} answers in Python programs, which are not executed here; use its authors' own sandbox."
        )
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"there is no dialect {spec}: it is neither a file nor one of {', '.join(names())}.")
    made = _read(path)
    if made.name == OURS and made != ours():  # of ours records hold the name alone
        raise InputError(f"{path} is called {OURS}, but differs from the dialect of that name; give it another name.")
    return made


def beside(folder: str | Path) -> Path | None:
    """The file with the dialect of the checkpoint in a folder, where training has left one there."""
    path = Path(folder) / RECORD
    return path if path.is_file() else None


def record(dialect: Dialect, folder: Path) -> None:
    """Writes a dialect that is not ours beside a checkpoint, from where `beside` reads it.

    Raises:
        InputError: if it cannot be written.
    """
    if dialect != ours():
        write_atomic(folder / RECORD, to_yaml(dialect))


def ours() -> Dialect:
    """The dialect of this toolkit, which needs no words of others."""
    return _shipped(OURS)


def recorded(dialect: Dialect) -> dict[str, Any]:
    """What the settings of a trajectory hold of its dialect: nothing of ours, another in full, so that the conversation can be
    held again word for word."""
    return {} if dialect == ours() else {"dialect": to_plain(dialect)}


def dialect_of(trajectory: Trajectory) -> Dialect:
    """The dialect that a trajectory was held in.

    Raises:
        InputError: if the record does not hold it.
    """
    if trajectory.dialect == OURS:
        return ours()
    return from_plain(trajectory.settings.get("dialect"), f"the dialect of {trajectory.sample.id}")


@cache
def _shipped(name: str) -> Dialect:
    return _read(SHIPPED / f"{name}.yaml")


def _read(path: Path) -> Dialect:
    import yaml  # type: ignore[import-untyped]

    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"cannot read the dialect {path}: {reason}.") from None
    return from_plain(values, str(path))


def from_plain(values: Any, where: str) -> Dialect:
    """The dialect of plain values, as `to_plain` makes them.

    Raises:
        InputError: if they are none; `where` says where they stand.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        made: Dialect = TypeAdapter(Dialect).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{where} is no dialect: {place}: {first['msg']}.") from None
    if not _NAME.fullmatch(made.name):
        raise InputError(f"{where} is no dialect: its name may have letters, digits and . _ - only.")
    end = made.end
    if end.tokens < 1 or not 0 <= end.zooms <= _MOST_ZOOMS or not 0 <= made.temperature <= _HOTTEST:
        raise InputError(
            f"{where} is no dialect: end.tokens must be at least 1, end.zooms 0 to {_MOST_ZOOMS}, temperature 0 to {_HOTTEST}."
        )
    for place, known in _KNOWN.items():
        named = {name for part in _texts(made, place) for name in PLACEHOLDER.findall(part)}
        if unknown := sorted(named - known - made.words.keys()):
            raise InputError(f"{where} is no dialect: {place}: nothing stands for {{{unknown[0]}}} there.")
    if not made.call.open or not made.call.close:
        raise InputError(
            f"{where} is no dialect: call.open and call.close must not be empty; where a call ends with its turn, name the token "
            "that ends the turn."
        )
    return made


def to_plain(dialect: Dialect) -> dict[str, Any]:
    """A dialect as JSON values."""
    from pydantic import TypeAdapter

    found: dict[str, Any] = TypeAdapter(Dialect).dump_python(dialect, mode="json")
    return found


def to_yaml(dialect: Dialect) -> str:
    """A dialect as a file has it."""
    import yaml  # type: ignore[import-untyped]

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Texts of several lines stand as they are."""

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    made: str = yaml.dump(to_plain(dialect), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return made


_NAME = re.compile(r"[\w.-]{1,100}")  # it becomes the name of a file
_MOST_ZOOMS, _HOTTEST = 1000, 2
_SYSTEM = {"tools", "count", "last"}
_QUESTION = {"question", "options"}
_VIEW = {"number", "frame", "width", "height"}
_TURN = {"zoom", "turn", "before"}
_KNOWN = {
    "opening.system": _SYSTEM,
    "opening.system_of_several": _SYSTEM,
    "opening.user": {"image", "width", "height", *_QUESTION},
    "opening.choosing": {"image", "width", "height", *_QUESTION},
    "opening.several": {"image", "place", "count", *_VIEW},
    "opening.option": {"letter", "option"},
    "opening.described": set[str](),
    "opening.parameters": set[str](),
    "reply.parts": {"image", "note", *_QUESTION, *_VIEW, *_TURN},
    "reply.error": {"error", *_QUESTION, *_TURN},
    "reply.text": {"text", *_QUESTION, *_TURN},
    "reply.between": set[str](),
}
"""What is filled in, beside words, in each field that has placeholders."""


def _texts(dialect: Dialect, place: str) -> tuple[str, ...]:
    """The texts of a field, such as `reply.parts`."""
    part, _, name = place.partition(".")
    held: str | tuple[str, ...] = getattr(getattr(dialect, part), name)
    return (held,) if isinstance(held, str) else held


def _how_to_fetch(dialect: Dialect) -> str:
    """Where to get the words from."""
    folder = dialect.repository.rpartition("/")[2]
    own = "".join(f" --word {name}=FILE" for name in without_file(dialect))
    return (
        f"the dialect {dialect.name} needs the words of its authors, which are not copied here: git clone "
        f"{dialect.repository}, then cof dialect import {dialect.name} --from {folder}{own} -o {dialect.name}.yaml, then "
        f"--dialect {dialect.name}.yaml."
    )


def without_file(dialect: Dialect) -> list[str]:
    """The names of words that stand in no file of the authors', so that the user brings them."""
    return [name for name, text in dialect.words.items() if not isinstance(text, str) and not text.file]


def with_words(dialect: Dialect, words: Mapping[str, str]) -> Dialect:
    """The dialect with its words in place."""
    from dataclasses import replace

    return replace(dialect, words={**dialect.words, **words})
