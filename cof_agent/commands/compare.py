"""`cof compare BASE OTHER ... -o DIR`: compares each run of `cof eval` with the first one, question by question.

With `--published`, figures that others published for the same benchmark stand beside the runs, in a table of their own.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from cof_agent.commands import common
from cof_agent.commands.options import option, whole
from cof_agent.commands.page_images import IMAGES, folder_of, missing_notes, moved_notes, say
from cof_agent.evaluation import compare, gain, published
from cof_agent.evaluation.runs import SIDE_BY_SIDE, read_runs, side_by_side
from cof_agent.evaluation.verdict import verdict
from cof_agent.output.escape import for_csv, for_markdown, for_terminal
from cof_agent.output.files import write_atomic, write_json
from cof_agent.output.install import how_to_install
from cof_agent.output.progress import progress
from cof_agent.output.terminal import figures_table
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.located import located
from cof_agent.viewer.plots import plots_of, write_plots

Rows = list[tuple[str, dict[str, Any]]]
COLUMNS = ("accuracy", "mean_zooms", "image_tokens", "tokens_in", "tokens_out", "seconds")  # of both runs


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof compare RUN RUN ... -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof compare outputs/eval outputs/direct -o outputs/compared"
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders that `cof eval` wrote; each is compared with the first one"
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="also show what others published for the benchmark, in a table of its own; then one run is enough",
    )
    parser.add_argument(
        "--cards",
        type=whole,
        metavar="N",
        help="number of questions that report.html shows, those on which the runs differ first (default: all)",
    )
    option(parser, "images", help=IMAGES)
    option(parser, "output", required=True, help="folder for tables, plots and report.html")


def run(options: argparse.Namespace) -> int:
    images = folder_of(options)
    runs = read_runs([Path(path) for path in options.runs], alone=options.published)
    known = published.beside(runs) if options.published else []
    base, *others = runs
    compared = {
        other.name: compare.compare(base.trajectories, other.trajectories, figures_of=base.figures_of)
        for other in others
    }
    output, gained, said = Path(options.output), gain.gains(runs), verdict(runs)
    tables = {other: compare.rows(found) for other, found in compared.items()}
    found = {"base": base.name, "verdict": said, "others": compared, "gain": gained}
    write_json(output / "comparison.json", found | {"published": published.as_json(known)})
    write_atomic(output / "comparison.csv", _csv(tables))
    together = side_by_side(runs)
    blocks = [
        *(Block(_title(base.name, other), _lines(rows)) for other, rows in tables.items()),
        *(Block(gain.title(name, one), gain.lines(one), wide=True) for name, one in gained.items()),
        *([Block(published.TITLE, published.cells(known), published.notes(runs, known), wide=True)] if known else []),
    ]
    write_atomic(output / "comparison.md", _markdown(said, together, blocks))
    plots = write_plots(runs, output) if find_spec("matplotlib") is not None else None
    with progress("Embedding images", quiet=options.quiet) as tell:
        missing = write_comparison(
            runs,
            compared,
            None if plots is None else plots_of(runs),
            output / "report.html",
            gained=gained,
            published=known,
            images=images,
            cards=options.cards,
            progress=tell,
        )
    _print(said, together, blocks, quiet=options.quiet)
    if not options.quiet:
        every = ((one, located(one, run.folder)) for run in runs for one in run.trajectories)
        say("cof compare", (*([] if images else moved_notes(every)), *missing_notes(missing)))
        say(
            "cof compare",
            [] if plots is not None else [f"no plots without matplotlib ({how_to_install('matplotlib')})."],
        )
    files = [output / f"comparison.{kind}" for kind in ("json", "csv", "md")] + (plots or []) + [output / "report.html"]
    common.console(quiet=options.quiet).print("written:", ", ".join(map(str, files)), soft_wrap=True)
    return 0


def _print(said: Sequence[str], together: list[list[str]], blocks: Sequence[Block], *, quiet: bool) -> None:
    """The verdict, then the tables; of a quiet command the first table only."""
    console = common.console(quiet=quiet)
    for sentence in said:
        console.print(for_terminal(sentence), soft_wrap=True, markup=False)
    common.console().print(_wide_table(together, SIDE_BY_SIDE))
    for block in blocks:
        heading, *rows = block.lines
        wide = _wide_table(block.lines, block.title)
        console.print(wide if block.wide else figures_table(block.title, heading, [rows], console.width), crop=False)
        for note in block.notes:
            console.print(for_terminal(note), soft_wrap=True, markup=False)


@dataclass(frozen=True, slots=True)
class Block:
    """A table as lines of cells, the first of them its headings, and what is to be known of it. wide: whether a terminal may
    break its cells."""

    title: str
    lines: list[list[str]]
    notes: list[str] = field(default_factory=list)
    wide: bool = False


def _title(base: str, other: str) -> str:
    return f"{other} against {base}"


def _csv(tables: dict[str, Rows]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    both = [f"{name}{side}" for name in COLUMNS for side in ("_base", "")]
    writer.writerow(("run", "rows", "n", *both, "difference", "low95", "high95", "p", "gained", "lost"))
    for other, rows in tables.items():
        for name, part in rows:
            values = [part[side][column] for column in COLUMNS for side in ("first", "second")]
            found = part["accuracy"]
            ends = (found["difference"], *found["ci95"], found["p"], part["gained"], part["lost"])
            writer.writerow((for_csv(other), for_csv(name), part["n"], *values, *ends))
    return file.getvalue()


def _lines(rows: Rows) -> list[list[str]]:
    return [list(compare.HEADINGS), *([name, *compare.cells(part)] for name, part in rows)]


def _wide_table(lines: list[list[str]], title: str) -> Table:
    """One whose cells may be broken."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if place else "left", no_wrap=not place)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def _markdown(said: Sequence[str], together: list[list[str]], blocks: Sequence[Block]) -> str:
    parts = [*(f"{for_markdown(sentence)}\n" for sentence in said), f"{SIDE_BY_SIDE}:\n\n{_pipes(together)}"]
    for block in blocks:
        notes = "".join(f"\n{for_markdown(note)}\n" for note in block.notes)
        parts.append(f"## {for_markdown(block.title)}\n\n{_pipes(block.lines)}{notes}")
    return "".join(f"{part}\n" for part in parts)


def _pipes(lines: list[list[str]]) -> str:
    heading, *rows = [f"| {' | '.join(map(for_markdown, line))} |\n" for line in lines]
    return "".join([heading, f"|{' --- |' * len(lines[0])}\n", *rows])
