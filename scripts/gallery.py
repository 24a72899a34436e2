"""Random trajectories as one picture, for looking at them one by one:

python scripts/gallery.py outputs/real/trajectories -o gallery.webp --count 20
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cof_agent.image.source import open_source
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.picture import annotate

GAP = 24  # pixels between two pictures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with trajectories.jsonl, or such a file")
    parser.add_argument("-o", "--output", required=True, type=Path, help="picture; its name says the format")
    parser.add_argument("--count", type=int, default=20, help="number of trajectories (default: 20)")
    parser.add_argument("--columns", type=int, default=4, help="pictures side by side (default: 4)")
    parser.add_argument("--side", type=int, default=560, help="pixels of an overview's long side (default: 560)")
    parser.add_argument("--quality", type=int, default=60, help="of the file, from 1 to 100 (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    options = parser.parse_args(arguments)
    file = options.folder / "trajectories.jsonl" if options.folder.is_dir() else options.folder
    if not file.exists():
        print(f"gallery.py: there is no {file}.", file=sys.stderr)
        return 2
    every = list(read_jsonl(file, Trajectory))
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    pictures = [
        annotate(one, *map(open_source, one.sample.images), long_side=options.side)
        for one in sorted(chosen, key=every.index)
    ]
    placed(pictures, options.columns).save(options.output, quality=options.quality)
    print(f"{len(pictures)} of {len(every)} trajectories: {options.output}")
    return 0


def placed(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """In columns, each picture below the last one of the column that is shortest so far."""
    width = max(picture.width for picture in pictures)
    heights = [0] * min(columns, len(pictures))
    corners = []
    for picture in pictures:
        column = heights.index(min(heights))
        corners.append((column * (width + GAP), heights[column]))
        heights[column] += picture.height + GAP
    canvas = Image.new("RGB", (len(heights) * (width + GAP) - GAP, max(heights) - GAP), "white")
    for picture, corner in zip(pictures, corners, strict=True):
        canvas.paste(picture, corner)
    return canvas


if __name__ == "__main__":
    sys.exit(main())
