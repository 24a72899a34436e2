"""Writes compared runs as one self-contained HTML page that opens from disk: `cof compare BASE OTHER ... -o DIR`.

The page has no script, and its policy forbids every request. Whatever names, models and data say is escaped as the page is
built (`markup.element`); images are data: URIs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cof_agent import scoring
from cof_agent.evaluation import compare, controls
from cof_agent.evaluation import metrics as evaluate
from cof_agent.evaluation.runs import SIDE_BY_SIDE, Run, side_by_side
from cof_agent.protocol import lettered
from cof_agent.trajectory import Trajectory, write_atomic
from cof_agent.viewer.gallery import MOST, failures, pictures
from cof_agent.viewer.markup import Markup, cut, element, fill, part, policy, together
from cof_agent.viewer.picture import altered, spelled
from cof_agent.viewer.report import located

_UNRECORDED = "not recorded"
_SHORT, _TEXT, _LONG = 300, 1_500, 4_000  # characters of one text
_MOST_VALUES = 3  # of one setting that are listed; of more, the first and the last
_MOST_CHOICES = 30
_LEGEND = (
    "A frame with a number is where the model zoomed; the crop of the same number stands beside the overview. Dashed is what "
    "the question is about."
)
_STOPS = {
    "answered": "answered",
    "max_zooms": "out of zooms",
    "truncated": "cut off",
    "malformed": "malformed",
    "error": "error",
}


def write_comparison(
    runs: Sequence[Run], compared: Mapping[str, Mapping[str, Any]], plots: Sequence[Path] | None, output: Path
) -> None:
    """Write the page, whole, to `output`; about 15 MB at most.

    runs: the base first. compared: of each other run by its name, `compare.compare` with the base. plots: PNG files; None
    where matplotlib is missing. A source image that is missing or broken is told in its place and stops nothing.

    Raises:
        OSError: if `output` cannot be written, or a plot cannot be read.
    """
    base, *others = runs
    sections = (
        ("What was run", _origins(runs)),
        ("Figures", _figures(runs)),
        ("Differences", together(_difference(base.name, name, found) for name, found in compared.items())),
        ("Plots", _plots(plots)),
        ("Controls", _controls(runs)),
        ("Failures", _failures(runs)),
    )
    title = cut(f"{', '.join(other.name for other in others)} against {base.name}", _SHORT)
    style = part("page.css") + part("comparison.css")
    fills = {
        "title": escape(title),
        "policy": escape(policy(style), quote=True),
        "style": style,
        "sections": together(element("section", element("h2", name), body) for name, body in sections),
    }
    write_atomic(output, fill(part("comparison.html"), fills).encode("utf-8", "replace"))


# --- what was run


def _origins(runs: Sequence[Run]) -> Markup:
    """A row for each property, a column for each run; rows in which the runs differ are marked."""
    rows = [(name, [cut(value(run), _LONG) for run in runs]) for name, value in _PROPERTIES.items()]
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", element("div", value), dir="auto") for value in values),
            class_="differs" if len(set(values)) > 1 else "same",
        )
        for name, values in rows
    ]
    lacking = [run.name for run in runs if run.summary is None]
    note = (
        f"Beside the trajectories of {', '.join(lacking)} there is no summary.json that can be read, so command and "
        "versions are not known; all else is from the trajectories themselves."
    )
    return together(
        (
            _table(["", *(run.name for run in runs)], body),
            element("p", "Bold: where the runs differ.", class_="fine"),
            element("p", note, class_="told") if lacking else None,
        )
    )


def _of_settings(*keys: str) -> Callable[[Run], str]:
    """A setting by its path in `Trajectory.settings`, over all that a run has."""

    def value(run: Run) -> str:
        found: set[str] = set()
        for settings in run.all_settings:
            at: Any = settings
            for key in keys:
                at = at.get(key, _UNRECORDED) if isinstance(at, Mapping) else _UNRECORDED
            found.add(_plain(at))
        known = sorted(found, key=lambda text: (len(text), text))
        return ", ".join(known) if len(known) <= _MOST_VALUES else f"{known[0]} to {known[-1]}, {len(known)} values"

    return value


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def _or(none: str, value: Callable[[Run], str]) -> Callable[[Run], str]:
    """The same value with a word for null."""
    return lambda run: none if (found := value(run)) == "null" else found


def _versions(run: Run) -> str:
    found = (run.summary or {}).get("versions")
    if not isinstance(found, Mapping):
        return _UNRECORDED
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _different(value: Callable[[Trajectory], str]) -> Callable[[Run], str]:
    return lambda run: ", ".join(sorted({value(trajectory) for trajectory in run.trajectories})) or _UNRECORDED


_PROPERTIES: dict[str, Callable[[Run], str]] = {
    "folder": lambda run: str(run.folder),
    "command": lambda run: run.command or _UNRECORDED,
    "policy": _different(lambda trajectory: trajectory.policy),
    "overview, pixels at most": _of_settings("limits", "max_pixels"),
    "crop, pixels at most": _of_settings("limits", "zoom_pixels"),
    "crop, shown pixels per source pixel": _of_settings("zoom_scale"),
    "zooms at most": _of_settings("max_zooms"),
    "boxes enlarged by": _of_settings("enlarge"),
    "crops": _of_settings("crop"),
    "coordinates": _of_settings("system"),
    "temperature": _of_settings("sampling", "temperature"),
    "seed": _or("none, greedy", _of_settings("sampling", "seed")),
    "tokens a turn at most": _of_settings("sampling", "max_tokens"),
    "system prompt": _or("ours", _of_settings("prompt")),
    "protocol": _different(lambda trajectory: trajectory.protocol_version),
    "versions": _versions,
}


# --- figures


def _figures(runs: Sequence[Run]) -> Markup:
    rows = [_row(run.name, [*evaluate.cells(run.figures), _ended(run.figures)]) for run in runs]
    headings, *lines = side_by_side(runs)
    return together(
        (
            _table((*evaluate.HEADINGS, "ended"), rows),
            element("p", f"{SIDE_BY_SIDE}:"),
            _table(headings, [_row(line[0], line[1:]) for line in lines]),
        )
    )


def _ended(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{_STOPS[reason]} {count:,}" for reason, count in found["stop_reasons"].items())


def _difference(base: str, name: str, found: Mapping[str, Any]) -> Markup:
    rows = [_row(row, compare.cells(one)) for row, one in compare.rows(found)]
    return together((element("h3", f"{name} against {base}"), _table(compare.HEADINGS, rows)))


def _plots(plots: Sequence[Path] | None) -> Markup:
    if plots is None:
        return element("p", 'No plots without matplotlib: pip install "chain-of-focus[plot]", then compare again.')
    if not plots:
        return element("p", "The runs have nothing to plot.")
    return together(_image("png", path.read_bytes(), path.stem, "plot") for path in plots)


# --- controls


def _controls(runs: Sequence[Run]) -> Markup:
    letters = [(run.name, found) for run in runs if (found := controls.letters(run.trajectories)) is not None]
    said = controls.findings(runs) or [
        "None of these runs is a control of another: none has other crops, another order of options, or no zooms."
    ]
    said += [controls.letters_said(name, found) for name, found in letters]
    sentences = element("ul", *(element("li", sentence, dir="auto") for sentence in said), class_="sentences")
    return together((sentences, *(_letters(name, found) for name, found in letters)))


def _letters(name: str, found: controls.Letters) -> Markup:
    rows = [
        _row(letter, [_share(found.right[letter], found.n), _share(found.chosen[letter], found.n)])
        for letter in found.names
    ]
    others = f"; {found.others:,} more name none" if found.others else ""
    return element(
        "div",
        element("h3", f"Letters of {name}", dir="auto"),
        _table(("option", "right", "chosen"), rows),
        element("p", f"{found.n:,} answers that name an option{others}.", class_="fine"),
        class_="letters",
    )


def _share(count: int, n: int) -> str:
    return f"{count / n:.3f} ({count:,})"


# --- failures


def _failures(runs: Sequence[Run]) -> Markup:
    base, *others = runs
    wrong = [(run, failures(run, base)) for run in (*others, base)]
    shown = [[located(one, run.folder) for one in found[:MOST]] for run, found in wrong]
    drawn = iter(pictures([one for group in shown for one in group]))
    right = {one.sample.id for one in base.trajectories if scoring.accuracy(one)}
    pieces = [element("p", _LEGEND, class_="fine")]
    for (run, found), group in zip(wrong, shown, strict=True):
        first = f"; those that {base.name} got right come first" if run is not base else ""
        pieces += (
            element("h3", f"Failures of {run.name}", dir="auto"),
            element("p", f"{len(group)} of {len(found):,} wrong answers{first}.", class_="fine", dir="auto"),
            element("div", *(_failure(one, next(drawn), one.sample.id in right) for one in group), class_="gallery"),
        )
    return together(pieces)


def _failure(trajectory: Trajectory, picture: bytes | str, base_right: bool) -> Markup:
    sample = trajectory.sample
    answer = "none" if trajectory.answer is None else spelled(trajectory.answer, sample.choices)
    options = "   ".join(f"{letter}. {text}" for letter, text in lettered(sample.choices[:_MOST_CHOICES]))
    truth = " or ".join(spelled(text, sample.choices) for text in sample.answers[:_MOST_CHOICES])
    told = {
        "Question": sample.question,
        "Options": options,
        "Truth": truth,
        "Answer": answer,
        "Ended": _STOPS[trajectory.stop.value] + (f": {trajectory.error}" if trajectory.error else ""),
    }
    facts = [
        sample.id,
        str(sample.metadata.get("category", "")),
        f"{trajectory.zooms} zoom{'' if trajectory.zooms == 1 else 's'}",
        "right in the base run" if base_right else "",
        altered(trajectory) or "",
    ]
    return element(
        "article",
        element("p", picture, class_="lost")
        if isinstance(picture, str)
        else _image("webp", picture, "The overview with numbered boxes, and the crops", "seen"),
        element("dl", *(_told(name, text) for name, text in told.items() if text)),
        element("p", cut(" · ".join(fact for fact in facts if fact), _SHORT), class_="fine", dir="auto"),
    )


def _told(name: str, text: str) -> Markup:
    return element("div", element("dt", name), element("dd", cut(text, _TEXT), dir="auto"))


# --- pieces


def _table(headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = element("tr", *(element("th", heading, scope="col", dir="auto") for heading in headings))
    return element("div", element("table", element("thead", head), element("tbody", *rows)), class_="wide")


def _row(name: str, values: Sequence[str]) -> Markup:
    return element("tr", element("th", name, scope="row", dir="auto"), *(element("td", value) for value in values))


def _image(kind: str, content: bytes, alt: str, class_: str) -> Markup:
    return element("img", src=f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt=alt, class_=class_)
