"""Writes compared runs as one self-contained HTML page that opens from disk: `cof compare BASE OTHER ... -o DIR`.

First the verdict, then tables and plots, then a card for each question with the runs side by side. Cards are drawn by the
same scripts as on the page of `cof view`; the markup stands in `page/comparison.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cof_agent import scoring
from cof_agent.evaluation.published import TITLE, Figure
from cof_agent.evaluation.runs import SIDE_BY_SIDE, Run
from cof_agent.evaluation.verdict import verdict
from cof_agent.output.files import write_atomic
from cof_agent.output.install import how_to_install
from cof_agent.trajectory import Trajectory
from cof_agent.viewer import comparison_tables as tables
from cof_agent.viewer import templates
from cof_agent.viewer.comparison_tables import Table
from cof_agent.viewer.embedded import MAX_TRAJECTORIES, Embedded, Missing, embed
from cof_agent.viewer.located import located
from cof_agent.viewer.plots import Plot
from cof_agent.viewer.questions import Links, Question, chosen, described, questions_of
from cof_agent.viewer.record import json_text
from cof_agent.viewer.templates import cut

_SHORT = 300  # characters of a title
_FEWER = "those on which the runs differ first"
_MENDED = "Mended: wrong from the overview, right with zooms. Broken: right from the overview, wrong with zooms."
_LINKED = "A link shows the questions that its figure counts."


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page. notes: (class, sentence) below its tables and plots."""

    id: str
    title: str
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[tuple[str, str]] = field(default_factory=list)


def write_comparison(
    runs: Sequence[Run],
    compared: Mapping[str, Mapping[str, Any]],
    plots: Sequence[Plot] | None,
    output: Path,
    *,
    gained: Mapping[str, Mapping[str, Any]] | None = None,
    published: Sequence[Figure] = (),
    images: Path | None = None,
    cards: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Missing]:
    """Write the page, whole, to `output`; as large as a page of `write_page` at most, and the plots.

    runs: the base first. compared: of each other run by its name, `compare.compare` with the base. plots: None where
    matplotlib is missing. gained: `gain.gains` of the runs. published: figures of others, shown in a table of their own.
    images: as in `located`. cards: so many questions have one at most. progress: as in `embed`. A source image that is
    missing or broken stops nothing; its cards say what is wrong.

    Returns:
        what is wrong with each source image that the page has to do without.

    Raises:
        InputError: if `output` cannot be written.
    """
    base, *others = runs
    questions = questions_of(runs)
    shown = chosen(questions, min(MAX_TRAJECTORIES // len(runs), len(questions) if cards is None else cards))
    embedded, questions_shown = _embedded(runs, shown, images, progress)
    head = embedded.head | {
        "runs": [cut(run.name, _SHORT) for run in runs],
        "questions": questions_shown,
        "total": len(questions),
        "chosen": _FEWER,
    }
    content = templates.page(
        "comparison.html",
        scripts=templates.scripts("comparison.js"),
        title=cut(f"{', '.join(other.name for other in others)} against {base.name}" if others else base.name, _SHORT),
        verdict=verdict(runs),
        parts=_parts(runs, Links(runs, shown), compared, gained or {}, published, plots),
        head=json_text(head),
        embedded=embedded,
    )
    write_atomic(output, content)
    return embedded.missing


def _embedded(
    runs: Sequence[Run],
    questions: Sequence[Question],
    images: Path | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Embedded, list[dict[str, Any]]]:
    """The data of the questions' trajectories, and of the questions."""
    trajectories: list[Trajectory] = []
    found = []
    for question in questions:
        numbers: list[int | None] = []
        for run, play in zip(runs, question.plays, strict=True):
            numbers.append(None if play is None else len(trajectories))
            trajectories += [] if play is None else [located(play, run.folder, images)]
        found.append(described(question, numbers))
    return embed(trajectories, scoring.accuracy, progress=progress), found


def _parts(
    runs: Sequence[Run],
    links: Links,
    compared: Mapping[str, Mapping[str, Any]],
    gained: Mapping[str, Mapping[str, Any]],
    published: Sequence[Figure],
    plots: Sequence[Plot] | None,
) -> list[Part]:
    numbers = {run.name: number for number, run in enumerate(runs)}
    differences = [tables.difference(runs, numbers[name], found, links) for name, found in compared.items()]
    gains = [tables.gained(runs, name, found, links) for name, found in gained.items()]
    figures = [tables.figures(runs, links), tables.together(runs, links, SIDE_BY_SIDE)]
    letters = [table for number, run in enumerate(runs) if (table := tables.letters(run, number, links))]
    every = [
        Part("differences", "Differences", differences, notes=[("fine", _LINKED)]) if differences else None,
        Part("gains", "What looking closer gains and costs", gains, notes=[("fine", _MENDED)]) if gains else None,
        Part("published", TITLE, [tables.published(runs, published)]) if published else None,
        Part("figures", "Figures", figures),
        _plots(plots),
        Part("letters", "Letters of the options", letters) if letters else None,
        Part("settings", "Settings", [tables.settings(runs)], notes=_of_settings(runs)),
    ]
    return [part for part in every if part is not None]


def _plots(plots: Sequence[Plot] | None) -> Part | None:
    if plots is None:
        missing = (
            f"There are no plots because matplotlib is missing. Run `{how_to_install('matplotlib')}` and compare again."
        )
        return Part("plots", "Plots", notes=[("", missing)])
    return Part("plots", "Plots", plots=plots) if plots else None


def _of_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    notes = [("fine", "Bold: the runs differ.")] if len(runs) > 1 else []
    if lacking := [run.name for run in runs if run.summary is None]:
        unknown = (
            f"There is no readable summary.json beside the trajectories of {', '.join(lacking)}. Command and versions of "
            "such a run are not known. Everything else comes from the trajectories."
        )
        notes.append(("message", unknown))
    return notes
