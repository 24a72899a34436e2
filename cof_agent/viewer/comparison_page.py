"""Writes compared runs as one self-contained HTML page that opens from disk: `cof compare BASE OTHER ... -o DIR`.

Here is what the page says; how it looks stands in `page/comparison.html`. The page has no script.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cof_agent import scoring
from cof_agent.evaluation import compare, controls, gain
from cof_agent.evaluation import metrics as evaluate
from cof_agent.evaluation.published import TITLE, Figure, cells, notes
from cof_agent.evaluation.runs import SIDE_BY_SIDE, Run, side_by_side
from cof_agent.output.files import write_atomic
from cof_agent.output.install import how_to_install
from cof_agent.protocol import lettered
from cof_agent.trajectory import Trajectory
from cof_agent.viewer import templates
from cof_agent.viewer.gallery import MOST, failures, pictures
from cof_agent.viewer.located import located
from cof_agent.viewer.picture import altered, spelled
from cof_agent.viewer.templates import cut, data_url

Values = dict[str, Any]
"""What a part of the template is filled with."""

_UNRECORDED = "not recorded"
_SHORT, _TEXT, _LONG = 300, 1_500, 4_000  # characters of one text
_MOST_VALUES = 3  # of one setting that are listed; of more, the first and the last
_MOST_CHOICES = 30
_STOPS = {
    "answered": "answered",
    "max_zooms": "out of zooms",
    "truncated": "cut off",
    "malformed": "malformed",
    "error": "error",
}


def write_comparison(
    runs: Sequence[Run],
    compared: Mapping[str, Mapping[str, Any]],
    plots: Sequence[Path] | None,
    output: Path,
    *,
    gained: Mapping[str, Mapping[str, Any]] | None = None,
    published: Sequence[Figure] = (),
) -> None:
    """Write the page, whole, to `output`; about 15 MB at most.

    runs: the base first. compared: of each other run by its name, `compare.compare` with the base. plots: PNG files; None
    where matplotlib is missing. gained: `gain.gains` of the runs. published: figures of others, shown in a table of their own. A
    source image that is missing or broken stops nothing; the page says so in its place.

    Raises:
        OSError: if `output` cannot be written, or a plot cannot be read.
    """
    base, *others = runs
    headings, *lines = side_by_side(runs)
    content = templates.page(
        "comparison.html",
        styles=("base.css", "comparison.css"),
        title=cut(f"{', '.join(other.name for other in others)} against {base.name}" if others else base.name, _SHORT),
        runs=[run.name for run in runs],
        properties=_properties(runs),
        lacking=[run.name for run in runs if run.summary is None],
        figures=_figures(runs),
        together={"title": SIDE_BY_SIDE, "headings": headings, "rows": lines},
        differences=[_difference(base.name, name, found) for name, found in compared.items()],
        gains=[_gain(name, found) for name, found in (gained or {}).items()],
        published=_published(runs, published),
        install=how_to_install("matplotlib"),
        plots=None if plots is None else [_plot(path) for path in plots],
        controls=controls.findings(runs),
        letters=[_letters(run.name, found) for run in runs if (found := controls.letters(run.trajectories))],
        failures=_failures(runs),
    )
    write_atomic(output, content)


# --- the settings of each run


def _properties(runs: Sequence[Run]) -> list[Values]:
    """Each property with its value in each run."""
    found = {name: [cut(value(run), _LONG) for run in runs] for name, value in _PROPERTIES.items()}
    return [{"name": name, "runs": values, "differs": len(set(values)) > 1} for name, values in found.items()]


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
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "null"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def _or(none: str, value: Callable[[Run], str]) -> Callable[[Run], str]:
    """The same value with a word for null and for an empty list."""
    return lambda run: none if (found := value(run)) == "null" else found


def _versions(run: Run) -> str:
    found = (run.summary or {}).get("versions")
    if not isinstance(found, Mapping):
        return _UNRECORDED
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _different(value: Callable[[Trajectory], str]) -> Callable[[Run], str]:
    return lambda run: ", ".join(sorted({value(trajectory) for trajectory in run.trajectories})) or _UNRECORDED


def _order(trajectory: Trajectory) -> str:
    seed = trajectory.shuffle_seed
    return "as published" if seed is None else f"shuffled, seed {seed}"


_PROPERTIES: dict[str, Callable[[Run], str]] = {
    "folder": lambda run: str(run.folder),
    "command": lambda run: run.command or _UNRECORDED,
    "policy": _different(lambda trajectory: trajectory.policy),
    "strategy": _different(lambda trajectory: trajectory.strategy),
    "order of the options": _different(_order),
    "overview, long side in pixels": _or("as the limits allow", _of_settings("resolution")),
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
    "tools beside the zoom": _or("none", _of_settings("tools")),
    "system prompt": _or("ours", _of_settings("prompt")),
    "protocol": _different(lambda trajectory: trajectory.protocol_version),
    "versions": _versions,
}


# --- figures


def _figures(runs: Sequence[Run]) -> Values:
    rows = [(run.name, *evaluate.cells(run.figures), _ended(run.figures)) for run in runs]
    return {"headings": (*evaluate.HEADINGS, "ended"), "rows": rows}


def _ended(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{_STOPS[reason]} {count:,}" for reason, count in found["stop_reasons"].items())


def _difference(base: str, name: str, found: Mapping[str, Any]) -> Values:
    rows = [(row, *compare.cells(one)) for row, one in compare.rows(found)]
    return {"title": f"{name} against {base}", "headings": compare.HEADINGS, "rows": rows}


def _gain(name: str, found: Mapping[str, Any]) -> Values:
    headings, *rows = gain.lines(found)
    return {"title": gain.title(name, found), "headings": headings, "rows": rows}


def _published(runs: Sequence[Run], figures: Sequence[Figure]) -> Values | None:
    if not figures:
        return None
    headings, *rows = cells(figures)
    return {"title": TITLE, "headings": headings, "rows": rows, "notes": notes(runs, figures)}


def _plot(path: Path) -> Values:
    return {"url": data_url("png", path.read_bytes()), "name": path.stem}


def _letters(name: str, found: controls.Letters) -> Values:
    rows = [
        (letter, _share(found.right[letter], found.n), _share(found.chosen[letter], found.n)) for letter in found.names
    ]
    return {
        "name": name,
        "sentence": controls.letters_said(name, found),
        "rows": rows,
        "n": f"{found.n:,}",
        "others": f"{found.others:,}" if found.others else "",
    }


def _share(count: int, n: int) -> str:
    return f"{count / n:.3f} ({count:,})"


# --- failures


def _failures(runs: Sequence[Run]) -> list[Values]:
    """The failures of each run with their pictures; those of the base come last."""
    base, *others = runs
    wrong = [(run, failures(run, base)) for run in (*others, base)]
    shown = [[located(one, run.folder) for one in found[:MOST]] for run, found in wrong]
    drawn = iter(pictures([one for group in shown for one in group]))
    right = {one.sample.id for one in base.trajectories if scoring.accuracy(one) is True}
    return [
        {
            "name": run.name,
            "total": f"{len(found):,}",
            "first": "" if run is base else base.name,
            "cards": [_failure(one, next(drawn), one.sample.id in right) for one in group],
        }
        for (run, found), group in zip(wrong, shown, strict=True)
    ]


def _failure(trajectory: Trajectory, picture: bytes | str, base_right: bool) -> Values:
    sample = trajectory.sample
    answer = "none" if trajectory.answer is None else spelled(trajectory.answer, sample.choices)
    facts = {
        "Question": sample.question,
        "Options": "   ".join(f"{letter}. {text}" for letter, text in lettered(sample.choices[:_MOST_CHOICES])),
        "Truth": " or ".join(spelled(text, sample.choices) for text in sample.answers[:_MOST_CHOICES]),
        "Answer": answer,
        "Ended": _STOPS[trajectory.stop.value] + (f": {trajectory.error}" if trajectory.error else ""),
    }
    notes = [
        sample.id,
        str(sample.metadata.get("category", "")),
        f"{trajectory.zooms} zoom{'' if trajectory.zooms == 1 else 's'}",
        "right in the base run" if base_right else "",
        altered(trajectory) or "",
        f"unreliable: {trajectory.warning}" if trajectory.warning else "",
    ]
    return {
        "url": data_url("webp", picture) if isinstance(picture, bytes) else "",
        "problem": picture if isinstance(picture, str) else "",
        "facts": [(name, cut(text, _TEXT)) for name, text in facts.items() if text],
        "notes": [cut(note, _SHORT) for note in notes if note],
    }
