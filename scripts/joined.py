"""Runs on whole scenes and on parts of scenes as one run, by the size at which the overview would show a whole scene.

    python scripts/joined.py OUTPUT WHOLE_RUN=1 QUARTER_RUN=0.5 ...

Writes OUTPUT/trajectories.jsonl for `cof compare`: half of a scene's sides in an overview of 448 pixels counts as 896.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cof_agent.episodes import QUESTION, RESOLUTION, question_of, resolution_of
from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Trajectory, read_jsonl, to_json


def relabelled(folder: Path, share: float) -> Iterator[Trajectory]:
    """The trajectories of `cof eval` on scenes of this share of a whole one's sides."""
    for trajectory in read_jsonl(folder / "trajectories.jsonl", Trajectory):
        sample, shown = trajectory.sample, resolution_of(trajectory)
        plain = {name: value for name, value in sample.metadata.items() if name not in (RESOLUTION, QUESTION)}
        whole = replace(sample, id=f"{question_of(sample)} of {share:g}", metadata=plain)
        yield replace(trajectory, sample=whole, resolution=shown and round(shown / share))


def part(text: str) -> tuple[Path, float]:
    """A run and its share, of `RUN=SHARE`."""
    folder, _, share = text.rpartition("=")
    if not folder or not 0 < float(share) <= 1:
        raise ValueError(text)
    return Path(folder), float(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("runs", nargs="+", type=part, metavar="RUN=SHARE")
    options = parser.parse_args()
    try:
        lines = [to_json(one) + "\n" for folder, share in options.runs for one in relabelled(folder, share)]
        write_atomic(options.output / "trajectories.jsonl", "".join(lines))
    except InputError as error:
        sys.exit(f"joined.py: {error}")


if __name__ == "__main__":
    main()
