"""How many wrong answers about relative position name both places rightly, and then compare them wrongly.

    python scripts/places_told.py RUN ...

For runs of `cof eval` on drawn scenes with a model that writes both places before it answers, as nano does.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cof_agent import scoring
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.scenes import oracle
from cof_agent.trajectory import Trajectory, read_jsonl

NEAR = 10  # shown pixels of the overview, on each axis
_PLACE = re.compile(r"\[(\d+), (\d+)\]")


def tells_both(trajectory: Trajectory) -> bool:
    """Whether the places in the last turn are those of the two things, in the question's order."""
    if trajectory.overview is None or not trajectory.turns:
        return False
    told = [(float(x), float(y)) for x, y in _PLACE.findall(trajectory.turns[-1].text)]
    true = [
        trajectory.overview.from_source(look.boxes[0], CoordinateSystem.ABSOLUTE).center
        for look in oracle.looks(trajectory.sample)
    ]
    near = (max(abs(x - cx), abs(y - cy)) <= NEAR for (x, y), (cx, cy) in zip(told, true, strict=False))
    return len(told) == len(true) and all(near)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders that `cof eval` has written")
    for run in parser.parse_args().runs:
        try:
            played = list(read_jsonl(run / "trajectories.jsonl", Trajectory))
        except InputError as error:
            sys.exit(f"places_told.py: {error}")
        asked = [one for one in played if one.sample.metadata.get("category") == "relative_position"]
        wrong = [one for one in asked if not scoring.accuracy(one)]
        print(f"{run}: of {len(wrong)} wrong answers {sum(map(tells_both, wrong))} name both places rightly")


if __name__ == "__main__":
    main()
