"""Puts a recorded trajectory into the coordinates and onto the grid of the model that is trained.

A trajectory collected with one family can teach another: its boxes are rewritten from the views that they name, and the
views are sized for the new grid. What the target model would itself have been shown is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cof_agent.backends import families
from cof_agent.backends.families import Family
from cof_agent.config import in_dialect
from cof_agent.data.unusable import Unusable
from cof_agent.environment import OF_DIALECT, ZoomEnvironment, ZoomSettings, settings_of
from cof_agent.geometry import (
    Box,
    BoxError,
    CoordinateSystem,
    PixelLimits,
    Size,
    View,
    read_box,
    smart_resize,
)
from cof_agent.protocol import Message
from cof_agent.protocol.dialects import Dialect, dialect_of, recorded
from cof_agent.strategies.replay import format_of
from cof_agent.trajectory import Trajectory

NOT_SHOWN = "image that was never shown"
NOT_REWRITTEN = "turn that cannot be rewritten for this model"


@dataclass(frozen=True, slots=True)
class Frame:
    """A model's family, and the sizes of image that its processor leaves alone (areas in shown pixels)."""

    family: Family
    grid: int
    min_pixels: int
    max_pixels: int

    @property
    def system(self) -> CoordinateSystem:
        """What the model's boxes mean."""
        return self.family.vision.coordinates

    def fits(self, size: Size) -> bool:
        return self.fitted(size) == size

    def fitted(self, size: Size) -> Size:
        """What the processor makes of an image of `size`."""
        return smart_resize(size, grid=self.grid, min_pixels=self.min_pixels, max_pixels=self.max_pixels)


@dataclass(frozen=True, slots=True)
class Outline:
    """A sample without pixels: messages with image slots, and the sizes of the images in shown pixels."""

    messages: list[Message]
    sizes: list[Size]


def frame_of(config: Any, processor: Any) -> Frame:
    """The frame of a checkpoint, from its configuration and its processor."""
    vision, size = config.vision_config, processor.image_processor.size
    grid = vision.patch_size * vision.spatial_merge_size
    return Frame(families.of(config), grid, size["shortest_edge"], size["longest_edge"])


def reframe(
    trajectory: Trajectory, frame: Frame, environment: ZoomEnvironment, dialect: Dialect | None = None
) -> Trajectory:
    """The trajectory as the model of `frame` would have written and seen it; `environment` keeps decoded images.

    dialect: in which it is to be held; by default the one that it was held in.

    Raises:
        Unusable: if it was never shown, or a turn that must be rewritten is not in the wire format.
        InputError: if the image cannot be opened, or the record does not say how it was made.
    """
    if trajectory.overview is None:
        raise Unusable(NOT_SHOWN)
    made, wire, spoken = settings_of(trajectory), format_of(trajectory), dialect_of(trajectory)
    into = dialect or spoken
    if trajectory.more_overviews and not into.takes_several_images:
        raise Unusable(NOT_REWRITTEN, f"it has several images, and {into.name} has no name for a second one")
    system = wire.system or into.coordinates or frame.system
    if into == spoken and made.system == system and all(frame.fits(view.shown_size) for view in trajectory.views):
        return trajectory
    settings = _settings(made, trajectory, frame, system, None if into == spoken else into)
    target = environment.with_settings(settings)
    views, shown, turns = trajectory.views, [*target.overviews(trajectory.sample)], []

    def move(box: Sequence[Any], image: int) -> Box:
        return _moved(box, image, made.system, system, views, shown)

    for turn in trajectory.turns:
        try:
            text, actions = wire.rewrite(turn, move, shown[0], spoken, into)
        except ValueError as error:
            raise Unusable(NOT_REWRITTEN, error) from None
        observations = target.step(actions, shown, sample=trajectory.sample)
        if len(observations) != len(turn.observations) or any(found.view is None for found in observations):
            raise Unusable(NOT_REWRITTEN, "a box of it brings no crop in this model's coordinates")
        shown += [found.view for found in observations if found.view is not None]
        turns.append(replace(turn, text=text, actions=actions, observations=observations))
    for view in shown:
        if not frame.fits(view.shown_size):
            raise Unusable(NOT_REWRITTEN, f"an image of {view.shown_size} pixels, which the processor would resize")
    kept = {name: value for name, value in trajectory.settings.items() if name not in (*OF_DIALECT, "dialect")}
    made_with = {**kept, **settings.to_dict(), **recorded(into)}
    first, *others = shown[: len(trajectory.overviews)]
    shared: dict[str, Any] = {"overview": first, "more_overviews": tuple(others), "turns": tuple(turns)}
    return replace(trajectory, **shared, settings=made_with, dialect=into.name)


def _settings(
    made: ZoomSettings, trajectory: Trajectory, frame: Frame, system: CoordinateSystem, into: Dialect | None
) -> ZoomSettings:
    """What the model of `frame` is shown, by the rules of the dialect `into`, or by those that the trajectory was made with."""
    areas = (max(made.overview_pixels(view.source_size) for view in trajectory.overviews), made.limits.zoom_pixels)
    stated = (into.overview.max_pixels, into.crop.max_pixels) if into else (None, None)
    least, most = frame.min_pixels, frame.max_pixels
    overview, crop = (min(max(one or other, least), most) for one, other in zip(stated, areas, strict=True))
    limits = PixelLimits(frame.grid, least, overview, crop)
    settings = replace(made, system=system, limits=limits, resolution=None)
    return in_dialect(settings, into, zooms=trajectory.zooms) if into else settings


def _moved(
    box: Sequence[Any],
    image: int,
    old: CoordinateSystem,
    new: CoordinateSystem,
    views: Sequence[View],
    shown: Sequence[View],
) -> Box:
    """A box as the model wrote it, in the new coordinates."""
    try:
        source = views[image].to_source(read_box(box, old), old)
    except (BoxError, IndexError):
        raise Unusable(NOT_REWRITTEN, "a box of it cannot be read") from None
    moved = shown[image].from_source(source, new)
    return moved if new.digits else Box(*(float(round(value)) for value in moved))
