"""How runs of RL went, as curves over their steps in one picture.

python scripts/rl_curves.py outputs/nano-rl [RUN ...] -o curves.png

Each figure that a run has logged gets a panel: reward, accuracy, zooms, length, entropy, the importance ratio (with vLLM), the
share of tokens that the update clips (where rollouts are used more than once), and the norm of the gradient. Thin lines are
single steps, thick ones means over the last `--over` steps. A run that is under way is drawn as far as its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cof_agent.commands.options import count
from cof_agent.errors import InputError
from cof_agent.viewer.plots import plain

Curve = list[tuple[int, float]]
"""Steps and values."""

PANELS = {
    "reward": "reward",
    "accuracy": "accuracy of rollouts",
    "zooms/mean": "zooms a question",
    "completions/mean_length": "tokens written",
    "entropy": "entropy of a token, nats",
    "sampling/ratio/token": "importance ratio of a token",
    "clip_ratio/region_mean": "share of tokens clipped",
    "grad_norm": "norm of the gradient",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of cof rl")
    parser.add_argument("-o", "--output", required=True, type=Path, help="picture; its name says the format")
    parser.add_argument("--over", type=count, default=20, help="steps that a thick line averages over (default: 20)")
    options = parser.parse_args(arguments)
    try:
        curves = {str(run): curves_of(history(run)) for run in options.runs}
        if not any(curves.values()):
            raise InputError(f"{options.runs[0]} has logged none of {', '.join(PANELS)}.")
        draw(curves, options.output, options.over)
    except InputError as error:
        print(f"rl_curves.py: {error}", file=sys.stderr)
        return 2
    return 0


def history(run: Path) -> list[Mapping[str, Any]]:
    """What a run has logged, from the state in its folder, or from that of its newest checkpoint.

    Raises:
        InputError: if there is none, or it cannot be read.
    """
    states = [run / "trainer_state.json", *run.glob("checkpoint-*/trainer_state.json")]
    found = [path for path in states if path.is_file()]
    if not found:
        raise InputError(f"{run} has no trainer_state.json; name the output folder of a run of cof rl.")
    try:
        read = [json.loads(path.read_text("utf-8")) for path in found]
        return list(max(read, key=lambda state: int(state["global_step"]))["log_history"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the trainer_state.json of {run} cannot be read: {error}.") from None


def curves_of(logged: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """The curves of the figures of PANELS; a step that was logged twice, after a resumed run, counts as it was logged last."""
    found: dict[str, dict[int, float]] = {}
    for line in logged:
        for name in PANELS.keys() & line.keys():
            found.setdefault(name, {})[int(line["step"])] = float(line[name])
    return {name: sorted(found[name].items()) for name in PANELS if name in found}


def smoothed(curve: Curve, over: int) -> Curve:
    """Means over the last `over` values."""
    values = [value for _, value in curve]
    return [
        (step, sum(part) / len(part))
        for at, (step, _) in enumerate(curve, 1)
        for part in [values[max(0, at - over) : at]]
    ]


def draw(runs: Mapping[str, Mapping[str, Curve]], output: Path, over: int) -> None:
    """Raises:
    InputError: if matplotlib is missing, or cannot write such a picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError('the plot needs matplotlib: pip install -e ".[plot]".') from None
    names = [name for name in PANELS if any(name in curves for curves in runs.values())]
    columns = min(4, len(names))
    figure = Figure(figsize=(3.2 * columns, 2.4 * -(-len(names) // columns) + 0.3), layout="constrained")
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        for place, (run, curves) in enumerate(runs.items()):
            if curve := curves.get(name):
                axes.plot(*zip(*curve, strict=True), color=f"C{place}", alpha=0.25, linewidth=0.6)
                axes.plot(*zip(*smoothed(curve, over), strict=True), color=f"C{place}", linewidth=1.4, label=plain(run))
        axes.set_title(PANELS[name], fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    if len(runs) > 1:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=9
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=110)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {output}: {error}.") from None


if __name__ == "__main__":
    sys.exit(main())
