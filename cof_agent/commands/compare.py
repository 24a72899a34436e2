"""`cof compare BASE OTHER ... -o DIR`: runs of `cof eval` on the same questions, held against the first, question by question."""

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

from cof_agent import compare
from cof_agent.commands import common
from cof_agent.errors import InputError
from cof_agent.plots import write_plots
from cof_agent.trajectory import Trajectory, read_jsonl, write_atomic

HEADINGS = ("", "n", "accuracy", "difference", "95 %", "p", "+ and -", "zooms")

Rows = list[tuple[str, dict[str, Any]]]
COLUMNS = ("accuracy", "mean_zooms", "tokens_in", "tokens_out")  # of both runs


def run(options: argparse.Namespace) -> int:
    runs = _runs([Path(path) for path in options.runs])
    base, *others = runs
    compared = {other: compare.compare(runs[base], runs[other]) for other in others}
    output = Path(options.output)
    tables = {other: compare.rows(found) for other, found in compared.items()}
    write_atomic(output / "comparison.json", json.dumps({"base": base, "others": compared}, indent=2) + "\n")
    write_atomic(output / "comparison.csv", _csv(tables))
    write_atomic(output / "comparison.md", _markdown(base, tables))
    plotting = find_spec("matplotlib") is not None
    pictures = write_plots(runs, output) if plotting else []
    if not plotting:
        print('cof compare: no plots without matplotlib (pip install "chain-of-focus[plot]").', file=sys.stderr)
    console = common.console()
    for other, rows in tables.items():
        table = Table(title=_title(base, other), title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for name, part in rows:
            table.add_row(name, *_cells(part))
        console.print(table)
    files = [output / f"comparison.{kind}" for kind in ("json", "csv", "md")] + pictures
    console.print("written:", ", ".join(str(path) for path in files), soft_wrap=True)
    return 0


def _runs(paths: list[Path]) -> dict[str, list[Trajectory]]:
    """The trajectories of each run by its name, the folder's, or as much of its path as tells it from the others."""
    if len(paths) < 2:
        raise InputError("name at least two runs, folders that `cof eval` has written.")
    files = [path / "trajectories.jsonl" if path.is_dir() else path for path in paths]
    found = {}
    for path, file in zip(paths, files, strict=True):
        if not file.exists():
            raise InputError(f"{path} has no trajectories.jsonl; `cof eval` writes one.")
        same = [other for other in paths if other.name == path.name]
        name = path.name if len(same) == 1 else str(path)
        if name in found:
            raise InputError(f"{path} is named twice.")
        found[name] = list(read_jsonl(file, Trajectory))
    return found


def _title(base: str, other: str) -> str:
    return f"{other} against {base}"


def _cells(part: dict[str, Any]) -> list[str]:
    accuracy, first, second = part["accuracy"], part["first"], part["second"]
    return [
        str(part["n"]),
        f"{first['accuracy']:.3f} → {second['accuracy']:.3f}",
        f"{accuracy['difference']:+.3f}",
        " to ".join(f"{end:+.3f}" for end in accuracy["ci95"]),
        "< 0.001" if accuracy["p"] < 0.001 else f"{accuracy['p']:.3f}",
        f"+{part['gained']} -{part['lost']}",
        f"{first['mean_zooms']:.2f} → {second['mean_zooms']:.2f}",
    ]


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
            writer.writerow((other, name, part["n"], *values, *ends))
    return file.getvalue()


def _markdown(base: str, tables: dict[str, Rows]) -> str:
    text = ""
    for other, rows in tables.items():
        text += f"## {_title(base, other)}\n\n"
        lines = [list(HEADINGS), ["---"] * len(HEADINGS), *([name, *_cells(part)] for name, part in rows)]
        text += "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines) + "\n"
    return text
