"""Pictures of runs side by side: accuracy and zooms against resolution, accuracy by category, accuracy against tokens.

Files are light; a page gets each plot for light and for dark, its panels one below the other, so that a phone can show them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from cof_agent.evaluation.metrics import pixels_of
from cof_agent.evaluation.runs import Run
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import write_atomic
from cof_agent.viewer.templates import data_url

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vPX"
LIGHT: Mapping[str, Any] = {
    "axes.prop_cycle": ("#1b6ca8", "#d1495b", "#3c8d53", "#8d5fa8", "#b37610", "#4d4d4d", "#0b7d80"),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "#ffffff"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), "#191a1c"),
}
DARK: Mapping[str, Any] = {
    "axes.prop_cycle": ("#6fb5ea", "#ff8a97", "#7fd396", "#cf9fe8", "#f0bd6a", "#c9c9c9", "#5fcfcf"),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "#1c1d20"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), "#ececea"),
}
"""Settings of matplotlib for a light and for a dark page; the grounds are those of its cards."""

WORDS = {
    "resolution": "Accuracy and zooms against the resolution",
    "category": "Accuracy by category",
    "tokens": "Accuracy against the tokens of a question",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot for a page. words: what it shows. light, dark: PNG as data addresses."""

    words: str
    light: str
    dark: str


