"""Kills commands at random moments, and compares what they leave in the end with an undisturbed run.

`python scripts/campaign.py --kills 100` kills every command that goes on after an interruption, 100 times in all.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from cof_agent.trajectory import Trajectory, read_jsonl, to_json

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
LONGEST = 600.0  # seconds for one run
TRAINING = [
    *("--model_name_or_path", "nano", "--use_cpu", "true", "--report_to", "none", "--threads", "1", "--bf16", "false"),
    *("--gradient_checkpointing", "false", "--logging_steps", "1", "--max_steps", "4", "--save_steps", "1"),
    *("--learning_rate", "1e-4", "--lr_scheduler_type", "constant", "--freeze_vision", "true"),
]


@dataclass(frozen=True)
class Case:
    """A command that goes on after an interruption. arguments: by the folders of its data and its output. left: what it leaves
    in its output, but for times, as values that are equal or not."""

    arguments: Callable[[Path, Path], Sequence[str]]
    left: Callable[[Path], Any]


def _answers(output: Path) -> Any:
    summary = json.loads((output / "summary.json").read_text())
    return _trajectories(output / "trajectories.jsonl"), _timeless(summary)


def _trajectories(path: Path) -> list[str]:
    found = []
    for one in read_jsonl(path, Trajectory):
        turns = tuple(replace(turn, seconds=0.0) for turn in one.turns)
        found.append(to_json(replace(one, turns=turns, rewards={}, advantage=None)))
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(part) for name, part in value.items() if name not in ("seconds", "command")}
    return value


def _files(output: Path) -> dict[str, bytes]:
    """Without half-written ones of a process that was killed; they have names of their own, which nobody reads."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def _collected(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in ("trajectories.jsonl", "rejected.jsonl", "summary.json")]


def _model(output: Path) -> dict[str, list[float]]:
    """The weights, rounded to what threads and batches may differ in."""
    weights = load_file(output / "model.safetensors")
    return {name: [round(value, 3) for value in tensor.flatten()[:64].tolist()] for name, tensor in weights.items()}


def _played_and_trained(output: Path) -> Any:
    return _trajectories(output / "trajectories.jsonl"), _model(output)


def _data(command: str, *more: str) -> Callable[[Path, Path], list[str]]:
    return lambda data, output: [command, "--data", str(data / "scenes"), "-o", str(output), *more]


CASES = {
    "scenes": Case(
        lambda data, output: ["scenes", "-o", str(output), "--samples", "12", "--size", "448x252", "--processes", "2"],
        _files,
    ),
    "eval": Case(_data("eval", "--concurrency", "2", "--max-tokens", "48"), _answers),
    "rollout": Case(_data("rollout", "--plays", "2", "--concurrency", "2", "--max-tokens", "48"), _answers),
    "collect": Case(_data("collect", "--resolutions", "224,448", "--concurrency", "2"), _collected),
    "sft": Case(
        lambda data, output: [
            *("sft", "--data", str(data / "collected"), "--output_dir", str(output), "--warmup_steps", "0"),
            *("--per_device_train_batch_size", "1", *TRAINING),
        ],
        _model,
    ),
    "rl": Case(
        lambda data, output: [
            *("rl", "--data", str(data / "scenes"), "--output_dir", str(output), "--num_generations", "2"),
            *("--per_device_train_batch_size", "2", "--max_completion_length", "300", "--max_tokens", "48", *TRAINING),
        ],
        _played_and_trained,
    ),
}


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cof_agent.cli", *arguments]


def prepare(data: Path) -> None:
    """The samples and trajectories that the commands work on."""
    scenes = ["scenes", "-o", str(data / "scenes"), "--samples", "6", "--size", "896x504", "--split", "train"]
    _finish(scenes)
    _finish(["collect", "--data", str(data / "scenes"), "-o", str(data / "collected"), "--resolutions", "448"])


def _finish(arguments: Sequence[str]) -> float:
    """Runs to the end; the seconds that it took."""
    started = time.monotonic()
    done = subprocess.run(
        command(arguments), env=_environment(), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 0, (arguments, done.stderr[-3000:])
    return time.monotonic() - started


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONWARNINGS": "ignore"}


def faults(
    name: str,
    data: Path,
    folder: Path,
    kills: int,
    rng: random.Random,
    on_kill: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """What is wrong after so many kills of a command, in words; nothing if all is well."""
    case = CASES[name]
    calm, killed = folder / f"{name}-calm", folder / f"{name}-killed"
    seconds = _finish(case.arguments(data, calm))
    expected, count = case.left(calm), 0
    while count < kills:
        ending = _kill(case.arguments(data, killed), rng, seconds)
        if ending is not None:
            count += 1
            on_kill()
            yield from (f"{name}: {words}" for words in ending)
        if ending is None or count == kills:  # it came to its end by itself, or it is let to
            _finish(case.arguments(data, killed))
            if case.left(killed) != expected:
                yield f"{name}: after {count} kills it leaves something else than an undisturbed run"
            if count < kills:
                shutil.rmtree(killed)


def _kill(arguments: Sequence[str], rng: random.Random, seconds: float) -> list[str] | None:
    """Ends a run at a random moment of the `seconds` that it takes: what is wrong with its end; None if it was faster."""
    process = subprocess.Popen(
        command(arguments),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGINT, signal.SIG_DFL) and None
        ),  # a shell in the background ignores it
    )
    try:
        process.communicate(timeout=rng.uniform(0.3, seconds))
        return None
    except subprocess.TimeoutExpired:
        pass
    chosen = rng.choice(SIGNALS)
    process.send_signal(chosen)
    try:
        _, said = process.communicate(timeout=120)  # its workers hold stderr open, too
    except subprocess.TimeoutExpired:
        return [f"after {chosen.name} it, or one of its workers, does not end"]
    finally:
        _end_group(process.pid)
        process.wait()
    return [f"an interrupt ends in {said[-300:]!r}"] if chosen is signal.SIGINT and "Traceback" in said else []


def _end_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def shares(kills: int) -> list[tuple[str, int]]:
    """How often each command is killed, of so many kills in all; those that never are stand not here."""
    names = list(CASES)
    each = {name: kills // len(names) + (number < kills % len(names)) for number, name in enumerate(names)}
    return [(name, share) for name, share in each.items() if share]


def killed(name: str, kills: int, folder: Path, seed: int, on_kill: Callable[[], None]) -> list[str]:
    """As `faults`. folder: is used for several commands, whose data is made once."""
    data = folder / "data"
    if not data.exists():
        prepare(data)
    return list(faults(name, data, folder, kills, random.Random(f"{seed}:{name}"), on_kill))
