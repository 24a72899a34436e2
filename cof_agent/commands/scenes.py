"""`cof scenes -o DIR`: draws scenes with questions and known answers."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cof_agent.commands.options import count, option
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.output.escape import for_terminal
from cof_agent.output.progress import track
from cof_agent.scenes.questions import CATEGORIES
from cof_agent.scenes.write import SPLITS, write_scenes

LONGEST = 15_360  # pixels of the long side of a scene


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof scenes -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof scenes -o outputs/test --samples 500 --seed 1 --split test"
    option(parser, "output", required=True, help="folder for samples.jsonl and images/")
    option(parser, "samples", default=10, help="number of scenes, each with a question")
    option(parser, "seed", default=0, help="seed by which scenes are drawn (default: 0)")
    option(parser, "split", choices=SPLITS, default="test", help="part of all scenes; parts share no scene")
    parser.add_argument(
        "--size", default="3840x2160", metavar="WxH", help="size in pixels; scenes are drawn 3840 wide and resized"
    )
    option(
        parser,
        "resolutions",
        default=(),
        help="write every scene with each of these long sides, in pixels, instead (default: none)",
    )
    parser.add_argument(
        "--parts",
        default="1",
        metavar="F,F,...",
        help="share of the scene's sides that a picture shows, one drawn for each; 0.5 is a quarter of the area",
    )
    parser.add_argument(
        "--categories",
        default=",".join(CATEGORIES),
        metavar="NAME,...",
        help="only scenes with such a question (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the samples of another command in the folder")
    parser.add_argument(
        "--processes", type=count, metavar="N", help="number of worker processes (default: one per CPU core)"
    )


def run(options: argparse.Namespace) -> int:
    _check_resolutions(options.resolutions)
    path = write_scenes(
        Path(options.output),
        count=options.samples,
        seed=options.seed,
        size=_size(options.size),
        split=options.split,
        resolutions=options.resolutions,
        parts=_parts(options.parts),
        categories=_categories(options.categories),
        processes=options.processes or os.cpu_count() or 1,
        overwrite=options.overwrite,
        progress=lambda drawn: track(drawn, "Drawing scenes", options.samples, quiet=options.quiet),
    )
    print(for_terminal(path))
    return 0


def _check_resolutions(found: Sequence[int]) -> None:
    if max(found, default=0) > LONGEST:
        raise InputError(f"--resolutions {max(found)} is out of range: at most {LONGEST} pixels on the long side.")


def _parts(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0.1 <= part <= 1 for part in found):
        raise InputError(f"--parts must be shares of the sides from 0.1 to 1, such as 0.5,1, not {text!r}.")
    return found


def _categories(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in CATEGORIES]:
        raise InputError(f"--categories knows {', '.join(CATEGORIES)}, and not {unknown[0]!r}.")
    return found


def _size(text: str) -> Size:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if found is None:
        raise InputError(f"--size must be WIDTHxHEIGHT in pixels, such as 3840x2160, not {text!r}.")
    size = Size(int(found[1]), int(found[2]))
    if not 0.4 <= size.width / size.height <= 2.5 or size.long_side > LONGEST:
        raise InputError(
            f"--size {text} is out of range: at most {LONGEST} on the long side, and at most 2.5 times as long as wide."
        )
    return size
