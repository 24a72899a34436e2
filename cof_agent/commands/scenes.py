"""`cof scenes OUT`: draws scenes with questions and known answers."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from rich.console import Console
from rich.progress import track

from cof_agent.commands import common
from cof_agent.errors import InputError
from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes

LONGEST = 15_360  # pixels of the long side of a scene


def run(options: argparse.Namespace) -> int:
    console = Console(stderr=True)
    path = write_scenes(
        Path(options.output),
        count=options.count,
        seed=options.seed,
        size=_size(options.size),
        split=options.split,
        resolutions=_resolutions(options.resolutions) if options.resolutions else (),
        parts=_parts(options.parts),
        processes=options.processes or os.cpu_count() or 1,
        progress=lambda drawn: track(
            drawn, "Drawing scenes", total=options.count, console=console, disable=not console.is_terminal
        ),
    )
    print(path)
    return 0


def _resolutions(text: str) -> list[int]:
    found = common.resolutions(text)
    if max(found) > LONGEST:
        raise InputError(f"--resolutions {text} is out of range: at most {LONGEST} pixels on the long side.")
    return found


def _parts(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0.1 <= part <= 1 for part in found):
        raise InputError(f"--parts must be shares of the sides from 0.1 to 1, such as 0.5,1, not {text!r}.")
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
