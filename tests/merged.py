"""A checkpoint as users make them: nano after a few steps of LoRA in a dialect of its own, merged, with a published generation
config beside it. It is asked by `cof eval`, in this process and on servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cof_agent.cli import main

DIALECT = "name: wide\nabout: wider crops, and one zoom\ncrop: {enlarge: 3.0}\nend: {zooms: 1}\n"

PUBLISHED = {"do_sample": True, "repetition_penalty": 1.3, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1}
"""A server takes each of these for every request that does not say otherwise."""

_OF_THE_PLACE = ("seconds", "command", "policy", "weights", "not_taken")

ADAPTER: dict[str, Any] = {
    "model": "nano",
    "use-peft": "true",
    "lora-r": 8,
    "learning-rate": 1e-3,
    "max-steps": 3,
    "per-device-train-batch-size": 2,
    "use-cpu": "true",
    "bf16": "false",
    "gradient-checkpointing": "false",
    "report-to": "none",
    "threads": 1,
}


def merged(scenes: Path, folder: Path) -> Path:
    """The checkpoint, made by our own commands from what nano makes of these scenes."""
    dialect, played, adapter, whole = (folder / name for name in ("wide.yaml", "played", "adapter", "whole"))
    dialect.write_text(DIALECT)
    evaluated(scenes, played, "--model", "nano", "--dialect", str(dialect))
    given = ADAPTER | {"data": played, "dialect": dialect, "output": adapter}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "cof_agent.cli", "sft", "--processes", "1", *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(["merge", str(adapter), "-o", str(whole)]) == 0
    config = whole / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | PUBLISHED))
    return whole


def evaluated(scenes: Path, output: Path, *options: str) -> tuple[Any, list[Any]]:
    """The summary of `cof eval`, and the records in the order of their samples; both without times, and without where it ran and
    what parameters were refused there."""
    assert main(["eval", "--data", str(scenes), "-o", str(output), "--quiet", *options]) == 0
    lines = (output / "trajectories.jsonl").read_text().splitlines()
    records = sorted(map(json.loads, lines), key=lambda record: str(record["sample"]["id"]))
    return _plain(json.loads((output / "summary.json").read_text())), _plain(records)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name not in _OF_THE_PLACE}
    return value
