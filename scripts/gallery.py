"""Random trajectories as one picture, to be looked at one by one.

python scripts/gallery.py outputs/real/trajectories -o gallery.webp
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cof_agent.commands.options import count
from cof_agent.errors import InputError
from cof_agent.image.source import open_source
from cof_agent.trajectory import Trajectory, read_jsonl
from cof_agent.viewer.picture import annotate

GAP = 24  # pixels between two pictures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with trajectories.jsonl, or such a file")
    parser.add_argument("-o", "--output", required=True, type=Path, help="picture; its name says the format")
    parser.add_argument("--count", type=count, default=20, help="number of trajectories (default: 20)")
    parser.add_argument("--columns", type=count, default=5, help="pictures side by side (default: 5)")
    parser.add_argument("--side", type=count, default=520, help="pixels of an overview's long side (default: 520)")
    parser.add_argument("--quality", type=count, default=60, help="of the file, from 1 to 100 (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    options = parser.parse_args(arguments)
    file = options.folder / "trajectories.jsonl" if options.folder.is_dir() else options.folder
    if not file.exists():
        print(f"gallery.py: there is no {file}.", file=sys.stderr)
        return 2
    try:
        every = list(read_jsonl(file, Trajectory))
        if not every:
            raise InputError(f"{file} has no trajectory.")
        chosen = sorted(random.Random(options.seed).sample(range(len(every)), min(options.count, len(every))))
        pictures = [
            annotate(every[place], *map(open_source, every[place].sample.images), long_side=options.side)
            for place in chosen
        ]
        placed(pictures, options.columns).save(options.output, quality=options.quality)
    except (InputError, OSError, ValueError) as error:  # ValueError: a name that says no format
        print(f"gallery.py: {error}", file=sys.stderr)
        return 2
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
