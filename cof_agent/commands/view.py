"""`cof view TRAJECTORIES.jsonl -o PAGE.html`: a page to look at what was done."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from cof_agent import scoring
from cof_agent.commands import common
from cof_agent.commands.options import option
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.report import located, write_page


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof view TRAJECTORIES.jsonl [OPTION ...]"
    parser.epilog = "example:\n  cof view outputs/eval/trajectories.jsonl -o outputs/eval.html"
    parser.add_argument("trajectories", metavar="TRAJECTORIES.jsonl", help="file with trajectories")
    option(parser, "output", default="report.html", metavar="PAGE.html", help="page to write")
    option(parser, "samples", help="only the first N trajectories (default: all)")
    parser.add_argument("--title", metavar="TEXT", help="headline of the page (default: the file's name)")


def run(options: argparse.Namespace) -> int:
    from rich.progress import Progress

    path = Path(options.trajectories)
    trajectories = list(islice(read_jsonl(path, Trajectory), options.samples))
    if not trajectories:
        raise InputError(f"{path} holds no trajectories.")
    console = common.console(stderr=True)
    with Progress(console=console, disable=options.quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Embedding images", total=None)
        try:
            write_page(
                [located(trajectory, path.parent) for trajectory in trajectories],
                Path(options.output),
                title=options.title or path.name,
                score=scoring.accuracy,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except OSError as error:
            raise InputError(f"cannot write {options.output}: {error.strerror}.") from None
    print(for_terminal(options.output))
    return 0
