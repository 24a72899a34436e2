"""Which files of a folder are read: our own samples, a set that `datasets` saved, or the data files of a published set.

Splits are told by names, as the hub does: a file or folder named `train`, `validation` or `test` holds that split. The
configurations that a card (`README.md`) lists count, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cof_agent.data.hub import chosen_split
from cof_agent.data.images import SUFFIXES, VIDEO_SUFFIXES
from cof_agent.data.truths import without_truths
from cof_agent.errors import InputError
from cof_agent.output.files import json_object

OURS = "samples.jsonl"

_SUFFIXES = (
    (".parquet", ".pq"),
    (".arrow",),
    (".jsonl", ".ndjson"),
    (".json",),
    (".tsv",),
    (".csv",),
)  # the likeliest first
_OTHER = {
    *SUFFIXES,
    *VIDEO_SUFFIXES,
    ".zip",
    ".tar",
    ".md",
    ".txt",
    ".py",
    ".yaml",
    ".yml",
    ".log",
    ".html",
    ".pdf",
    ".npy",
    ".gz",
}
_NOT_DATA = {
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "summary.json"),
    *("trajectories.jsonl", "rejected.jsonl", "highlights.jsonl", "left_out.jsonl", "package.json", "tokenizer.json"),
}
_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?:train|val|valid|validation|dev|test)(?:ing)?(?:[A-C]|mini|dev|std|\d{4})?", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(?:zst|bz2|xz|zip|tar|tgz|tar\.gz|7z|rar)(?:\.?\d+)?\Z", re.IGNORECASE)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files that are read, in order, and what a user should know of the choice."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def chosen(folder: Path, split: str | None) -> Chosen:
    """The files of one split of a folder. split: by default the training split, or the only one.

    Raises:
        InputError: if there are none, or several splits and none is named.
    """
    if (folder / OURS).is_file():
        if split not in (None, (json_object(folder / "scenes.json") or {}).get("split")):
            raise InputError(f"{folder} holds one set, {OURS}, so that there is no split {split}; leave it out.")
        return Chosen((folder / OURS,))
    saved = _saved(folder, split)
    if saved is not None:
        return Chosen(saved)
    configured = _configured(folder, split)
    if configured:
        return Chosen(configured, _missing_parts(configured))
    return _by_names(folder, split)


def _saved(folder: Path, split: str | None) -> tuple[Path, ...] | None:
    """The files of a set that `save_to_disk` wrote; None where it did not."""
    splits = (json_object(folder / "dataset_dict.json") or {}).get("splits")
    if isinstance(splits, list):
        return _saved(folder / (split or chosen_split([str(one) for one in splits], str(folder))), None)
    files = (json_object(folder / "state.json") or {}).get("_data_files")
    if not isinstance(files, list) or not files:
        return None
    return tuple(folder / str(file["filename"]) for file in files)


def _configured(folder: Path, split: str | None) -> tuple[Path, ...]:
    """The files of the default configuration that a card lists; none where it lists none, or they are not here."""
    found = [one for one in _configurations(folder / "README.md") if isinstance(one.get("data_files"), list)]
    default = next((one for one in found if one.get("config_name") == "default" or one.get("default")), None)
    if default is None and len(found) != 1:
        return ()
    by_split = {
        str(entry["split"]): entry["path"]
        for entry in (default or found[0])["data_files"]
        if isinstance(entry, dict) and "split" in entry and "path" in entry
    }
    files = {name: _globbed(folder, patterns) for name, patterns in by_split.items()}
    here = {name: paths for name, paths in files.items() if paths}
    if not here or (split is not None and split not in here):
        return ()
    return here[split or chosen_split(list(here), str(folder))]


def _configurations(card: Path) -> list[dict[str, Any]]:
    try:
        text = card.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    _, _, rest = text.partition("---\n") if text.startswith("---") else ("", "", "")
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(rest.partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    configurations = found.get("configs") if isinstance(found, dict) else None
    return [one for one in configurations if isinstance(one, dict)] if isinstance(configurations, list) else []


def _globbed(folder: Path, patterns: Any) -> tuple[Path, ...]:
    """The files of a card's patterns. What lies outside the folder is none of the set."""
    listed = [PurePosixPath(str(one)) for one in (patterns if isinstance(patterns, list) else [patterns])]
    inside = [one for one in listed if not one.is_absolute() and ".." not in one.parts and one.parts]
    try:
        found = [path for pattern in inside for path in sorted(folder.glob(str(pattern))) if path.is_file()]
    except ValueError:  # `a**` is no pattern
        return ()
    return tuple(found)


