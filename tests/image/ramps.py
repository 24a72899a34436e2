"""A picture for what reads regions, and regions of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cof_agent.geometry import Box, Size

SMALL = 1000  # a limit of pixels that all images here are above, so that they are read by tiles
SIZE = Size(300, 200)
REGIONS = (Box(0, 0, 300, 200), Box(17, 5, 203, 99), Box(299, 199, 300, 200), Box(40, 60, 104, 124))


def picture() -> Image.Image:
    """Ramps that cross, and noise."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE.width), np.linspace(0, 255, SIZE.height))
    noise = np.random.default_rng(5).integers(0, 30, (SIZE.height, SIZE.width, 3))
    return Image.fromarray(np.clip(np.stack([x, y, 255 - x], -1) - noise, 0, 255).astype(np.uint8))
