"""A benchmark's copy on disk: its files, the rows in them, and the images that rows hold or name."""

from __future__ import annotations

import base64
import binascii
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cof_agent.data.image_files import kept_image
from cof_agent.data.rows import json_rows
from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install

Row = dict[str, Any]

_READ_AT_ONCE = 1 << 20  # bytes of a Parquet file
_LONGEST_FIELD = 2**31 - 1  # a TSV holds whole images in one field; csv stops at 128 KiB of its own accord


@dataclass(frozen=True, slots=True)
class Copy:
    """The folders of one benchmark (or its one file), and the folder to write images to that its rows hold themselves."""

    name: str
    roots: tuple[Path, ...]
    images: Path

    def __str__(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def files(self, *patterns: str) -> list[Path]:
        """The files, at any depth, of the first pattern that fits any; a root that is a file is taken as it is.

        Raises:
            InputError: if no pattern fits a file.
        """
        given = [root for root in self.roots if root.is_file()]
        if given:
            return given
        for pattern in patterns:
            found = sorted(path for root in self.roots for path in root.rglob(pattern) if path.is_file())
            if found:
                return found
        raise InputError(
            f"{self} holds no {' or '.join(patterns)}, where {self.name} has its questions; unpack it, or give the "
            "folder as it was published."
        )

    def rows(self, files: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Every row of JSON, JSONL, TSV or Parquet files, with the words that name its place.

        Raises:
            InputError: if a file cannot be read, or a row has nothing in one of `columns`.
        """
        for file in files:
            for number, row in enumerate(_read(file), 1):
                where = f"{file}, row {number}"
                if not isinstance(row, dict):
                    raise InputError(f"{where} is no object with named fields.")
                absent = [column for column in columns if row.get(column) in (None, "")]
                if absent:
                    raise InputError(
                        f"{where} has nothing in the column {absent[0]!r} ({self.name} has {', '.join(columns)}; here are "
                        f"{', '.join(str(column) for column in row)[:200]}): is it the published file?"
                    )
                yield where, row

    def held(self, content: Any, where: str) -> str:
        """The path of an image that a row holds: as base64, as bytes, or as the `datasets` package writes it to Parquet.

        Raises:
            InputError: if it is none, naming the row.
        """
        if isinstance(content, dict):
            content = content.get("bytes")
        if isinstance(content, str):
            try:
                content = base64.b64decode("".join(content.split()), validate=True)
            except (binascii.Error, ValueError):
                raise InputError(f"{where} holds an image that is not base64; download the file again.") from None
        if not isinstance(content, bytes) or not content:
            raise InputError(f"{where} holds no image.")
        return kept_image(content, where, self.images)

    def named(self, folder: Path, name: Any, where: str) -> str:
        """The path of the image that a row names relative to `folder`, which it may not leave.

        Raises:
            InputError: if it is no such path, naming the row.
        """
        # Checked by its words: the hub's cache keeps every file as a link to elsewhere.
        path = PurePosixPath(name if isinstance(name, str) else "")
        if not path.name or path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\\" in name:
            raise InputError(f"{where} names its image {str(name)[:80]!r}, which is no path inside {folder}.")
        return str(folder / path)


def _read(file: Path) -> Iterator[Any]:
    kind = file.suffix.lower()
    if kind in (".json", ".jsonl"):
        return json_rows(file)
    if kind == ".tsv":
        return _tsv_rows(file)
    if kind == ".parquet":
        return _parquet_rows(file)
    raise InputError(f"{file} is neither JSON, JSONL, TSV nor Parquet.")


def _tsv_rows(file: Path) -> Iterator[Row]:
    """Rows as pandas writes them: tab-separated, quoted where needed. An empty field is None."""
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                yield {name: value or None for name, value in row.items() if name is not None}
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no TSV: {error}.") from None


def _parquet_rows(file: Path) -> Iterator[Row]:
    """Rows as they are read. `datasets` would hold whole row groups, which in these files are most of the file, several times."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"reading {file} needs the package pyarrow: {how_to_install('pyarrow')}.") from None
    try:
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=_READ_AT_ONCE) as table:
            for batch in table.iter_batches(batch_size=1):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {file}: {said(error)}") from None


def text(row: Row, column: str) -> str:
    """A column's text without spaces around it, each run of spaces within a line as one."""
    value = row.get(column)
    return re.sub(r"[^\S\n]+", " ", "" if value is None else str(value)).strip()
