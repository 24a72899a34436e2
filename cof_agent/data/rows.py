"""The rows of JSON, JSONL, CSV, TSV, Parquet and Arrow files, one at a time, whatever their form.

A byte order mark, gzip and U+2028 within a text are harmless. Only a JSON file whose top level is an object is read as a whole.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from cof_agent.data.json_object import rows_in
from cof_agent.data.tables import arrow_rows, parquet_rows
from cof_agent.errors import InputError

Kind = Literal["json", "csv", "parquet", "arrow"]

_LONGEST_FIELD = 2**31 - 1  # a TSV holds whole images in one field; csv stops at 128 KiB of its own accord
_CHUNK = 1 << 20  # characters of a JSON list that are read at once
_SEPARATORS = "\t,;|"
_SAYS_SEPARATOR = re.compile(r"\ufeff?sep=(\t|[,;|])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """What one row holds, its number in its file (from 1), and the file."""

    values: Any
    number: int
    file: Path

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}"


def read_rows(path: Path, kind: Kind) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        InputError: if the file cannot be read, or is not of this kind.
    """
    reader = {"json": json_rows, "csv": csv_rows, "parquet": parquet_rows, "arrow": arrow_rows}[kind]
    for number, values in enumerate(reader(path), 1):
        yield Row(values, number, path)


def json_rows(path: Path) -> Iterator[Any]:
    """The rows of a JSON list, of JSONL, or of a JSON object that holds a list of rows.

    Raises:
        InputError: if the file cannot be read or is neither.
    """
    try:
        with opened(path) as file:
            first = _first_character(file)
            yield from _elements(file) if first == "[" else _lines_or_object(file, path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is neither JSON nor JSONL: {error}.") from None
    except RecursionError:
        raise InputError(f"{path} is neither JSON nor JSONL: it is nested too deeply.") from None


def csv_rows(path: Path) -> Iterator[Any]:
    """The rows of a table with a header, separated by tabs, commas, semicolons or bars. An empty field is None. A row with more
    fields than the header is a list of them, since it cannot be told which belong together.

    Raises:
        InputError: if it cannot be read.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with opened(path, newline="") as file:
            header = file.readline()
            if said := _SAYS_SEPARATOR.fullmatch(header.strip()):  # the first line of Excel's tables
                separator = said[1]
            else:
                file.seek(0)
                separator = max(_SEPARATORS, key=header.count)
            lines: list[str] = []
            last: list[str] = []
            reader = csv.DictReader(_noted(file, lines), delimiter=separator)
            _ = reader.fieldnames  # which reads the header
            lines.clear()
            for row in reader:
                last = lines.copy()
                lines.clear()
                surplus = row.pop(None, None)  # type: ignore[call-overload]
                yield [*row.values(), *surplus] if surplus else {name: value or None for name, value in row.items()}
            _check_closed(last, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from None
    except (csv.Error, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path} is no table of text: {error}.") from None


def _noted(file: IO[str], lines: list[str]) -> Iterator[str]:
    for line in file:
        lines.append(line)
        yield line


def _check_closed(lines: Sequence[str], path: Path) -> None:
    """Whether the last row, if it has several lines, ends where its quotation marks do, and not where the file does.

    Raises:
        InputError: if it does not.
    """
    if len(lines) > 1 and sum(line.count('"') for line in lines) % 2:
        raise InputError(f"{path}: a quotation mark in the line that begins {lines[0][:60]!r} is never closed.")


@contextmanager
def opened(path: Path, newline: str = "\n") -> Iterator[IO[str]]:
    """The text of a file, unpacked if it is gzipped, without its byte order mark."""
    with open(path, "rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        with gzip.GzipFile(fileobj=plain) if packed else plain as file:
            start = file.read(2)
            file.seek(0)
            encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
            yield io.TextIOWrapper(file, encoding, newline=newline)


def _first_character(file: IO[str]) -> str:
    """The first one that is no space; the file is at its start again."""
    while (character := file.read(1)).isspace():
        pass
    file.seek(0)
    return character


def _lines_or_object(file: IO[str], path: Path) -> Iterator[Any]:
    first = _next_line(file)
    if not first:
        return
    second = _next_line(file)
    file.seek(0)
    if second and _is_json(first):
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _of_line(line, number)
        return
    yield from rows_in(json.load(file), path)


def _next_line(file: IO[str]) -> str:
    """The next one that is not blank."""
    while line := file.readline():
        if line.strip():
            return line
    return ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _of_line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # which counts the lines of this one
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def _elements(file: IO[str]) -> Iterator[Any]:
    """The elements of a JSON list, in memory one after the other."""
    decoder, text, place, ended = json.JSONDecoder(), "", 0, False
    _first_bracket(file)
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        if text.startswith("]", place):
            if (text[place + 1 :] + file.read()).strip():
                raise ValueError("something follows the list; write one object a line, or one list")
            return
        try:
            value, end = decoder.raw_decode(text, place)
            if end == len(text) and not ended:
                raise ValueError  # a number may go on
        except ValueError:
            if ended:
                raise
            more = file.read(max(_CHUNK, len(text) - place))  # twice as much each time, for a value of any length
            text, place, ended = text[place:] + more, 0, not more
            continue
        yield value
        place = end


def _first_bracket(file: IO[str]) -> None:
    while file.read(1) != "[":
        pass
