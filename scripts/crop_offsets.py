"""How often answers are right, by how far from the middle of the last crop the thing lies that is asked about.

    python scripts/crop_offsets.py RUN ...

For runs of `cof eval` on drawn scenes: questions about one thing in images of at least `--least` pixels, whose last crop holds
all of it. Several runs are counted together.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.scenes import oracle
from cof_agent.trajectory import Trajectory, read_jsonl

NEAR = 0.15  # of the crop's sides, between both middles


def offset(trajectory: Trajectory) -> float | None:
    """How far the middle of what is asked about lies from that of the last crop, in sides of the crop; None where there is no
    crop that holds all of it."""
    if trajectory.sample.metadata.get("category") != "direct_attributes" or not trajectory.zooms:
        return None
    region, box = trajectory.views[-1].region, oracle.looks(trajectory.sample)[-1].boxes[0]
    if region.coverage(box) < 1:
        return None
    (x, y), (cx, cy) = box.center, region.center
    return max(abs(x - cx) / region.width, abs(y - cy) / region.height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders that `cof eval` has written")
    parser.add_argument("--least", type=int, default=1920, help="long side of the image in pixels (default: 1920)")
    options = parser.parse_args()
    right: dict[bool, list[bool]] = defaultdict(list)
    try:
        played = [one for run in options.runs for one in read_jsonl(run / "trajectories.jsonl", Trajectory)]
    except InputError as error:
        sys.exit(f"crop_offsets.py: {error}")
    for trajectory in played:
        resolution = trajectory.overview.source_size.long_side if trajectory.overview else 0
        found = offset(trajectory)
        if found is not None and resolution >= options.least:
            right[found <= NEAR].append(bool(scoring.accuracy(trajectory)))
    for near, words in ((True, f"at most {NEAR}"), (False, "more")):
        print(f"{words}: {sum(right[near])} of {len(right[near])} right")


if __name__ == "__main__":
    main()
