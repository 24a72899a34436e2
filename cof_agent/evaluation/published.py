"""Figures that others published for a benchmark, to stand beside a run: in a table of their own, each with source, model size and
protocol. They were measured in other ways than ours, and with each other they are comparable within one source at most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cof_agent.data.benchmarks import BENCHMARKS
from cof_agent.errors import InputError
from cof_agent.evaluation.runs import Run

FILE = Path(__file__).with_name("published.yaml")
HEADINGS = ("benchmark", "model", "size", "answers", "accuracy, %", "source")
TITLE = "Published by others, measured in other ways"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. part: a category of the benchmark, "" for all of it. how: from the image alone, or as an agent. percent: the
    accuracy. protocol: what the source says of how it measured."""

    benchmark: str
    part: str
    model: str
    size: str
    how: str
    percent: float
    source: str
    protocol: str


@cache
def figures() -> tuple[Figure, ...]:
    """All that we know of, in the order of the file."""
    import yaml  # type: ignore[import-untyped]

    return tuple(figure for source in yaml.safe_load(FILE.read_text("utf-8")) for figure in _of_source(source))


def _of_source(source: dict[str, Any]) -> Iterable[Figure]:
    told = {"source": source["source"], "protocol": source["protocol"]}
    for row in source["models"]:
        for name, percent in zip(source["benchmarks"], row["figures"], strict=True):
            benchmark, _, part = name.partition("/")
            if percent is not None:
                yield Figure(benchmark, part, row["model"], row["size"], row["how"], percent, **told)


def beside(runs: Sequence[Run]) -> list[Figure]:
    """The figures for the benchmarks of these runs.

    Raises:
        InputError: if there are none.
    """
    names = {name for run in runs for name in benchmarks_of(run)}
    found = [figure for figure in figures() if figure.benchmark in names]
    if not found:
        known = ", ".join(dict.fromkeys(figure.benchmark for figure in figures()))
        raise InputError(
            f"no published figures are known for {', '.join(sorted(names)) or 'these runs, which are of no benchmark'}; "
            f"leave --published out. They are known for {known}."
        )
    return found


def benchmarks_of(run: Run) -> list[str]:
    """The benchmarks that a run's questions belong to."""
    found = (one.sample.metadata.get("benchmark") for one in run.trajectories)
    return list(dict.fromkeys(str(name) for name in found if name))


def cells(found: Iterable[Figure]) -> list[list[str]]:
    """A table of the figures, `HEADINGS` first. Sources are numbered as in `notes`."""
    found = list(found)
    sources = _sources(found)
    rows = [
        [
            " ".join(part for part in (one.benchmark, one.part) if part),
            *(one.model, one.size, one.how, f"{one.percent:.1f}", f"[{sources.index(one.source) + 1}]"),
        ]
        for one in found
    ]
    return [list(HEADINGS), *sorted(rows, key=lambda row: row[0])]


def _sources(found: Iterable[Figure]) -> list[str]:
    return list(dict.fromkeys(one.source for one in found))


def notes(runs: Sequence[Run], found: Sequence[Figure]) -> list[str]:
    """What to know before a run is held beside the figures: sources with their protocols, and runs of a part of a benchmark."""
    protocols = {one.source: one.protocol for one in found}
    told = [f"[{number}] {source}. {protocols[source]}" for number, source in enumerate(_sources(found), 1)]
    known = {one.benchmark for one in found}
    for run in runs:
        for name in benchmarks_of(run):
            asked = {one.sample.id for one in run.trajectories if one.sample.metadata.get("benchmark") == name}
            size = BENCHMARKS[name].size if name in BENCHMARKS else None
            if name in known and size and len(asked) < size:
                told.append(
                    f"{run.name} was asked {len(asked):,} of the {size:,} questions of {BENCHMARKS[name].title}."
                )
    return told


def as_json(found: Iterable[Figure]) -> list[dict[str, Any]]:
    """The figures with all that is known of each."""
    return [asdict(one) for one in found]
