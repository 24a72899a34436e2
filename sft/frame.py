"""Puts a recorded trajectory into the coordinates and onto the grid of the model that is trained.

A trajectory collected with one family can teach another: its boxes are rewritten from the views that they name, and the
views are sized for the new grid. What the target model would itself have been shown is kept as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cof_agent import protocol
from cof_agent.backends.local.reader import FAMILIES
from cof_agent.data.export import settings_of
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, BoxError, CoordinateSystem, Size, View, read_box, smart_resize
from cof_agent.policy import PixelLimits
from cof_agent.strategies.spot import protocol as spot
from cof_agent.trajectory import Action, Trajectory, Turn, Zoom


class Unfit(Exception):
    """Why a sample cannot be trained on; the message is for the list of what was left out."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a model's boxes mean, and the sizes of image that its processor leaves alone (areas in shown pixels)."""

    system: CoordinateSystem
    grid: int
    min_pixels: int
    max_pixels: int

    def fits(self, size: Size) -> bool:
        return self.fitted(size) == size

    def fitted(self, size: Size) -> Size:
        """What the processor makes of an image of `size`."""
        return smart_resize(size, grid=self.grid, min_pixels=self.min_pixels, max_pixels=self.max_pixels)


def frame_of(config: Any, processor: Any) -> Frame:
    """The frame of a checkpoint, from its configuration and its processor."""
    vision, size = config.vision_config, processor.image_processor.size
    grid = vision.patch_size * vision.spatial_merge_size
    return Frame(FAMILIES[config.model_type], grid, size["shortest_edge"], size["longest_edge"])


def reframe(trajectory: Trajectory, frame: Frame, environment: ZoomEnvironment) -> Trajectory:
    """The trajectory as the model of `frame` would have written and seen it; `environment` keeps decoded images.

    Raises:
        Unfit: if it was never shown, or a turn that must be rewritten is not in the wire format.
        InputError: if the image cannot be opened, or the record does not say how it was made.
    """
    if trajectory.overview is None:
        raise Unfit("its image was never shown")
    made, spots = settings_of(trajectory), trajectory.protocol_version == spot.VERSION
    system = spot.SYSTEM if spots else frame.system  # Chain-of-Spot's coordinates are the same for every model
    if made.system == system and all(frame.fits(view.shown_size) for view in trajectory.views):
        return trajectory
    limits = PixelLimits(
        frame.grid,
        frame.min_pixels,
        min(max(made.limits.max_pixels, frame.min_pixels), frame.max_pixels),
        min(max(made.limits.zoom_pixels, frame.min_pixels), frame.max_pixels),
    )
    settings = replace(made, system=system, limits=limits)
    target = environment.with_settings(settings)
    views, shown, turns = trajectory.views, [target.reset(trajectory.sample)], []
    for turn in trajectory.turns:
        if spots:
            text, actions = _pointed(turn, views, shown)
        else:
            text = _rewritten(turn, made.system, frame.system, views, shown)
            actions = protocol.parse(text)
        observations = target.step(actions, shown)
        if len(observations) != len(turn.observations) or any(found.view is None for found in observations):
            raise Unfit("a box of it brings no crop in this model's coordinates")
        shown += [found.view for found in observations if found.view is not None]
        turns.append(replace(turn, text=text, actions=actions, observations=observations))
    made_with = {**trajectory.settings, **settings.to_dict()}
    return replace(trajectory, overview=shown[0], turns=tuple(turns), settings=made_with)


def _rewritten(
    turn: Turn, old: CoordinateSystem, new: CoordinateSystem, views: tuple[View, ...], shown: list[View]
) -> str:
    """The words of a turn with the box in the new coordinates."""
    if not protocol.well_formed(turn.text) or len(turn.actions) > 1:
        raise Unfit("a turn of it is not one thought and one action, so that it cannot be rewritten for this model")
    action = turn.actions[0]
    if not isinstance(action, Zoom):
        return turn.text
    return protocol.write_zoom(protocol.thought(turn.text), _moved(action, old, new, views, shown), action.image)


def _pointed(turn: Turn, views: tuple[View, ...], shown: list[View]) -> tuple[str, tuple[Action, ...]]:
    """The words and the action of a turn in Chain-of-Spot's format, the region in the padded square of the new overview."""
    (action,) = turn.actions
    if not isinstance(action, Zoom):
        return turn.text, turn.actions
    text = spot.write_region(_moved(action, spot.SYSTEM, spot.SYSTEM, views, shown))
    return text, (spot.read_region(text, shown[0]),)


def _moved(
    action: Zoom, old: CoordinateSystem, new: CoordinateSystem, views: tuple[View, ...], shown: list[View]
) -> Box:
    """The box of a zoom in the new coordinates."""
    try:
        source = views[action.image].to_source(read_box(action.box), old)
    except (BoxError, IndexError):
        raise Unfit("a box of it cannot be read, so that it cannot be rewritten for this model") from None
    box = shown[action.image].from_source(source, new)
    return box if new.digits else Box(*(float(round(value)) for value in box))
