"""What `IMAGE` of `cof ask` stands for: a file, standard input, an address, or all images of a folder or a pattern."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cof_agent.data.fetch import MOST_BYTES, Fetcher
from cof_agent.data.image_files import written_once
from cof_agent.data.images import SUFFIXES, kind_of_image
from cof_agent.errors import InputError
from cof_agent.image import SLIDES, file_of, is_pdf, pages_of

STDIN = "-"

_SUFFIXES = SUFFIXES | SLIDES | {".pdf"}
TRAJECTORIES = ("trajectory.jsonl", "trajectories.jsonl")
_PAGE, _EVERY = "#page=", "#page=*"


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a name stands for. each: whether every path is a question of its own, else there is one path."""

    paths: tuple[str, ...]
    each: bool = False


def find(name: str) -> Pictures | None:
    """The images of a folder or a pattern such as `scans/*.png`, sorted, each page of a PDF file by itself; None for the name
    of one image. `file.pdf#page=*` are all pages of one file.

    Raises:
        InputError: if there are none.
    """
    if name.lower().endswith(f".pdf{_EVERY}"):
        return Pictures(tuple(pages_of(name.removesuffix(_EVERY))), each=True)
    if os.path.isdir(name):
        found = sorted(map(str, _images_in(Path(name))))
        if not found:
            raise InputError(f"the folder {name} has no images.")
        return _each(found)
    if glob.has_magic(name) and not is_address(name) and not os.path.exists(file_of(name)):
        found = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
        if not found:
            raise InputError(f"no file matches {name}.")
        return _each(found)
    return None


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder at any depth, but for those that a command of ours has written beside its trajectories: the picture
    of a trajectory, and what it was sent or fetched, under names made of the content."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    ours = {file.parent for name in TRAJECTORIES for file in folder.rglob(name)}

    def is_ours(path: Path) -> bool:
        if path.parent in ours:
            return path.name == "trajectory.png"
        kept = path.parent.name == "images" and path.parent.parent in ours
        return kept and re.fullmatch(r"[0-9a-f]{24}", path.stem) is not None

    return [path for path in found if not is_ours(path)]


def _each(files: Sequence[str]) -> Pictures:
    paths: list[str] = []
    for file in files:
        try:
            pages = pages_of(file) if file.lower().endswith(".pdf") else []
        except InputError:
            pages = []  # the file's own answer says what is wrong with it
        paths += pages if len(pages) > 1 else [file]
    return Pictures(tuple(paths), each=True)


def is_address(name: str) -> bool:
    """Whether the name of an image is a URL."""
    return name.startswith(("http://", "https://"))


def taken(name: str, keep: Path, fetcher: Fetcher | None) -> str:
    """The path of one image. What comes from standard input or an address is written to the folder `keep`. fetcher: None where
    nothing may be fetched.

    Raises:
        InputError: if it cannot be read, is too large, or may not be fetched.
    """
    if name == STDIN:
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
        if not content:
            raise InputError("standard input is empty; send an image there, or name a file.")
        if len(content) > MOST_BYTES:
            raise InputError(f"the image in standard input is larger than {MOST_BYTES:,} bytes; save it to a file.")
        return _kept(content, keep)
    if not is_address(name):
        return name
    if fetcher is None:
        raise InputError(f"{name} is an address; with --download it is fetched.")
    address, mark, page = name.partition(_PAGE)
    return _kept(fetcher.get(address), keep) + mark + page


def _kept(content: bytes, keep: Path) -> str:
    kind = "pdf" if is_pdf(content[:64]) else kind_of_image(content[:64])
    return written_once(content, kind or "img", keep)