def write_plots(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Writes the plots that the runs have something to show in; returns their paths. Needs matplotlib (`[plot]`)."""
    written = []
    for name, content in _drawn(runs, LIGHT, stacked=False).items():
        write_atomic(folder / f"{name}.png", content)
        written.append(folder / f"{name}.png")
    return written


def plots_of(runs: Sequence[Run]) -> list[Plot]:
    """The same plots for a page. Needs matplotlib."""
    light, dark = (_drawn(runs, theme, stacked=True) for theme in (LIGHT, DARK))
    return [Plot(WORDS[name], data_url("png", light[name]), data_url("png", dark[name])) for name in light]


def _drawn(runs: Sequence[Run], theme: Mapping[str, Any], *, stacked: bool) -> dict[str, bytes]:
    """The plots as PNG by their names."""
    from matplotlib import rc_context
    from matplotlib.rcsetup import cycler

    found = {}
    settings: Any = {**theme, "axes.prop_cycle": cycler(color=theme["axes.prop_cycle"])}
    with rc_context(settings):
        figures = {
            "resolution": by_resolution(runs, stacked=stacked),
            "category": by_category(runs),
            "tokens": by_tokens(runs, stacked=stacked),
        }
        for name, figure in figures.items():
            if figure is not None:
                file = io.BytesIO()
                figure.savefig(file, format="png", dpi=150)
                found[name] = file.getvalue()
    return found


def by_resolution(runs: Sequence[Run], *, stacked: bool = False) -> Figure | None:
    """Accuracy, with its 95 % interval, and mean zooms against resolution; None if there is only one."""
    rows = {run.name: run.tables["by_resolution"] for run in runs}
    sides = sorted({side for found in rows.values() for side in found}, key=pixels_of)
    if len(sides) < 2:
        return None
    figure, (accuracy, zooms) = _figure(2, stacked=stacked)
    for place, (name, found) in enumerate(rows.items()):
        known = sorted(found, key=pixels_of)
        rated = [side for side in known if found[side]["accuracy"] is not None]
        _with_intervals(accuracy, [*map(pixels_of, rated)], [found[side] for side in rated], place, name)
        zooms.plot([*map(pixels_of, known)], [found[side]["mean_zooms"] for side in known], **_style(place))
    for axes, label in ((accuracy, "accuracy"), (zooms, "zooms a question")):
        axes.set_xscale("log")
        axes.set_xticks([*map(pixels_of, sides)], sides)
        axes.minorticks_off()
        axes.set_xlabel("long side of the overview or image, pixels")
        axes.set_ylabel(label)
    zooms.set_ylim(bottom=0)
    _finish(figure, accuracy)
    return figure


def by_category(runs: Sequence[Run]) -> Figure | None:
    """Bars of accuracy by category with 95 % intervals; None if no category is known."""
    rows = {run.name: run.tables["by_category"] for run in runs}
    names = sorted({row for found in rows.values() for row, part in found.items() if part["accuracy"] is not None})
    if not names:
        return None
    figure, (axes,) = _figure(1)
    figure.set_figheight(0.9 + len(names) * max(0.4, 0.22 * len(rows)))
    width = 0.8 / len(rows)
    for place, (run, found) in enumerate(rows.items()):
        shown = [(at, found[name]) for at, name in enumerate(names) if found.get(name, {}).get("accuracy") is not None]
        axes.barh(
            [at + (place - (len(rows) - 1) / 2) * width for at, _ in shown],
            [part["accuracy"] for _, part in shown],
            width * 0.92,
            xerr=_spreads([part for _, part in shown]),
            color=_colour(place),
            ecolor=_setting("text.color"),
            capsize=2,
            label=plain(run),
        )
    axes.set_yticks(range(len(names)), [fill(plain(name.replace("_", " ").replace("/", " / ")), 30) for name in names])
    axes.invert_yaxis()  # the first on top, as in the tables
    axes.set_xlabel("accuracy")
    axes.set_xlim(0, 1.02)
    _with_legend(figure, axes)
    return figure


COSTS = {
    "image_tokens": "image tokens a question, each image once",
    "tokens_in": "prompt tokens a question, over all turns",
}


def by_tokens(runs: Sequence[Run], *, stacked: bool = False) -> Figure | None:
    """What accuracy costs: a point for each run, its tokens a question against its accuracy."""
    found = {run.name: run.figures for run in runs if run.figures["accuracy"] is not None}
    costs = {cost: label for cost, label in COSTS.items() if any(part[cost] for part in found.values())}
    if not costs:
        return None
    figure, panels = _figure(len(costs), stacked=stacked)
    for axes, (cost, label) in zip(panels, costs.items(), strict=True):
        for place, (name, part) in enumerate(found.items()):
            if part[cost] is not None:
                _with_intervals(axes, [part[cost]], [part], place, name)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
        axes.set_ylim(0, 1.02)
    _finish(figure, panels[-1])
    return figure


def _figure(panels: int, *, stacked: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """stacked: panels below each other, not side by side."""
    from matplotlib.figure import Figure

    rows, columns = (panels, 1) if stacked else (1, panels)
    figure = Figure(figsize=(4.6 * columns + 0.6, 3.3 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for one in axes:
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    _with_legend(figure, axes)


def _with_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9)


def _with_intervals(axes: Axes, x: Sequence[float], parts: Sequence[dict[str, Any]], place: int, name: str) -> None:
    heights = [part["accuracy"] for part in parts]
    axes.errorbar(x, heights, yerr=_spreads(parts), capsize=2, label=plain(name), **_style(place))


def _spreads(parts: Sequence[dict[str, Any]]) -> list[list[float]]:
    """What the 95 % intervals reach below and above."""
    below = [max(0.0, part["accuracy"] - part["accuracy_ci95"][0]) for part in parts]
    return [below, [max(0.0, part["accuracy_ci95"][1] - part["accuracy"]) for part in parts]]


def _style(place: int) -> dict[str, Any]:
    """A colour and a mark; where the colours begin anew, the marks do not."""
    again = place // len(_setting("axes.prop_cycle").by_key()["color"])
    return {"color": _colour(place), "marker": MARKS[(place + again) % len(MARKS)], "markersize": 4, "linewidth": 1.4}


def _colour(place: int) -> Any:
    colours = _setting("axes.prop_cycle").by_key()["color"]
    return colours[place % len(colours)]


def _setting(name: str) -> Any:
    from matplotlib import rcParams

    settings: Any = rcParams
    return settings[name]


def plain(text: str) -> str:
    """Text that matplotlib does not read as a formula, and can draw."""
    return for_terminal(text).replace("$", r"\$")
