"""Samples of scenes, without their pictures."""

from __future__ import annotations

from cof_agent.geometry import Box, Size, View
from cof_agent.scenes.write import sample_of, scene_of, style_of
from cof_agent.trajectory import Sample

FULL = Size(3840, 2160)


def overview(size: Size = FULL) -> View:
    return View(size, Box(0, 0, size.width, size.height), Size(448, 252))


def samples(split: str, count: int) -> list[Sample]:
    made = [scene_of(split, 3, index, style_of(split, FULL)) for index in range(count)]
    return [
        sample_of(scene, question, id=f"{split}{k}", image="", size=FULL) for k, (scene, question) in enumerate(made)
    ]
