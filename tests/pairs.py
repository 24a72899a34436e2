"""Two pictures of different size, and the sample that asks about both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cof_agent.trajectory import Sample

SIZES = ((800, 600), (560, 1120))
"""Width and height of the two pictures, in pixels."""


def pair(folder: Path) -> Sample:
    """A question about two pictures of coloured clouds, written into a folder as `0.png` and `1.png`."""
    paths = []
    for number, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).resize((width, height)).save(paths[-1], compress_level=1)
    return Sample("pair", paths[0], "Which is older?", ("the first",), more_images=(paths[1],))