def _by_names(folder: Path, split: str | None) -> Chosen:
    every = sorted(_data_files(folder))
    kinds = [[path for path in every if _kind(path) == number] for number in range(len(_SUFFIXES))]
    splits = [_by_split(files, folder) for files in kinds if files]
    if not splits:
        packed = archives(folder)
        raise InputError(
            f"{folder} holds no samples: there is no JSON, JSONL, CSV, TSV, Parquet or Arrow file in it"
            f"{f'; unpack {packed}' if packed else ''}."
        )
    if split is None:
        files = splits[0][chosen_split([name for name in splits[0] if name] or [""], str(folder))]
    else:
        files = next((found for one in splits for name, found in one.items() if _is_split(name, split, found)), [])
        if not files:
            known = ", ".join(sorted({name for one in splits for name in one if name})) or "none"
            raise InputError(f"{folder} has no split {split}; it has {known}.")
    asked, truths = without_truths(files)
    answers = [f"answers from {path.relative_to(folder)}" for path in truths]
    taken = set(files)
    other = [str(path.relative_to(folder)) for path in every if path not in taken]
    names = f"{', '.join(other[:5])}{f' and {len(other) - 5} more' if len(other) > 5 else ''}"
    parents = sorted({str(path.parent.relative_to(folder)) for path in asked})
    together = [f"read together: files of {len(parents)} folders, {', '.join(parents[:5])}"] if len(parents) > 1 else []
    return Chosen(asked, (*_missing_parts(asked), *answers, *together, *([f"not read: {names}"] if other else [])))


def archives(folder: Path) -> str:
    """The names of the archives in a folder, as a text; "" for none."""
    names = sorted(str(path.relative_to(folder)) for path in _files(folder) if _ARCHIVE.search(path.name))
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _data_files(folder: Path) -> list[Path]:
    """Each file once: the hub's cache has each under two names, of which one is a link."""
    found = [path for path in _files(folder) if path.name not in _NOT_DATA and _kind(path) is not None]
    linked = {path.resolve() for path in found if path.is_symlink()}
    return [path for path in found if path.is_symlink() or path.resolve() not in linked]


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _kind(path: Path) -> int | None:
    """The place of a file's kind in `_SUFFIXES`; None for no data. Parquet is known under any name."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    suffix = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    known = next((number for number, suffixes in enumerate(_SUFFIXES) if suffix in suffixes), None)
    return 0 if known is None and suffix not in _OTHER and _is_parquet(path) else known


def _is_parquet(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def _by_split(files: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Files by the split that their names say, "" for none."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(split_of(path.relative_to(folder)), []).append(path)
    return found


def split_of(path: Path) -> str:
    """The split that a path names: in the file's name, else in that of the folder nearest to it."""
    for part in (path.name.partition(".")[0], *reversed(path.parts[:-1])):
        for word in reversed(re.split(r"[^A-Za-z0-9]+", part)):
            if _SPLIT.fullmatch(word):
                return split_named(word)
    return ""


def split_named(wanted: str) -> str:
    """A split by the name that it has here: `validation` for `val` and `dev`."""
    return _SPLITS.get(wanted.lower(), wanted.lower())


def _is_split(name: str, wanted: str, files: Iterable[Path]) -> bool:
    """Whether a split is the one that is asked for, by its name or by that of its files."""
    return name == split_named(wanted) or all(path.name.startswith(wanted) for path in files)


def _missing_parts(files: Iterable[Path]) -> tuple[str, ...]:
    """A note for each set of numbered files that is not complete."""
    parts: dict[tuple[str, str], int] = {}
    for path in files:
        if found := _SHARD.search(path.name):
            key = str(path.parent / path.name[: found.start()]), found[2]
            parts[key] = parts.get(key, 0) + 1
    return tuple(
        f"{here} of {int(count)} parts of {name} are here" for (name, count), here in parts.items() if here < int(count)
    )
