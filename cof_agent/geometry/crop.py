"""From a box to the crop that is cut for it: the rules by which checkpoints were trained, and the one function that follows them.

The defaults of `CropRule` are our own. Published checkpoints learned others; each dialect states its own rule
(`protocol.dialects`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cof_agent.errors import InputError
from cof_agent.geometry.boxes import BoxError, crop_region, grid_size
from cof_agent.geometry.frames import Box, PixelLimits, Size, View, moved


@dataclass(frozen=True, slots=True)
class CropRule:
    """How a box becomes a crop. Lengths are in pixels of the canvas, the image in which the rule is applied.

    canvas: the whole source; the `region` of the source that the named image shows; the named image as `shown` (the
    source itself for the first); or the `overview` as shown, from which the pixels are then cut, too.
    outside: a box that leaves the canvas is clipped, or refused. order: exchanged edges are swapped, or refused.
    enlarge: factor about the centre. pad: added on each side, as a share of the canvas' side. min_side: a shorter side is
    widened to it; `grow` says whether alone, or both sides by the same factor. border: a box that then leaves the canvas is
    shifted inside, or clipped, `inset` pixels before the right and the lower edge. edges: rounded outwards, down, or to the
    nearest pixel. longer_than: each side must be. most_ratio: between the sides. zoom_scale: shown pixels for each pixel of
    the crop. at_least: shown pixels of a side before the grid. min_pixels, max_pixels: area of the crop as shown; by default
    the model's own limits. sizing: how an area outside these limits is changed: `grid`, by the processor's rule, or
    `area`, scaled to the limit first and put on the grid then.
    resample: Pillow's filter. bad_box: what a box that cannot be used brings: a sentence, or the whole image again.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    canvas: Literal["source", "region", "shown", "overview"] = "source"
    outside: Literal["clip", "refuse"] = "clip"
    order: Literal["swap", "refuse"] = "swap"
    enlarge: float = 1.5
    pad: float = 0.0
    min_side: int = 28
    grow: Literal["side", "both"] = "side"
    border: Literal["shift", "clip"] = "shift"
    inset: int = 0
    edges: Literal["out", "down", "nearest"] = "out"
    longer_than: float = 0.0
    most_ratio: float = 1e9
    zoom_scale: float = 2.0
    at_least: int = 0
    min_pixels: int | None = None
    max_pixels: int | None = None
    sizing: Literal["grid", "area"] = "grid"
    resample: Literal["bicubic", "lanczos"] = "bicubic"
    bad_box: Literal["sentence", "image"] = "sentence"

    def __post_init__(self) -> None:
        rules = {
            "enlarge must be between 1 and 100": 1 <= self.enlarge <= 100,
            "min_side must be at least 1": self.min_side >= 1,
            "zoom_scale must be above 0 and at most 100": 0 < self.zoom_scale <= 100,
            "pad must be at least 0 and below 1": 0 <= self.pad < 1,
            "most_ratio must be at least 1": self.most_ratio >= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"{rule}.")


OUR_RULE = CropRule()


def cut(box: Box, named: View, overview: View, rule: CropRule, limits: PixelLimits) -> View:
    """The view that a box brings.

    box: in source pixels, with ordered edges. named: the image that it was given for. limits: those of the model, where the
    rule has none.

    Raises:
        BoxError: with the sentence that the model reads.
    """
    canvas, frame = _canvas(named, overview, rule)
    whole = _whole(canvas)
    wanted = box if frame == whole else _rounded(moved(box, frame, whole))
    inside = wanted.clipped(canvas)
    if rule.outside == "refuse" and inside != wanted:
        raise BoxError(f"The box must lie inside the image, which is {canvas} pixels.")
    if not (inside.width > 0 and inside.height > 0):
        raise BoxError(f"The box lies outside the image, which is {canvas} pixels.")
    grown = _grown(wanted, inside, canvas, rule)
    edges = _ROUNDINGS[rule.edges](_rounded(grown))
    exact = grown if rule.edges == "nearest" else edges
    _check(exact, edges, rule)
    region = _inside(_ROUNDINGS["out"](_rounded(moved(edges, whole, frame))), named.source_size)
    shown = shown_size(exact, rule, limits)
    return View(named.source_size, region, shown, cut=edges if rule.canvas == "overview" else None)


def _canvas(named: View, overview: View, rule: CropRule) -> tuple[Size, Box]:
    """The size of the canvas, and its edges in source pixels."""
    source = _whole(named.source_size)
    if rule.canvas == "overview":
        return overview.shown_size, source
    if rule.canvas == "region":
        return Size(round(named.region.width), round(named.region.height)), named.region
    if rule.canvas == "shown" and named.region != source:
        return named.shown_size, named.region
    return named.source_size, source


