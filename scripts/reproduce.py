"""Lists the tables of the guides that a script makes, with command, time and last result, or makes one:
`bash scripts/reproduce.sh --list`, `bash scripts/reproduce.sh NAME`. Needs no package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple


class Table(NamedTuple):
    """script: with its arguments, which continues where it was interrupted. time: on two cores. result: the folder that its
    figures are read from. guide: where the table is shown. needs: what has to be there before."""

    script: str
    time: str
    result: str
    guide: str
    needs: str = ""


TABLES = {
    "paper": Table("paper.sh nano", "two hours of one of two cores", "paper-nano/compared", "scripts/README.md"),
    "resolutions": Table(
        "resolutions.sh",
        "24 minutes",
        "resolutions/compared",
        "cof_agent/evaluation/README.md",
        needs="outputs/nano-rl, of scripts/train_nano.sh",
    ),
    "strategies": Table(
        "strategies.sh",
        "about three hours a seed, the sum of its commands on one of two cores",
        "strategies-val/compared",
        "cof_agent/strategies/README.md",
    ),
    "spot-labels": Table(
        "spot_labels.sh",
        "not measured",
        "spot-labels/compared",
        "scripts/EXPERIMENTS.md",
        needs="outputs/nano-points, of strategies.sh",
    ),
    "adaptive": Table(
        "adaptive.sh",
        "26 minutes of SFT, 3 x 27 of RL on one core, and the evaluations",
        "adaptive-val/compared",
        "rl/README.md",
    ),
    "coroi": Table(
        "coroi.sh",
        "3 x 8 minutes of training, and the evaluations",
        "coroi-val",
        "cof_agent/strategies/coroi/README.md",
    ),
    "hard": Table(
        "hard.sh",
        "seven trainings of 47 to 70 minutes, each on one of two cores, and the evaluations",
        "hard-val/compared",
        "scripts/EXPERIMENTS.md",
    ),
    "stable": Table("stable.sh", "not measured", "stable-val/compared", "scripts/EXPERIMENTS.md"),
    "distill": Table(
        "distill.sh",
        "not measured",
        "distill/compared-val",
        "sft/README.md",
        needs="outputs/nano-needless, of adaptive.sh",
    ),
    "rl": Table(
        "rl_seeds.sh", "6 minutes of SFT, 3 x 18 of RL, and the evaluations", "rl-seeds/compared", "rl/README.md"
    ),
    "real": Table(
        "real.sh",
        "80 minutes for the questions, about three hours for the trajectories, on one of two cores",
        "real/trajectories",
        "cof_agent/teacher/README.md",
        needs="chromium, tesseract, and Debian's package sources",
    ),
}


def main(arguments: list[str]) -> int:
    """Returns the exit code: that of the script, or 2 for a name that is none."""
    match arguments:
        case ["--list"]:
            print("\n\n".join(described(name, table, Path("outputs")) for name, table in TABLES.items()))
            return 0
        case [name] if name in TABLES:
            return subprocess.call(["bash", *f"scripts/{TABLES[name].script}".split()])
    print(f"reproduce.sh: give --list, or one of {', '.join(TABLES)}.", file=sys.stderr)
    return 2


def described(name: str, table: Table, outputs: Path) -> str:
    """Name, command, time, guide, and the last result in the folder `outputs`."""
    said = last_result(outputs / table.result) or "not run here"
    needs = f"  needs {table.needs}\n" if table.needs else ""
    return f"{name}: bash scripts/{table.script}\n{needs}  {table.time}; shown in {table.guide}\n  last result: {said}"


def last_result(folder: Path) -> str | None:
    """The figures of `cof compare` or `cof collect` in a folder, and of which day they are; None without any."""
    for file, figures in ((folder / "comparison.json", _compared), (folder / "summary.json", _collected)):
        if file.exists():
            day = date.fromtimestamp(file.stat().st_mtime)
            return f"{figures(json.loads(file.read_text('utf-8')))} ({day})"
    table = folder / "table.md"
    return f"{table} ({date.fromtimestamp(table.stat().st_mtime)})" if table.exists() else None


def _compared(found: Mapping[str, Any]) -> str:
    """The accuracy of each run."""
    others = found["others"]
    first = next(iter(others.values()))["first"]
    runs = {found["base"]: first, **{name: one["second"] for name, one in others.items()}}
    return "accuracy " + ", ".join(f"{name} {one['accuracy']:.3f}" for name, one in runs.items())


def _collected(found: Mapping[str, Any]) -> str:
    return f"{found['kept']} of {found['n']} questions became trajectories"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
