"""The tables of compared runs as the template shows them: cells with links to the questions that they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cof_agent.evaluation import compare, controls, gain
from cof_agent.evaluation import metrics as evaluate
from cof_agent.evaluation import published as others
from cof_agent.evaluation.runs import Run, side_by_side
from cof_agent.viewer.questions import Links
from cof_agent.viewer.run_settings import properties

STOPS = {
    "answered": "answered",
    "max_zooms": "out of zooms",
    "truncated": "cut off",
    "malformed": "malformed",
    "error": "error",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a cell. link: to the questions that it counts; empty where it counts none."""

    text: str
    link: str = ""


Cell = list[Text]

_CHANGES = compare.HEADINGS.index("+ and -")


@dataclass(frozen=True, slots=True)
class Row:
    """kind: `differs` for a setting in which the runs differ."""

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """kind: `long` for texts that take several lines, `narrow` for short ones in few columns."""

    headings: Sequence[str]
    rows: list[Row]
    title: str = ""
    notes: Sequence[str] = field(default_factory=list)
    kind: str = ""


def settings(runs: Sequence[Run]) -> Table:
    """How each run was made."""
    rows = [
        Row([[Text(text)] for text in (name, *values)], "differs" if len(set(values)) > 1 else "")
        for name, values in properties(runs).items()
    ]
    return Table(["", *(run.name for run in runs)], rows, kind="long")


def figures(runs: Sequence[Run], links: Links) -> Table:
    """All figures of each run, on all its own questions."""
    rows = [
        _row(run.name, [*evaluate.cells(run.figures), _ended(run.figures)], links.of_run(number))
        for number, run in enumerate(runs)
    ]
    return Table((*evaluate.HEADINGS, "ended"), rows)


def _ended(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{STOPS[reason]} {count:,}" for reason, count in found["stop_reasons"].items())


def together(runs: Sequence[Run], links: Links, title: str) -> Table:
    """The runs side by side, at each resolution and together."""
    headings, *lines = side_by_side(runs)
    rows = []
    for number, (name, *texts) in enumerate(lines):
        cells = [
            Text(text, links.of_run(number, resolution=heading) if heading[-1].isdigit() and text != "-" else "")
            for heading, text in zip(headings[1:], texts, strict=True)
        ]
        rows.append(Row([[Text(name, links.of_run(number))], *([cell] for cell in cells)]))
    return Table(headings, rows, title)


def difference(runs: Sequence[Run], number: int, found: Mapping[str, Any], links: Links) -> Table:
    """One run against the first."""
    base, other = runs[0], runs[number]
    rows = []
    for name, part in compare.rows(found):
        rose, fell = links.changes(0, number, name)
        row = _row(name, compare.cells(part), links.of_pair(0, number, name))
        row.cells[_CHANGES] = [_count(f"+{part['gained']}", rose), _count(f"-{part['lost']}", fell)]
        rows.append(row)
    changes = "better +, worse -" if links.partial else "mended +, broken -"
    headings = [changes if place == _CHANGES else heading for place, heading in enumerate(compare.HEADINGS)]
    return Table(headings, rows, f"{other.name} against {base.name}")


def _count(text: str, link: str) -> Text:
    """A count; there is nothing to show of none."""
    return Text(text, "" if text.strip("+-") == "0" else link)


def gained(runs: Sequence[Run], name: str, found: Mapping[str, Any], links: Links) -> Table:
    """What looking closer mends and breaks in one run."""
    names = [run.name for run in runs]
    overview, closer = names.index(found["overview"]), names.index(name)
    rows = []
    for label, part in gain.rows(found):
        row = _row(label, gain.cells(part), links.of_pair(overview, closer, label))
        for verdict in ("mended", "broken"):
            place = gain.HEADINGS.index(verdict)
            link = links.of_pair(overview, closer, label, verdict=verdict) if part[verdict] else ""
            row.cells[place] = [Text(row.cells[place][0].text, link)]
        rows.append(row)
    return Table(gain.HEADINGS, rows, f"{name} against {found['overview']}")


def published(runs: Sequence[Run], figures: Sequence[others.Figure]) -> Table:
    """What others measured."""
    headings, *lines = others.cells(figures)
    return Table(headings, [_row(line[0], line[1:]) for line in lines], notes=others.notes(runs, figures))


def letters(run: Run, number: int, links: Links) -> Table | None:
    """How often each letter is right and chosen; None without questions with options, or answers that name one."""
    found = controls.letters(run.trajectories)
    if found is None or not found.n:
        return None
    rows = [
        Row(
            [
                [Text(letter)],
                [_share(found.right[letter], found.n, links.of_run(number, **{f"true{number}": letter}))],
                [_share(found.chosen[letter], found.n, links.of_run(number, **{f"chosen{number}": letter}))],
            ]
        )
        for letter in found.names
    ]
    silent = f" {found.others:,} answers name none." if found.others else ""
    named = "1 answer names" if found.n == 1 else f"{found.n:,} answers name"
    notes = [f"{named} an option.{silent}", controls.letters_said(run.name, found)]
    return Table(("option", "right", "chosen"), rows, run.name, notes, kind="narrow")


def _share(count: int, n: int, link: str) -> Text:
    return Text(f"{count / n:.3f} ({count:,})", link if count else "")


def _row(name: str, texts: Sequence[str], link: str = "") -> Row:
    return Row([[Text(name, link)], *([Text(text)] for text in texts)])
