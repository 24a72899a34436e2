"""One table of runs that differ in the seed of their training:

    python scripts/seeds_table.py NAME=RUN[,RUN ...] NAME=RUN ... [--by category] [--figure zooms]

Each row is a name. Its figure, accuracy or zooms, is the mean over its runs, for each size of the image (or for each
category) and in all, with a 95 % interval over questions whose figures are means over the runs; behind it the lowest and
the highest run. All runs must have answered the same questions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from cof_agent import scoring
from cof_agent.episodes import question_of, resolution_of
from cof_agent.evaluation.metrics import category, figures, interval, number, resolution
from cof_agent.trajectory import Trajectory, read_jsonl

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


def row(runs: Sequence[Run], figure: str, key: Callable[[Trajectory], str], groups: Sequence[str]) -> list[str]:
    """The cells of a row: the figure of each group, of all with interval and range, zooms and image tokens."""
    of = {name: key(one) for name, one in runs[0].items()}
    found = [{name: FIGURES[figure](run[name]) for name in of} for run in runs]
    means = {name: fmean(one[name] for one in found) for name in of}
    whole = [figures(list(run.values())) for run in runs]
    low, high = interval(list(means.values())) or (0.0, 0.0)
    ends = sorted(fmean(one.values()) for one in found)
    spread = f"; {ends[0]:.3f} to {ends[-1]:.3f}" if len(runs) > 1 else ""
    return [
        *(number(fmean(mean for name, mean in means.items() if of[name] == group), 3) for group in groups),
        f"{fmean(means.values()):.3f} ({low:.3f} to {high:.3f}{spread})",
        *(
            number(fmean(one[name] for one in whole), digits)
            for name, digits in (("mean_zooms", 2), ("image_tokens", 0))
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="One table of runs that differ in the seed of their training.")
    parser.add_argument("rows", nargs="+", metavar="NAME=RUN[,RUN ...]")
    parser.add_argument("--by", choices=("resolution", "category"), default="resolution")
    parser.add_argument("--figure", choices=tuple(FIGURES), default="accuracy")
    options = parser.parse_args()
    key = resolution if options.by == "resolution" else category
    named = {
        name: [read(folder) for folder in runs.split(",")] for name, _, runs in (r.partition("=") for r in options.rows)
    }
    questions = {frozenset(run) for runs in named.values() for run in runs}
    if len(questions) > 1:
        sys.exit("seeds_table.py: the runs have not answered the same questions.")
    first = next(iter(named.values()))[0]
    groups = sorted({key(one) for one in first.values()}, key=lambda name: (len(name), name))
    print("| | " + " | ".join([*groups, "all (95 %; runs)", "zooms", "image tokens"]) + " |")
    print("|---" * (len(groups) + 4) + "|")
    for name, runs in named.items():
        print("| " + " | ".join([name, *row(runs, options.figure, key, groups)]) + " |")


if __name__ == "__main__":
    main()
