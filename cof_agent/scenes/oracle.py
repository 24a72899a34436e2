"""Knows where everything is: the ideal trajectory of a sample, with as many zooms as its details need, no more."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.scenes.questions import Look
from cof_agent.trajectory import Sample, StopReason, Trajectory, Turn, views_of

LEGIBLE = 14.0  # shown pixels a detail must be high to be told: a patch of the vision tower
FINDABLE = 8.0  # shown pixels a thing must be wide to be pointed at in a crop
FINDABLE_AT_ONCE = 16.0  # and in the overview, without a look at what it is on; about half a token
MARGIN = 1.0  # of the thing's side: what is cut is enlarged by the environment, which takes in its surroundings
SMALLEST = 16  # shown pixels: the side of the smallest box
SNAP = 4  # shown pixels: boxes lie on this raster, so that a small model has fewer numbers to learn


def play(sample: Sample, overview: View, environment: ZoomEnvironment) -> Trajectory:
    """The ideal trajectory of a scene sample from `overview` on.

    Where even the source does not hold the detail (a scene rendered small), it zooms as long as that helps and
    then gives the true answer; such a trajectory is no demonstration (`is_solvable` tells).
    """
    turns: list[Turn] = []
    for _ in range(environment.settings.max_zooms):
        views = views_of((overview,), turns)
        text = next_zoom(sample, views, environment)
        if text is None:
            break
        actions = protocol.parse(text)
        turns.append(Turn(text, actions, environment.step(actions, views)))
    text = answer(sample, overview, environment)
    turns.append(Turn(text, protocol.parse(text)))
    return Trajectory(
        sample,
        overview,
        tuple(turns),
        StopReason.ANSWERED,
        answer=sample.answers[0],
        policy="oracle",
        protocol_version=protocol.PROTOCOL_VERSION,
        settings=environment.settings.to_dict(),
    )


def answer(sample: Sample, overview: View, environment: ZoomEnvironment) -> str:
    """The answering turn in the wire format, with the true answer."""
    thought = _last_thought(sample, overview, environment.settings.system)
    return protocol.write_answer(thought, sample.answers[0])


def looks(sample: Sample) -> tuple[Look, ...]:
    """What must be seen, from the metadata that `write` puts there."""
    return tuple(Look.from_dict(look) for look in sample.metadata["looks"])


def region(sample: Sample, overview: View) -> Box:
    """What one look must take in, in source pixels: of each thing that must be seen the innermost box that can be pointed at in
    the overview, together. What is too small there is found within what it is on."""
    inner = [_target(look, [overview])[1] for look in looks(sample)]
    return Box(
        min(box.x0 for box in inner),
        min(box.y0 for box in inner),
        max(box.x1 for box in inner),
        max(box.y1 for box in inner),
    )


def zooms_needed(sample: Sample, overview: View, environment: ZoomEnvironment) -> int:
    """How many zooms the ideal trajectory has; 0 where the overview suffices."""
    return play(sample, overview, environment).zooms


def zooms_needed_by(trajectory: Trajectory, environment: ZoomEnvironment) -> int | None:
    """`zooms_needed` of a trajectory's sample from its overview on; None for a picture that is no scene."""
    if trajectory.overview is None or "looks" not in trajectory.sample.metadata:
        return None
    return zooms_needed(trajectory.sample, trajectory.overview, environment)


def is_solvable(trajectory: Trajectory) -> bool:
    """Whether every detail is legible in some view of the trajectory."""
    return shown(trajectory.sample, trajectory.views)


def shown(sample: Sample, views: Sequence[View]) -> bool:
    """Whether every detail that a sample asks about is legible in some of the views."""
    return all(_seen(look, views) for look in looks(sample))


def _seen(look: Look, views: Sequence[View]) -> bool:
    box = look.boxes[-1]
    return any(view.region.coverage(box) > 0.95 and look.detail * _scale(view) >= LEGIBLE for view in views)