def _grown(wanted: Box, inside: Box, canvas: Size, rule: CropRule) -> Box:
    """The box enlarged, padded, widened to the least side and brought back inside the canvas."""
    if rule.border == "shift":
        return crop_region(wanted, canvas, enlarge=rule.enlarge, min_side=rule.min_side)
    box = inside.scaled(rule.enlarge)
    x, y = rule.pad * canvas.width, rule.pad * canvas.height
    box = Box(box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y).clipped(canvas)
    box = _grown_both(box, canvas, rule.min_side) if rule.grow == "both" else _widened(box, rule.min_side)
    inner = Size(max(1, canvas.width - rule.inset), max(1, canvas.height - rule.inset))
    return box.clipped(inner)


def _widened(box: Box, least: int) -> Box:
    (cx, cy), w, h = box.center, max(box.width, least) / 2, max(box.height, least) / 2
    return Box(cx - w, cy - h, cx + w, cy + h)


def _grown_both(box: Box, canvas: Size, least: int) -> Box:
    """Both sides by the factor that brings the shorter one to `least`; as it was, if there is no room for that.

    The rule of Qwen-Agent's `image_zoom_in_tool`, with its rounding.
    """
    if min(box.width, box.height) >= least:
        return box
    (cx, cy), factor = box.center, least / min(box.width, box.height)
    w, h = math.ceil(box.width * factor * 0.5), math.ceil(box.height * factor * 0.5)
    grown = Box(math.floor(cx - w), math.floor(cy - h), math.ceil(cx + w), math.ceil(cy + h)).clipped(canvas)
    return grown if grown.width > least and grown.height > least else box


def _rounded(box: Box) -> Box:
    """Without float noise, which would move an exact pixel edge by one."""
    return Box(*(round(edge, 6) for edge in box))


_ROUNDINGS: dict[str, Callable[[Box], Box]] = {
    "out": lambda box: Box(math.floor(box.x0), math.floor(box.y0), math.ceil(box.x1), math.ceil(box.y1)),
    "down": lambda box: Box(*map(math.floor, box)),
    "nearest": lambda box: Box(*map(round, box)),  # as Pillow's crop does
}


def _check(exact: Box, edges: Box, rule: CropRule) -> None:
    """Refuses a box that the rule does not cut; `edges` are the whole pixels of the `exact` one.

    Raises:
        BoxError: if it is too small or too thin.
    """
    if not (edges.width >= 1 and edges.height >= 1):
        raise BoxError("The box is smaller than one pixel.")
    short, long = sorted((exact.width, exact.height))
    if not short > rule.longer_than:
        raise BoxError(f"The box is too small: each side must be longer than {rule.longer_than:g} pixels.")
    if long / short > rule.most_ratio:
        raise BoxError(f"The box is too thin: one side may be at most {rule.most_ratio:g} times the other.")


def shown_size(crop: Box, rule: CropRule, limits: PixelLimits) -> Size:
    """The size in shown pixels at which a crop is shown."""
    width, height = crop.width * rule.zoom_scale, crop.height * rule.zoom_scale
    if rule.edges != "nearest":  # Pillow's crops have whole pixels; Qwen-Agent reckons with the box as it was written
        width, height = round(width), round(height)
        width, height = max(1, width), max(1, height)
    width, height = max(width, rule.at_least), max(height, rule.at_least)
    least = limits.min_pixels if rule.min_pixels is None else rule.min_pixels
    most = limits.zoom_pixels if rule.max_pixels is None else rule.max_pixels
    least = min(least, most)  # a model's limit, or the user's, may be below what the rule asks for
    return sized(width, height, rule.sizing, grid=limits.grid, min_pixels=least, max_pixels=most)


def sized(width: float, height: float, sizing: str, *, grid: int, min_pixels: int, max_pixels: int) -> Size:
    """A size on the grid with an area between the limits, by one of the two ways of `CropRule.sizing`."""
    if sizing == "area":
        area = width * height
        wanted = min(max(area, min_pixels), max_pixels)
        if wanted != area:
            factor = math.sqrt(wanted / area)
            width, height = int(width * factor), int(height * factor)
        return grid_size(width, height, grid=grid, min_pixels=grid * grid, max_pixels=2 * max_pixels)
    return grid_size(width, height, grid=grid, min_pixels=min_pixels, max_pixels=max_pixels)


def _whole(size: Size) -> Box:
    return Box(0, 0, size.width, size.height)


def _inside(region: Box, source: Size) -> Box:
    """Whole pixels of the source, at least one."""
    x0, y0 = min(max(0, region.x0), source.width - 1), min(max(0, region.y0), source.height - 1)
    return Box(x0, y0, min(max(region.x1, x0 + 1), source.width), min(max(region.y1, y0 + 1), source.height))
