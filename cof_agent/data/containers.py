"""What `--data SPEC` names: a file, a folder, or a set of the hub; which files are read, and of what kind each is.

A file's kind is told by its content, whatever its suffix.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cof_agent.data.folders import OURS, chosen, split_named, split_of
from cof_agent.data.hub import hub_rows
from cof_agent.data.image_files import LFS
from cof_agent.data.images import SUFFIXES
from cof_agent.data.own import KEYS, WRITTEN
from cof_agent.data.rows import Kind, Row, read_rows
from cof_agent.data.spec import is_local
from cof_agent.data.truths import truths_of
from cof_agent.errors import InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?:/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Container:
    """What is read. files: each with its kind, in order; none where `name` is a set of the hub. root: the folder that was named,
    or that of the file. ours: whether it is our own layout, which is taken as it stands. notes: what a user should know."""

    name: str
    files: tuple[tuple[Path, Kind], ...]
    root: Path | None
    split: str | None = None
    ours: bool = False
    notes: tuple[str, ...] = field(default=())

    def rows(self) -> Iterator[Row]:
        """Every row, those of a file after those of the one before.

        Raises:
            InputError: if a file or the set cannot be read.
        """
        if not self.files:
            yield from hub_rows(self.name, self.split)
        for path, kind in self.files:
            beside = _image_beside(path) if kind == "json" else None
            rows = read_rows(path, kind)
            if beside is None:
                yield from rows
                continue
            first = [*islice(rows, 2)]  # the image is that of one row, not of a whole table's
            yield from [_with_image(first[0], beside)] if len(first) == 1 else first
            yield from rows

    def folders(self, images: Path | None) -> tuple[Path, ...]:
        """Where the paths of images are tried, in this order. images: the folder that a user says they are relative to."""
        if images is not None:
            return (images,)
        if self.root is None:
            return (Path(),)
        beside = {path.parent for path, _ in self.files}
        above = [self.root, *sorted(beside), *(up for folder in sorted(beside) for up in list(folder.parents)[:2])]
        inside = [folder / name for folder in sorted(beside) for name in ("images", "imgs")]
        return tuple(dict.fromkeys([*above, *inside]))


def _image_beside(path: Path) -> str | None:
    """The image that lies beside a file under the same name."""
    here = path.with_suffix("")
    return next((str(image) for suffix in SUFFIXES if (image := here.with_suffix(suffix)).is_file()), None)


def _with_image(row: Row, image: str) -> Row:
    """A row about the image that lies beside its file, unless it says more about its image itself."""
    if not isinstance(row.values, dict) or any(map(_names_image, row.values.values())):
        return row
    return replace(row, values={"file": image} | row.values)


def _names_image(value: Any) -> bool:
    return isinstance(value, str) and Path(value[-_LONGEST_SUFFIX:]).suffix.lower() in SUFFIXES


_LONGEST_SUFFIX = 12


def find(spec: str, split: str | None = None) -> Container:
    """The source that a user names.

    Raises:
        InputError: if there is no such file, folder or set, or it holds nothing that can be read.
    """
    path = Path(spec)
    if path.is_dir():
        found = chosen(path, split)
        files = tuple((file, kind_of(file)) for file in found.files)
        ours = all(_is_ours(file, kind) for file, kind in files)
        return Container(spec, files, path, split, ours=ours, notes=found.notes)
    if path.exists():
        if split is not None and split_of(Path(path.name)) != split_named(split):
            raise InputError(f"--split {split} chooses files of a folder or rows of the hub; {spec} is one file.")
        truths = truths_of(path)
        notes = (f"answers from {truths}",) if truths is not None else ()
        kind = kind_of(path)
        return Container(spec, ((path, kind),), path.parent, split, ours=_is_ours(path, kind), notes=notes)
    if not _HUB_ID.fullmatch(spec) or is_local(spec):
        raise InputError(f"there is no file or folder {spec}, and a dataset of the hub is named like owner/name.")
    return Container(spec, (), None, split)


def _is_ours(path: Path, kind: Kind) -> bool:
    """Whether a file holds our own layout: it is called so, or its first row has what each has that we write."""
    if path.name == OURS or kind != "json":
        return path.name == OURS
    first = next(read_rows(path, kind), None)
    keys = set(first.values) if first is not None and isinstance(first.values, dict) else set()
    return WRITTEN <= keys <= KEYS


def kind_of(path: Path) -> Kind:
    """The kind of a file, by what it begins with.

    Raises:
        InputError: if it cannot be read or is of no kind that is read here.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                head = unpacked.read(4096)
    except (OSError, EOFError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    return _kind(head, path)


_PACKED = (b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh")
"""How archives of 7-Zip and RAR, and files of zstd, xz and bzip2 begin."""


def _kind(head: bytes, path: Path) -> Kind:
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    if path.suffix.lower() in (".xlsx", ".ods"):
        raise InputError(f"{path} is a spreadsheet; save it as CSV.")
    if head[:4] == b"PK\x03\x04" or head[257:262] == b"ustar" or head.startswith(_PACKED):
        raise InputError(f"{path} is an archive; unpack it.")
    if head.startswith(LFS):
        raise InputError(f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, as Windows writes it
        head = head.replace(b"\0", b"")[2:]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text or text[:1] in b"[{" or path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return "json"
    if b"\0" in text or not any(separator in text.partition(b"\n")[0] for separator in (b",", b"\t", b";", b"|")):
        raise InputError(f"{path} is neither JSON, JSONL, CSV, TSV, Parquet nor Arrow.")
    return "csv"
