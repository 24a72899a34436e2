"""Boxes as answers: the box in a reply, in pixels of the source, and its overlap with the true one."""

from __future__ import annotations

import re
from typing import Any

from cof_agent import protocol
from cof_agent.geometry import Box, BoxError, CoordinateSystem, clip_to_view, read_box
from cof_agent.protocol.dialects import Dialect, dialect_of, ours
from cof_agent.scoring.normalise import folded, unwrapped
from cof_agent.trajectory import Trajectory

NO_IMAGE = -1
_LONGEST = 4000  # characters of a reply that can give a box
_NUMBER = r"[+-]?\d{1,7}(?:\.\d{1,9})?"
_RUN = re.compile(rf"(?<![\d.]){_NUMBER}(?:[\s,;()]{{1,6}}{_NUMBER})*")  # numbers with nothing else between them
_KEYS = ("bbox_2d", "bbox", "box_2d", "box")


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = first.intersection(second)
    union = first.area + second.area - shared
    return shared / union if union else 0.0


def box_overlap(trajectory: Trajectory) -> float | None:
    """IoU of the box in the answer with that of the sample, the best where it has several, 0 to 1; None if there is none.

    The numbers are the model's own. They belong to the overview, or to the image that the answer names as `"image"`. No box,
    several different ones, or one outside the image is 0.
    """
    system = trajectory.settings.get("system")
    if not trajectory.sample.boxes or (trajectory.answer is not None and system is None):
        return None
    said = None if trajectory.answer is None else answered_box(trajectory, CoordinateSystem(str(system)))
    return 0.0 if said is None else max(iou(said, true) for true in trajectory.sample.boxes)


def answered_box(trajectory: Trajectory, system: CoordinateSystem) -> Box | None:
    """The one box that the answer gives, in source pixels; None if there is none, or several."""
    written = written_boxes(trajectory.answer or "", dialect_of(trajectory))
    if len(set(written)) != 1:
        return None
    *numbers, image = written[0]
    views = trajectory.views
    if not 0 <= image < len(views) or views[int(image)].source:  # the true box lies in the first image
        return None
    view = views[int(image)]
    try:
        return view.to_source(clip_to_view(read_box(numbers, system), view, system), system)
    except BoxError:
        return None


def written_boxes(reply: str, dialect: Dialect | None = None) -> list[tuple[float, float, float, float, int]]:
    """Each box in a reply as its four numbers as written, and the number of the image they belong to, which is named as in the
    calls of the dialect, by default ours; `NO_IMAGE` where that is no image's name."""
    spoken = dialect or ours()
    text = unwrapped(folded(reply))
    if len(text) > _LONGEST:
        return []
    held = protocol.json_in(text)
    found = list(_in_json(held, spoken))
    if found:
        return found
    plain = re.sub(r"\b(?:bbox|box)_2d\b|[xy][0-9]\s?=", " ", text)
    plain = re.sub(r"<[^<>]{0,40}>", " ", plain)
    runs = ([float(number) for number in re.findall(_NUMBER, run[0])] for run in _RUN.finditer(plain))
    return [(run[0], run[1], run[2], run[3], 0) for run in runs if len(run) == 4]


def _in_json(held: Any, spoken: Dialect, depth: int = 0) -> list[tuple[float, float, float, float, int]]:
    if isinstance(held, dict):
        image = protocol.image_named(held, spoken)
        box = next((held[key] for key in _KEYS if key in held), None)
        number = image if isinstance(image, int) else NO_IMAGE
        return [(*one[:4], number) for one in _in_json(box, spoken, depth + 1)]
    if not isinstance(held, list) or depth > 3:
        return []
    if len(held) == 4 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in held):
        return [(float(held[0]), float(held[1]), float(held[2]), float(held[3]), 0)]
    corners = protocol.box_of(held)
    if len(held) == 2 and corners is not None and len(corners) == 4:
        return _in_json(corners, spoken, depth + 1)
    return [box for one in held[:50] for box in _in_json(one, spoken, depth + 1)]
