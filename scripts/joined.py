"""Runs on whole scenes and on parts of scenes as one run, by the size at which the overview would show a whole scene.

    python scripts/joined.py OUTPUT WHOLE_RUN=1 QUARTER_RUN=0.5 ...

Writes OUTPUT/trajectories.jsonl for `cof compare`: half of a scene's sides in an overview of 448 pixels counts as 896.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cof_agent.episodes import QUESTION, RESOLUTION, question_of, resolution_of
from cof_agent.output.files import write_atomic
from cof_agent.trajectory import Trajectory, read_jsonl, to_json


def relabelled(folder: Path, share: float) -> Iterator[Trajectory]:
    """The trajectories of `cof eval` on scenes of this share of a whole one's sides."""
    for trajectory in read_jsonl(folder / "trajectories.jsonl", Trajectory):
        sample, shown = trajectory.sample, resolution_of(trajectory)
        plain = {name: value for name, value in sample.metadata.items() if name not in (RESOLUTION, QUESTION)}
        whole = replace(sample, id=f"{question_of(sample)} of {share:g}", metadata=plain)
        yield replace(trajectory, sample=whole, resolution=shown and round(shown / share))


if __name__ == "__main__":
    output, *parts = sys.argv[1:]
    split = [part.rsplit("=", 1) for part in parts]
    lines = [to_json(one) + "\n" for folder, share in split for one in relabelled(Path(folder), float(share))]
    write_atomic(Path(output) / "trajectories.jsonl", "".join(lines))
