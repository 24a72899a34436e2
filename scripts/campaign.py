"""Looks for faults: hostile texts, damaged images, killed commands, a server that does everything wrong.

    python scripts/campaign.py --texts 200000 --images 2000 --kills 60 --servers

prints a table of tried and failed; the exit code is 1 if anything failed. What each part does stands in `tests/faults/README.md`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CHUNK = {"texts": 2_000, "images": 100}
SHOWN = 5  # faults of each part that are printed


@dataclass
class Tried:
    """One row of the table."""

    what: str
    tried: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    rows = []
    for row in _parts(options):
        rows.append(row)
        for fault in row.faults[:SHOWN]:
            print(f"{row.what}: {fault}", file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row.faults for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--texts", type=int, default=0, metavar="N", help="read N hostile texts of models (default: none)"
    )
    parser.add_argument("--images", type=int, default=0, metavar="N", help="open N damaged images (default: none)")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill commands N times (default: never)")
    parser.add_argument("--servers", action="store_true", help="ask a server in each of its faulty ways")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of texts, images and kills (default: 0)")
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="worker processes (default: one per CPU core)",
    )
    return parser.parse_args()


def _parts(options: argparse.Namespace) -> Iterator[Tried]:
    for what in ("texts", "images"):
        if count := getattr(options, what):
            yield _timed(partial(_generated, count=count, seed=options.seed, processes=options.processes), what)
    if options.kills:
        yield from _kills(options.kills, options.seed)
    if options.servers:
        yield _timed(partial(_tests, file="test_servers.py"), "servers")


def _timed(run: Callable[[Tried], None], what: str) -> Tried:
    row, started = Tried(what), time.monotonic()
    run(row)
    row.seconds = time.monotonic() - started
    return row


def _generated(row: Tried, count: int, seed: int, processes: int) -> None:
    """Texts or images, a chunk at a time; a chunk that ends its process is a fault, too."""
    left = [range(start, min(start + CHUNK[row.what], count)) for start in range(0, count, CHUNK[row.what])]
    while left:
        with ProcessPoolExecutor(processes, get_context("spawn"), _silenced) as pool:
            jobs = {numbers: pool.submit(_chunk, row.what, numbers, seed) for numbers in left}
        for numbers, job in jobs.items():
            if not _crashed(job):
                row.tried += len(numbers)
                row.faults += job.result()
        crashed = [numbers for numbers in left if _crashed(jobs[numbers])]
        if len(crashed) == 1 or len(crashed) == len(left):  # others were stopped with the one that crashed
            numbers = crashed.pop(0)
            row.tried += len(numbers)
            row.faults.append(f"numbers {numbers.start} to {numbers.stop - 1}: the process crashed")
        left = crashed


def _silenced() -> None:
    """Libraries in C write about broken images to the process's own stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _crashed(job: Future[list[str]]) -> bool:
    return isinstance(job.exception(), BrokenProcessPool)


def _chunk(what: str, numbers: range, seed: int) -> list[str]:
    module = import_module(f"tests.faults.{what}")
    return [f"seed {seed}, number {number}: {fault}" for number, _, fault in module.faults(numbers, seed)]


def _kills(count: int, seed: int) -> Iterator[Tried]:
    """A row for each command."""
    if find_spec("tests.faults.kills") is None:
        yield Tried("kills", faults=["tests/faults/kills.py is missing"])
        return
    started = time.monotonic()
    for name, tried, found in import_module("tests.faults.kills").campaign(count, seed):
        yield Tried(f"kills of cof {name}", tried, time.monotonic() - started, found)
        started = time.monotonic()


def _tests(row: Tried, file: str) -> None:
    """The tests of a file, those marked slow, too; each counts as one."""
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
    row.tried = len(cases)
    bad = (case for case in cases if case.find("failure") is not None or case.find("error") is not None)
    row.faults += [str(case.get("name")) for case in bad]
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
