"""`cof eval` against a plain sequential loop over transformers' `generate`, and the figures of large runs.

Prints questions per second of both, measured one after the other on the same scenes; then how long it takes to score and
report two runs of 10,000 trajectories: the summary of each, as `cof eval` ends, and `cof compare`, from reading the files to
the page.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from benches.agent import SequentialTransformers, rate
from cof_agent import cli
from cof_agent.backends.checkpoint import load
from cof_agent.data.samples import read_samples
from cof_agent.evaluation.metrics import summarise
from cof_agent.geometry import Size
from cof_agent.nano import NANO, WEIGHTS
from cof_agent.scenes.write import write_scenes
from cof_agent.trajectory import StopReason, Trajectory, read_jsonl, to_json

SIZE = Size(960, 540)  # of the scenes, in pixels
CONCURRENCY = 32
REPORTED = 10_000  # trajectories of each run
AIM = 20.0  # seconds


def run(count: int, repeats: int) -> None:
    """count: scenes. repeats: of each measurement of the model, the best of which counts."""
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder), count=count, seed=11, size=SIZE, split="test")
        samples = read_samples(Path(folder))
        policy = load(NANO)
        sequential = SequentialTransformers(policy, WEIGHTS)
        plain, ours = 0.0, 0.0
        for _ in range(repeats):  # by turns, so that a machine that slows down slows both
            reached, others = rate(samples, sequential, 1, 1)
            plain = max(plain, reached)
            reached, trajectories = rate(samples, policy, CONCURRENCY, 1)
            ours = max(ours, reached)
        same = sum(one.answer == other.answer for one, other in zip(trajectories, others, strict=True))
        print(f"sequential transformers     {plain:6.2f} questions/s    1.0 x")
        print(f"cof eval, concurrency {CONCURRENCY}    {ours:6.2f} questions/s  {ours / plain:5.1f} x")
        print(f"({same} of {count} answers are the same)")
        _reports(trajectories, Path(folder))


def _reports(trajectories: Sequence[Trajectory], folder: Path) -> None:
    named = {"real": many(trajectories, "real", 11), "blank": many(trajectories, "blank", 3)}
    for name, made in named.items():
        (folder / name).mkdir()
        (folder / name / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in made))
    seconds: dict[str, float] = {}
    for name in named:
        with _lap(f"summary of the {'first' if not seconds else 'second'}", seconds):
            read = list(read_jsonl(folder / name / "trajectories.jsonl", Trajectory))
            (folder / name / "summary.json").write_text(json.dumps(summarise(read)))
    with _lap("cof compare", seconds), redirect_stdout(io.StringIO()):
        runs = [str(folder / name) for name in named]
        if cli.main(["compare", *runs, "-o", str(folder / "compared")]):
            raise SystemExit("cof compare failed")
    size = (folder / "compared" / "report.html").stat().st_size
    parts = ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items())
    print(
        f"two runs of {REPORTED:,} trajectories: {parts}; {sum(seconds.values()):.1f} s in all, the aim is {AIM:.0f} s"
    )
    print(f"(the page has {size / 1e6:.1f} MB)")


@contextmanager
def _lap(name: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def many(trajectories: Sequence[Trajectory], crop: str, every: int) -> list[Trajectory]:
    """The trajectories again and again under new ids, as many as are reported; each so-manieth is not answered.

    crop: what the settings say that crops showed.
    """
    made = []
    for number, one in enumerate(islice(cycle(trajectories), REPORTED)):
        sample = replace(one.sample, id=f"{one.sample.id}-{number}")
        changed = replace(one, sample=sample, settings=one.settings | {"crop": crop})
        lost = number % every == 0
        made.append(replace(changed, answer=None, stop=StopReason.MAX_ZOOMS) if lost else changed)
    return made
