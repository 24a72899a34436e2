"""One table of runs that differ in the seed of their training:

    python scripts/seeds_table.py NAME=RUN[,RUN ...] NAME=RUN ... [--by category] [--figure zooms] [--differences]
        [--plots FOLDER]

Each row is a name. Its figure, accuracy or zooms, is the mean over its runs, for each size of the image (or for each
category) and in all, with a 95 % interval over questions, each with all its sizes and runs; behind it the lowest and
the highest run. All runs must have answered the same questions. `--differences` shows instead by how much each row differs
from the first, with a 95 % interval over the differences of single questions. `--plots` draws the rows besides, as `cof compare`
draws single runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from cof_agent import scoring
from cof_agent.episodes import question_of, resolution_of
from cof_agent.evaluation import runs as evaluated
from cof_agent.evaluation.compare import paired
from cof_agent.evaluation.metrics import category, figures, interval, number, resolution
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.plots import write_plots

Run = dict[tuple[str, int | None], Trajectory]
"""The trajectories of a run by question and size of the image."""


def read(folder: str) -> Run:
    """Raises:
    SystemExit: if the folder holds no run, or one with questions that cannot be scored or were asked several times.
    """
    file = Path(folder) / "trajectories.jsonl"
    if not file.exists():
        raise SystemExit(f"seeds_table.py: there is no {file}; evaluate with -o {folder} first.")
    every = list(read_jsonl(file, Trajectory))
    found = {(question_of(one.sample), resolution_of(one)): one for one in every}
    if len(found) < len(every) or any(scoring.score(one) is None for one in every):
        raise SystemExit(f"seeds_table.py: {file} has questions without a known answer, or asked several times.")
    return found


FIGURES: dict[str, Callable[[Trajectory], float]] = {
    "accuracy": lambda one: float(scoring.score(one) or 0),
    "zooms": lambda one: float(one.zooms),
}


def means_of(runs: Sequence[Run], figure: str) -> dict[tuple[str, int | None], float]:
    """The figure of each question, as the mean over runs."""
    return {name: fmean(FIGURES[figure](run[name]) for run in runs) for name in runs[0]}


def differences(
    runs: Sequence[Run], first: Sequence[Run], figure: str, key: Callable[[Trajectory], str], groups: Sequence[str]
) -> list[str]:
    """The cells of a row: by how much it differs from the first one, for each group and for all."""
    own, other = means_of(runs, figure), means_of(first, figure)
    of = {name: key(one) for name, one in first[0].items()}
    cells = []
    for group in (*groups, None):
        names = [name for name in own if group is None or of[name] == group]
        found = paired([(other[name], own[name]) for name in names], [question for question, _ in names])
        low, high = found["ci95"]
        ends = f" ({low:+.3f} to {high:+.3f})" if low < high else ""  # all alike: a bootstrap knows no spread
        cells.append(f"{found['difference']:+.3f}{ends}")
    return cells


def row(runs: Sequence[Run], figure: str, key: Callable[[Trajectory], str], groups: Sequence[str]) -> list[str]:
    """The cells of a row: the figure of each group, of all with interval and range, zooms and image tokens."""
    of = {name: key(one) for name, one in runs[0].items()}
    means = means_of(runs, figure)
    whole = [figures(list(run.values())) for run in runs]
    low, high = interval(list(means.values()), [question for question, _ in means]) or (0.0, 0.0)
    ends = sorted(fmean(means_of([run], figure).values()) for run in runs)
    spread = f"; {ends[0]:.3f} to {ends[-1]:.3f}" if len(runs) > 1 else ""
    return [
        *(number(fmean(mean for name, mean in means.items() if of[name] == group), 3) for group in groups),
        f"{fmean(means.values()):.3f} ({low:.3f} to {high:.3f}{spread})",
        *(
            number(_mean(one[name] for one in whole), digits)
            for name, digits in (("mean_zooms", 2), ("image_tokens", 0))
        ),
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def over_questions(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """The figures of several runs at once. What one question's runs and sizes say is no independent sample, so the interval is
    over questions."""
    scores = [float(scoring.score(one) or 0) for one in trajectories]
    return figures(trajectories) | {
        "accuracy_ci95": interval(scores, [question_of(one.sample) for one in trajectories])
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One table of runs that differ in the seed of their training.")
    parser.add_argument("rows", nargs="+", metavar="NAME=RUN[,RUN ...]")
    parser.add_argument("--by", choices=("resolution", "category"), default="resolution")
    parser.add_argument("--figure", choices=tuple(FIGURES), default="accuracy")
    parser.add_argument("--differences", action="store_true", help="from the first row, with intervals")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="draw the rows, too, into PNG files of this folder"
    )
    options = parser.parse_args()
    if options.plots is not None and find_spec("matplotlib") is None:
        sys.exit('seeds_table.py: --plots needs matplotlib: pip install -e ".[plot]".')
    key = resolution if options.by == "resolution" else category
    rows = [one.partition("=") for one in options.rows]
    if len({name for name, _, _ in rows}) < len(rows) or not all(runs for _, _, runs in rows):
        sys.exit("seeds_table.py: each row is NAME=RUN[,RUN ...], with a name of its own.")
    named = {name: [read(folder) for folder in runs.split(",")] for name, _, runs in rows}
    questions = {frozenset(run) for runs in named.values() for run in runs}
    if len(questions) > 1:
        sys.exit("seeds_table.py: the runs have not answered the same questions.")
    first = next(iter(named.values()))[0]
    groups = sorted({key(one) for one in first.values()}, key=lambda name: (len(name), name))
    heads = ["all"] if options.differences else ["all (95 %; runs)", "zooms", "image tokens"]
    print("| | " + " | ".join([*groups, *heads]) + " |")
    print("|---" * (1 + len(groups) + len(heads)) + "|")
    base, *others = named
    if options.differences:
        lines = {name: differences(named[name], named[base], options.figure, key, groups) for name in others}
    else:
        lines = {name: row(runs, options.figure, key, groups) for name, runs in named.items()}
    for name, cells in lines.items():
        print("| " + " | ".join([name, *cells]) + " |")
    if options.plots is not None:
        pooled = {name: [one for run in runs for one in run.values()] for name, runs in named.items()}
        write_plots(
            [evaluated.Run(name, every, figures_of=over_questions) for name, every in pooled.items()], options.plots
        )


if __name__ == "__main__":
    main()
