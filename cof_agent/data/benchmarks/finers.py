"""FINERS-4k: questions about very small objects in photographs of drones, 3840 x 2160 pixels (arXiv 2510.21311).

Layout, as public users of https://huggingface.co/datasets/Jiazuo98/Finers-4k-benchmark read it:
`labels/all_annotations_final_test_v5.json`, an object with the list annotations of image_path, Q, A, Q-type, options (by letter)
and points (the polygon around the object), and `all_images/`. Q-type is option (choose), reasoning (answer freely) or referring
(segment what is described). The agent gives no masks, so referring questions are not asked. The authors take an open answer for
right in which any word is 0.8 like the truth; here it has to mean the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.benchmarks.layout import Layout, Table
from cof_agent.data.nested import unpacked
from cof_agent.data.rows import Row
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

HUB = {"Jiazuo98/Finers-4k-benchmark": ("labels/all_annotations_final_test_v5.json", "*.zip", "all_images/*")}

_SEGMENTED = "referring"
_TABLE = Table(id="", image="image_path", question="Q", answer="A", choices="options", category=("Q-type",))


def _samples(copy: Copy, row: Row) -> Iterable[Sample]:
    if text(row, "Q-type") == _SEGMENTED:
        return
    if not text(row, "A"):
        raise InputError(f"{row} has no answer in the column 'A'; is it the published file?")
    for sample in _TABLE(copy, row):
        yield replace(sample, id=str(row.number), boxes=_around(row))


def _around(row: Row) -> tuple[Box, ...]:
    """The box around the object's polygons."""
    numbers = list(_numbers(unpacked(row.values.get("points"))))
    if len(numbers) < 4 or len(numbers) % 2:
        return ()
    across, down = numbers[::2], numbers[1::2]
    box = Box(min(across), min(down), max(across), max(down))
    return (box,) if box.area else ()


def _numbers(points: object) -> Iterable[float]:
    if isinstance(points, int | float):
        yield float(points)
    elif isinstance(points, list):
        for one in points:
            yield from _numbers(one)


_NEEDED = tuple(column for column in _TABLE.columns if column != "A")  # which what is segmented need not have
LAYOUTS = (Layout(("all_annotations_final_test_v5.json", "*test*.json"), _NEEDED, _samples, ("A",)),)
