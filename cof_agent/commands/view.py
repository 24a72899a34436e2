"""`cof view TRAJECTORIES ... -o PAGE.html`: a page to look at what was done."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cof_agent import scoring
from cof_agent.commands.options import option
from cof_agent.commands.page_images import IMAGES, folder_of, missing_notes, moved_notes, named, say
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.output.progress import progress
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.embedded import MAX_TRAJECTORIES, Missing
from cof_agent.viewer.full_resolution import address_of, server_of
from cof_agent.viewer.located import located
from cof_agent.viewer.record import Origin
from cof_agent.viewer.report import write_page

FILES = ("trajectories.jsonl", "trajectory.jsonl", "rejected.jsonl")
"""What is shown of a folder, and of all folders below it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof view TRAJECTORIES ... [OPTION ...]"
    parser.epilog = (
        "example:\n  cof view outputs/eval -o outputs/eval.html\n"
        "  cof view outputs/collected/rejected.jsonl -o outputs/rejected.html"
    )
    parser.add_argument(
        "trajectories",
        nargs="+",
        metavar="TRAJECTORIES",
        help=f"files with trajectories, or folders: all of {', '.join(FILES)} in them and below",
    )
    option(parser, "output", default="report.html", metavar="PAGE.html", help="page to write")
    option(parser, "images", help=IMAGES)
    option(parser, "server")
    option(parser, "samples", help="only the first N trajectories of each file (default: all)")
    parser.add_argument(
        "--title", metavar="TEXT", help="headline of the page (default: the name of the file or folder)"
    )


@dataclass(frozen=True, slots=True)
class Read:
    """A trajectory, its images found, the file that holds it, and its place there, from 0."""

    recorded: Trajectory
    shown: Trajectory
    file: Path
    place: int


def run(options: argparse.Namespace) -> int:
    images = folder_of(options)
    _check_output(Path(options.output))
    server = server_of(options.server) if options.server else ""
    given = [Path(path) for path in options.trajectories]
    files = _files(given)
    read = [one for file in files for one in _read(file, images, options.samples)]
    if not read:
        raise InputError(f"no trajectories are in {', '.join(map(str, files[:5]))}.")
    missing = _written(read, given, server, options)
    if not options.quiet:
        moved = [] if images else moved_notes((one.recorded, one.shown) for one in read)
        say("cof view", (*_file_notes(files, read), *moved, *missing_notes(missing)))
    print(for_terminal(options.output))
    return 0


def _check_output(page: Path) -> None:
    """Refuses a place for the page that holds anything but a page.

    Raises:
        InputError: if another file would be lost.
    """
    if page.is_file() and page.stat().st_size:
        with page.open("rb") as file:
            if not file.read(64).lstrip().lower().startswith(b"<!doctype html"):
                raise InputError(f"{page} is no page, and would be overwritten; name the page to write: -o PAGE.html.")


def _files(given: Sequence[Path]) -> list[Path]:
    """The files that are meant: each file itself, and those of each folder and below; each once.

    Raises:
        InputError: if a folder has none.
    """
    found: dict[Path, Path] = {}
    for path in given:
        files = list(_below(path)) if path.is_dir() else [path]
        if not files:
            raise InputError(f"the folder {path} has none of {', '.join(FILES)}, nor a folder below it; name a file.")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in FILES if name in names)


def _read(file: Path, images: Path | None, most: int | None) -> Iterator[Read]:
    for place, recorded in enumerate(islice(read_jsonl(file, Trajectory), most)):
        yield Read(recorded, located(recorded, file.parent, images), file, place)


def _written(read: Sequence[Read], given: Sequence[Path], server: str, options: argparse.Namespace) -> list[Missing]:
    names = _names([one.file for one in read])
    with progress("Embedding images", quiet=options.quiet) as tell:
        return write_page(
            [one.shown for one in read],
            Path(options.output),
            title=options.title or ", ".join(path.resolve().name for path in given),
            score=scoring.accuracy,
            origins=[Origin(names[one.file], _address(one, server)) for one in read],
            progress=tell,
        )


def _address(read: Read, server: str) -> str:
    return address_of(server, read.file, read.place, read.recorded.sample.id) if server else ""


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """What the page calls each file: what tells its path from the others; one file needs no name."""
    paths = {file: file.absolute() for file in files}
    if len(paths) == 1:
        return dict.fromkeys(paths, "")
    shared = Path(os.path.commonpath([path.parent for path in paths.values()]))
    return {file: str(path.relative_to(shared)) for file, path in paths.items()}


# --- what is said on the terminal


def _file_notes(files: Sequence[Path], read: Sequence[Read]) -> Iterator[str]:
    if len(files) > 1:
        counts = Counter(one.file for one in read)
        yield f"{len(read):,} trajectories in {len(files):,} files:"
        yield from named([f"{counts[file]:,} in {file}" for file in files])
    if len(read) > MAX_TRAJECTORIES:
        yield f"the page shows the first {MAX_TRAJECTORIES:,} of {len(read):,} trajectories."
