"""`cof view TRAJECTORIES -o PAGE.html`: a page to look at what was done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from cof_agent import scoring
from cof_agent.commands import common
from cof_agent.commands.options import option
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.report import located, write_page

FILES = ("trajectories.jsonl", "trajectory.jsonl", "rejected.jsonl")
"""What is shown of a folder, the first that is there."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof view TRAJECTORIES [OPTION ...]"
    parser.epilog = "example:\n  cof view outputs/eval -o outputs/eval.html"
    parser.add_argument(
        "trajectories", metavar="TRAJECTORIES", help="file with trajectories, or the folder that a command wrote"
    )
    option(parser, "output", default="report.html", metavar="PAGE.html", help="page to write")
    option(parser, "images")
    option(parser, "samples", help="only the first N trajectories (default: all)")
    parser.add_argument("--title", metavar="TEXT", help="headline of the page (default: the name of the file)")


def run(options: argparse.Namespace) -> int:
    from rich.progress import Progress

    given, path = Path(options.trajectories), _file(Path(options.trajectories))
    trajectories = list(islice(read_jsonl(path, Trajectory), options.samples))
    if not trajectories:
        raise InputError(f"{path} holds no trajectories.")
    images = None if options.images is None else Path(options.images)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images} is no folder.")
    console = common.console(stderr=True)
    with Progress(console=console, disable=options.quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Embedding images", total=None)
        problems = write_page(
            [located(trajectory, path.parent, images) for trajectory in trajectories],
            Path(options.output),
            title=options.title or (given.resolve().name if given.is_dir() else path.name),
            score=scoring.accuracy,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if problems and not options.quiet:
        print(f"cof view: {_missing(problems)}", file=sys.stderr)
    print(for_terminal(options.output))
    return 0


def _file(given: Path) -> Path:
    """The trajectories that are meant: the file itself, or that of a folder.

    Raises:
        InputError: if the folder has none.
    """
    if not given.is_dir():
        return given
    found = next((given / name for name in FILES if (given / name).exists()), None)
    if found is None:
        raise InputError(f"the folder {given} has none of {', '.join(FILES)}; name a file with trajectories.")
    return found


def _missing(problems: Sequence[str]) -> str:
    """The sentence on stderr about sources that the page has to do without; their cards say the same."""
    count = f"{len(problems)} images" if len(problems) > 1 else "an image"
    return f"the page has to do without {count}: {for_terminal(problems[0])} (--images DIR says where the images are)"
