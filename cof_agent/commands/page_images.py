"""The images of a page: the folder of `--images`, and what a command says of those that were moved or are missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.embedded import Missing

IMAGES = "folder to look for images in, by path or by name (default: beside the trajectories, and in folders above)"
"""What `--images` is here."""

_NAMED = 5


def folder_of(options: argparse.Namespace) -> Path | None:
    """The folder of `--images`; None without the option.

    Raises:
        InputError: if there is no such folder.
    """
    folder = None if options.images is None else Path(options.images)
    if folder is not None and not folder.is_dir():
        raise InputError(f"--images {folder} is no folder.")
    return folder


def say(command: str, notes: Iterable[str]) -> None:
    """Prints lines on stderr; those that are indented belong to the one before."""
    for note in notes:
        print(for_terminal(note if note.startswith(" ") else f"{command}: {note}"), file=sys.stderr)


def moved_notes(pairs: Iterable[tuple[Trajectory, Trajectory]]) -> Iterator[str]:
    """How many images were found in another place than the run recorded, and the first ones by name.

    pairs: each trajectory as it was recorded, and with its images found.
    """
    paths = [two for one, other in pairs for two in zip(one.sample.images, other.sample.images, strict=True)]
    moved = {before: after for before, after in paths if before != after and Path(before).is_absolute()}
    if moved:
        yield f"{_images(len(moved))} found in another place than the run recorded:"
        yield from named([f"{before} is now {after}" for before, after in moved.items()])


def missing_notes(missing: Sequence[Missing]) -> Iterator[str]:
    """How many images are missing, and the first ones by name."""
    if missing:
        yield f"{_images(len(missing))} missing on the page (--images DIR says where the images are):"
        yield from named([f"{one.sentence} (trajectories: {one.trajectories:,})" for one in missing])


def _images(count: int) -> str:
    return "an image is" if count == 1 else f"{count:,} images are"


def named(lines: Sequence[str]) -> Iterator[str]:
    """The first lines, and how many there are beside them."""
    yield from (f"  {line}" for line in lines[:_NAMED])
    if len(lines) > _NAMED:
        yield f"  and {len(lines) - _NAMED:,} more"
