"""Trajectories over a drawn image: a blue field with a yellow patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageDraw

from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.protocol import parse, write_answer, write_zoom
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn

SIZE = Size(800, 400)
FIELD, PATCH = "#204060", "#ffee00"
TARGET = Box(600, 100, 660, 160)
"""The patch."""
NASTY = (
    "</script><script>alert(1)</script></style><img src=x onerror=alert(2)> & \" ' \u2028 <!-- \ud800 {{ 7 * 7 }} 图"
)


def draw_field(path: Path) -> Path:
    image = Image.new("RGB", (SIZE.width, SIZE.height), FIELD)
    ImageDraw.Draw(image).rectangle(TARGET.pixels(), fill=PATCH)
    image.save(path)
    return path


def overview(size: Size = SIZE) -> View:
    return View(size, Box(0, 0, size.width, size.height), Size(224, 112))


def crop(region: Box, size: Size = SIZE) -> View:
    return View(size, region, Size(112, 112))


def turn(text: str, *observations: Observation) -> Turn:
    return Turn(text, parse(text), observations, Tokens(100, 10), 0.5)


def zoom(view: View, thought: str = "Closer.", *, of: int = 0) -> Turn:
    box = overview().from_source(view.region, CoordinateSystem.ABSOLUTE)
    return turn(write_zoom(thought, box, of), Observation(view=view))


def trajectory(image: Path, *turns: Turn, answer: str | None = "7K", **sample: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "id": "one",
        "question": "What is on it?",
        "answers": ("7K",),
        "boxes": (TARGET,),
    } | sample
    last = (turn(write_answer("Clear now.", answer)),) if answer else ()
    stop = StopReason.ANSWERED if answer else StopReason.MAX_ZOOMS
    task = Sample(image=str(image), **fields)
    return Trajectory(task, overview(), (*turns, *last), stop, answer or None, "nano", "1")


def is_close(pixel: Any, ink: str, tolerance: int = 24) -> bool:
    """Whether a pixel has a colour, up to what compression does to it."""
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, ImageColor.getrgb(ink), strict=True))
