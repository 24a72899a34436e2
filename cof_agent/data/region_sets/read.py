"""Reads the files of the sets, none of which is trusted: JSON, pickles of plain values, boxes; what is wrong is a sentence."""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cof_agent.errors import InputError
from cof_agent.geometry import Box

SPLIT = "split"
"""The key in a sample's metadata of the split that it is of, where a set has several."""


def json_of(path: Path, kind: type[Any]) -> Any:
    """The JSON value of a file, of this kind.

    Raises:
        InputError: if the file cannot be read, or holds anything else.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no JSON, or only a part of it; get the file again.") from None
    if not isinstance(found, kind):
        raise InputError(f"{path} holds no JSON {'list' if kind is list else 'object'}; is it another file of the set?")
    return found


class _NotPlain(pickle.UnpicklingError):
    """What a pickle holds beside plain values."""


class _Plain(pickle.Unpickler):
    """A pickle can name any function to be called; one of a set's annotations needs none."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _NotPlain(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _NotPlain("it refers to something outside")


def plain_pickle(path: Path) -> list[Any]:
    """The list in a pickle of lists, dictionaries, numbers and strings. Nothing in it is called or imported.

    Raises:
        InputError: if the file cannot be read, is cut off, or holds anything else.
    """
    try:
        content = path.read_bytes()
        _check_memo(content)
        found = _Plain(io.BytesIO(content), encoding="latin-1").load()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except _NotPlain as error:
        raise InputError(f"{path} is no pickle of plain lists and numbers: {error}; it is not read.") from None
    except Exception:  # what damaged bytes make the unpickler raise is not limited
        raise InputError(f"{path} is no pickle, or only a part of one; get the file again.") from None
    if not isinstance(found, list):
        raise InputError(f"{path} holds no list; is it another file of the set?")
    return found


def _check_memo(content: bytes) -> None:
    """A number of a value that is far beyond how many there are would have memory set aside for all before it.

    Raises:
        _NotPlain: if there is one.
    """
    for opcode, number, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and int(number or 0) > len(content):
            raise _NotPlain("it numbers more values than it holds")


def text(value: Any) -> str:
    """A field that is a text.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"a text is {type(value).__name__}")
    return value


@contextmanager
def row(path: Path, number: int | str) -> Iterator[None]:
    """What a row lacks, inside, is a sentence with the file and the row.

    Raises:
        InputError: for a missing or wrong field.
    """
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}, row {number} has no field {error}; is it another file of the set?") from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}, row {number} is not as the set has it: {str(error)[:200]}.") from None


def box_of(x: Any, y: Any, width: Any, height: Any) -> Box | None:
    """The box, source pixels, of a corner and sides; None without an area, of which public sets have some.

    Raises:
        ValueError: if these are no finite numbers.
    """
    values = [float(value) for value in (x, y, width, height)]
    if not all(map(math.isfinite, values)):
        raise ValueError("a box is not four finite numbers")
    left, top, wide, high = values
    return Box(left, top, left + wide, top + high) if wide > 0 and high > 0 else None


def indexed(path: Path, rows: list[Any]) -> Mapping[Any, Any]:
    """Rows by their `id`.

    Raises:
        InputError: if one has none.
    """
    found = {}
    for number, one in enumerate(rows, 1):
        with row(path, number):
            found[one["id"]] = one
    return found
