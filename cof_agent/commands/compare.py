"""`cof compare BASE OTHER ... -o DIR`: compares each run of `cof eval` with the first one, question by question."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from cof_agent.commands import common
from cof_agent.commands.options import option
from cof_agent.evaluation import compare
from cof_agent.evaluation.runs import SIDE_BY_SIDE, read_runs, side_by_side
from cof_agent.output.escape import for_csv, for_markdown
from cof_agent.output.files import write_atomic
from cof_agent.output.install import how_to_install
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.plots import write_plots

Rows = list[tuple[str, dict[str, Any]]]
COLUMNS = ("accuracy", "mean_zooms", "image_tokens", "tokens_in", "tokens_out", "seconds")  # of both runs


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof compare RUN RUN ... -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof compare outputs/eval outputs/direct -o outputs/compared"
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders that `cof eval` wrote; each is compared with the first one"
    )
    option(parser, "output", required=True, help="folder for tables, plots and report.html")


def run(options: argparse.Namespace) -> int:
    runs = read_runs([Path(path) for path in options.runs])
    base, *others = runs
    compared = {
        other.name: compare.compare(base.trajectories, other.trajectories, figures_of=base.figures_of)
        for other in others
    }
    output = Path(options.output)
    tables = {other: compare.rows(found) for other, found in compared.items()}
    write_atomic(output / "comparison.json", json.dumps({"base": base.name, "others": compared}, indent=2) + "\n")
    write_atomic(output / "comparison.csv", _csv(tables))
    together = side_by_side(runs)
    write_atomic(output / "comparison.md", _markdown(together, base.name, tables))
    plots = write_plots(runs, output) if find_spec("matplotlib") is not None else None
    write_comparison(runs, compared, plots, output / "report.html")
    if plots is None and not options.quiet:
        print(f"cof compare: no plots without matplotlib ({how_to_install('matplotlib')}).", file=sys.stderr)
    common.console().print(_table(together, SIDE_BY_SIDE, wrapped=True))
    console = common.console(quiet=options.quiet)
    for other, rows in tables.items():
        console.print(_table(_lines(rows), _title(base.name, other)))
    files = [output / f"comparison.{kind}" for kind in ("json", "csv", "md")] + (plots or []) + [output / "report.html"]
    console.print("written:", ", ".join(str(path) for path in files), soft_wrap=True)
    return 0


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


def _table(lines: list[list[str]], title: str, *, wrapped: bool = False) -> Table:
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if place else "left", no_wrap=not (wrapped and place))
    for line in lines[1:]:
        table.add_row(*line)
    return table


def _markdown(together: list[list[str]], base: str, tables: dict[str, Rows]) -> str:
    parts = [
        f"{SIDE_BY_SIDE}:\n\n{_pipes(together)}",
        *(f"## {for_markdown(_title(base, other))}\n\n{_pipes(_lines(rows))}" for other, rows in tables.items()),
    ]
    return "".join(f"{part}\n" for part in parts)


def _pipes(lines: list[list[str]]) -> str:
    heading, *rows = [f"| {' | '.join(map(for_markdown, line))} |\n" for line in lines]
    return "".join([heading, f"|{' --- |' * len(lines[0])}\n", *rows])
