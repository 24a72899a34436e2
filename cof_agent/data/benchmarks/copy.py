"""A benchmark's copy on disk: its files, the rows in them, and the images that rows hold or name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cof_agent.data.containers import kind_of
from cof_agent.data.image_files import kept_image
from cof_agent.data.images import Reference, decoded, references
from cof_agent.data.nested import is_missing
from cof_agent.data.rows import Row, read_rows
from cof_agent.errors import InputError

_SPLITS = re.compile(rb'\s*\{\s*"(?:train|test|val|validation|dev)"\s*:\s*\[')
_BESIDE = (
    *("", "imgs", "images", "all_images", "all_images/all_images", "png", "train_images", "val2014"),
    *("OCRBench_Images", "infographicsvqa_images", "spdocvqa_images"),
)
_FOLDERS = (*_BESIDE, *(f"../{folder}" for folder in _BESIDE))
"""Where images lie, seen from the folder of the file that names them."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The folders of one benchmark (or its one file), and the folder to write images to that its rows hold themselves.

    size: how many questions were published, where that is known.
    """

    name: str
    roots: tuple[Path, ...]
    images: Path
    size: int | None = None
    _seen: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return ", ".join(str(root) for root in self.roots)

    def find(self, patterns: Sequence[str]) -> list[Path]:
        """The files, at any depth, of the first pattern that fits any; a root that is a file is taken as it is.

        A pattern may name several folders or files at once: `{a,b}/*.json`.
        """
        given = [root for root in self.roots if root.is_file()]
        if given:
            return given
        for pattern in patterns:
            found = {path for one in _expanded(pattern) for root in self.roots for path in _fitting(root, one)}
            if found:
                return sorted(found)
        return []

    def first(self, file: Path) -> Mapping[str, Any]:
        """The first row of a file; empty where it has none.

        Raises:
            InputError: if the file cannot be read.
        """
        row = next(self._rows(file), None)
        return row.values if row is not None and isinstance(row.values, dict) else {}

    def rows(self, files: Sequence[Path], columns: Sequence[str]) -> Iterator[Row]:
        """Every row of the files.

        Raises:
            InputError: if a file cannot be read, or a row has nothing in one of `columns`.
        """
        for file in files:
            for row in self._rows(file):
                if not isinstance(row.values, dict):
                    raise InputError(f"{row} is no object with named fields.")
                absent = [column for column in columns if is_missing(row.values.get(column))]
                if absent:
                    raise InputError(
                        f"{row} has nothing in the column {absent[0]!r} ({self.name} has {', '.join(columns)}; here are "
                        f"{', '.join(str(column) for column in row.values)[:200]}): is it the published file?"
                    )
                yield row

    def _rows(self, file: Path) -> Iterator[Row]:
        kind = kind_of(file)
        if kind == "json" and _SPLITS.match(_head(file)):
            values = self._of_splits(file)
            return (Row(one, number, file) for number, one in enumerate(values, 1))
        return read_rows(file, kind)

    def _of_splits(self, file: Path) -> list[Any]:
        """The rows of a JSON file that has a list for each split: those of the split that is the benchmark."""
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is no JSON: {error}.") from None
        splits = {name: rows for name, rows in found.items() if isinstance(rows, list)}
        every = [row for rows in splits.values() for row in rows]
        tests = [splits[name] for name in ("test", "validation", "val", "dev") if name in splits]
        return next((rows for rows in (*tests, every) if len(rows) == self.size), (*tests, every)[0])

    def pictures(self, value: Any, row: Row, id: str = "") -> tuple[str, ...]:
        """The paths of the images that a column holds (bytes, base64, `{"bytes", "path"}`, lists of these) or names.

        id: the row's own, by which rows behind it may name its image, as VLMEvalKit's files do.

        Raises:
            InputError: if there is none, naming the row.
        """
        known = self._seen.get(value) if isinstance(value, str) else None
        found = known or tuple(self._picture(one, row) for one in references(value))
        if not found:
            raise InputError(f"{row} holds no image, but {str(value)[:80]!r}.")
        if id:
            self._seen[id] = found
        return found

    def _picture(self, found: Reference, row: Row) -> str:
        if found.kind == "path":
            return self._named(found.value, row)
        content = found.value if found.kind == "bytes" else decoded(found.value)
        if not isinstance(content, bytes):
            raise InputError(f"{row} holds an image that cannot be read: download it again.")
        return kept_image(content, str(row), self.images)

    def _named(self, name: str, row: Row) -> str:
        """The path of the image that a row names relative to a folder of the copy, which it may not leave."""
        # Checked by its words: the hub's cache keeps every file as a link to elsewhere.
        path, beside = PurePosixPath(name), row.file.parent
        if not path.suffix or path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\\" in name:
            raise InputError(f"{row} names its image {name[:80]!r}, which is no path inside {beside}.")
        # Some name the folder of the benchmark, too, which a copy may have under another name.
        names = [path, *([PurePosixPath(*path.parts[1:])] if len(path.parts) > 1 else [])]
        places = [os.path.normpath(beside / folder / one) for one in names for folder in _FOLDERS]
        return next((place for place in places if os.path.isfile(place)), str(beside / path))


def _head(file: Path) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(256)


def _expanded(pattern: str) -> list[str]:
    found = re.search(r"\{([^}]*)\}", pattern)
    return [pattern.replace(found[0], one) for one in found[1].split(",")] if found else [pattern]


def _fitting(root: Path, pattern: str) -> Iterator[Path]:
    last = PurePosixPath(pattern).name
    return (path for path in root.rglob(last) if path.absolute().match(pattern) and path.is_file())


def text(row: Row, column: str) -> str:
    """A column's text without spaces around it, each run of spaces within a line as one."""
    value = row.values.get(column)
    return re.sub(r"[^\S\n]+", " ", "" if value is None else str(value)).strip()