def _scale(view: View) -> float:
    return min(view.shown_size.width / view.region.width, view.shown_size.height / view.region.height)


def next_zoom(sample: Sample, views: Sequence[View], environment: ZoomEnvironment) -> str | None:
    """The next zooming turn in the wire format; None when it is time to answer."""
    found = next_target(sample, views, environment)
    if found is None:
        return None
    look, number, box = found
    system = environment.settings.system
    return protocol.write_zoom(too_small(look), pointing_box(views[number], box, system), number)


def next_target(sample: Sample, views: Sequence[View], environment: ZoomEnvironment) -> tuple[Look, int, Box] | None:
    """What is to be looked at next: the look it is for, the view to point in, and the box in source pixels; None when
    it is time to answer."""
    for look in looks(sample):
        if _seen(look, views):
            continue
        number, box = _target(look, views)
        if _gains(views[number], box, environment):
            return look, number, box
    return None


def too_small(look: Look) -> str:
    """The thought before a zoom."""
    return f"{sentence(look.name)} is too small to see."


def _target(look: Look, views: Sequence[View]) -> tuple[int, Box]:
    """The innermost box that can be pointed at, and the sharpest view to do so in; else the outermost, in the overview."""
    order = sorted(range(len(views)), key=lambda k: _scale(views[k]), reverse=True)
    for box in reversed(look.boxes):
        for number in order:
            view, least = views[number], FINDABLE if number else FINDABLE_AT_ONCE
            if view.region.coverage(box) > 0.9 and min(box.width, box.height) * _scale(view) >= least:
                return number, box
    return 0, look.boxes[0]


def _gains(view: View, box: Box, environment: ZoomEnvironment) -> bool:
    """Whether cutting `box` shows it a quarter larger than `view` does, or more."""
    pointing = pointing_box(view, box, CoordinateSystem.ABSOLUTE)
    crop = environment.crop_view(view.to_source(pointing, CoordinateSystem.ABSOLUTE), view.source_size)
    return _scale(crop) > 1.25 * _scale(view)


def pointing_box(view: View, box: Box, system: CoordinateSystem) -> Box:
    """A square around `box` on the raster of `view`, in the model's coordinates."""
    shown = view.from_source(box, CoordinateSystem.ABSOLUTE)
    side = max(SMALLEST, math.ceil(MARGIN * max(shown.width, shown.height) / SNAP) * SNAP)
    cx, cy = shown.center
    x, y = (_snap(middle - side / 2) for middle in (cx, cy))
    x = max(0, min(x, view.shown_size.width - side))
    y = max(0, min(y, view.shown_size.height - side))
    snapped = Box(x, y, min(x + side, view.shown_size.width), min(y + side, view.shown_size.height))
    if system is CoordinateSystem.ABSOLUTE:
        return snapped
    exact = view.from_source(view.to_source(snapped, CoordinateSystem.ABSOLUTE), system)
    return Box(*(round(value, system.digits) for value in exact))


def _snap(value: float) -> int:
    return round(value / SNAP) * SNAP


def _last_thought(sample: Sample, overview: View, system: CoordinateSystem) -> str:
    """Where the answer is a matter of place, the places; else that it can be seen now."""
    found = looks(sample)
    if sample.metadata["category"] != "relative_position":
        name = found[0].name if found else "it"
        return f"{sentence(name)} can be seen well."
    points = [_point(overview, look.boxes[0], system) for look in found]
    return f"{sentence(found[0].name)} is at {points[0]}, {found[1].name} at {points[1]}."


def _point(view: View, box: Box, system: CoordinateSystem) -> str:
    x, y = view.from_source(box, system).center
    if system is CoordinateSystem.ABSOLUTE:
        return f"[{_snap(x)}, {_snap(y)}]"
    return f"[{round(x, system.digits):g}, {round(y, system.digits):g}]"


def sentence(words: str) -> str:
    """Words as the beginning of a sentence."""
    return words[0].upper() + words[1:]
