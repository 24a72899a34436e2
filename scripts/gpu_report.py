"""The report of `gpu_check.sh`: a row for each training, then what the other runs printed: `python scripts/gpu_report.py OUT`."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

GIB = 2**30
_IN_ALL = re.compile(r"│ in all\s*│([^│]*)│\s*([\d.]+) │")


def main(folder: Path) -> None:
    names = sorted(path.stem for path in folder.glob("*.code"))
    trainings = [
        name for name in names if name.partition("-")[0] in ("nano", "sft", "rl") and not name.endswith("-plan")
    ]
    print(f"{'':26}{'steps':>6}{'left out':>10}{'loss':>12}{'s a step':>10}{'peak GiB':>10}{'estimate':>10}")
    for name in trainings:
        print(line_of(folder, name))
    engines = [name for name in names if name.startswith("local-")]
    for name in ("inputs", "attention", *engines, "flash"):
        log = folder / f"{name}.log"
        if log.exists():
            print(f"\n{name}\n{log.read_text('utf-8').strip()}")
    for name in names:
        code = (folder / f"{name}.code").read_text().strip()
        if code != "0":
            told = "took too long" if code == "124" else f"ended with exit code {code}"
            last = (folder / f"{name}.log").read_text("utf-8").strip().splitlines()[-3:]
            print(f"\n{name} {told}:", *last, sep="\n  ")


def line_of(folder: Path, name: str) -> str:
    """Of one training the steps, those that the guard left out, the last loss, seconds, and memory beside the estimate."""
    left_out = (folder / f"{name}.log").read_text("utf-8").count("is not finite; the step is left out")
    entries = logged(folder / f"{name}.json")
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    if not losses:
        return f"{name:26}{'none':>6}"
    last = next((entry for entry in reversed(entries) if "train_runtime" in entry), {})
    seconds = last.get("train_runtime", math.nan) / len(losses)
    sizes = f"{peak(last):10.2f}{estimate(folder / f'{name}-plan.log'):10.2f}"
    return f"{name:26}{len(losses):6}{left_out:10}{losses[-1]:12.4g}{seconds:10.2f}{sizes}"


def logged(state: Path) -> list[dict[str, float]]:
    """The log of a training's figures; empty where it did not come to its end."""
    found: list[dict[str, float]] = json.loads(state.read_text("utf-8"))["log_history"] if state.exists() else []
    return found


def peak(metrics: dict[str, float]) -> float:
    """The most memory of the GPU that was allocated while training, in GiB; NaN on a CPU."""
    parts = (
        "before_init_mem_gpu",
        "init_mem_gpu_alloc_delta",
        "train_mem_gpu_alloc_delta",
        "train_mem_gpu_peaked_delta",
    )
    return sum(metrics[part] for part in parts) / GIB if all(part in metrics for part in parts) else math.nan


def estimate(plan: Path) -> float:
    """What the dry run says of a training step as configured, in GiB; NaN where it says nothing."""
    found = _IN_ALL.findall(plan.read_text("utf-8")) if plan.exists() else []
    sizes = [float(size) for how, size in found if "as configured" in how]
    return sizes[0] if sizes else math.nan


if __name__ == "__main__":
    main(Path(sys.argv[1]))
