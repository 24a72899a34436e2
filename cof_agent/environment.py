"""`ZoomEnvironment`: what the agent acts on. It shows an overview, cuts crops from the full-resolution source, knows no model.

It keeps no trajectory: every reply derives from the sample and the views so far, so that a killed run can go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal

from PIL import Image

from cof_agent.cache import LRUCache
from cof_agent.errors import InputError
from cof_agent.geometry import (
    OUR_RULE,
    Box,
    BoxError,
    CoordinateSystem,
    CropRule,
    PixelLimits,
    Size,
    View,
    clip_to_view,
    cut,
    read_box,
    shown_size,
    sized,
    smart_resize,
)
from cof_agent.image import DEFAULT_MAX_SOURCE_PIXELS, RESAMPLING, Source, file_of, open_source
from cof_agent.region_refs import check_inside
from cof_agent.tools import Tool, ToolError, load_tool
from cof_agent.trajectory import Action, Answer, Malformed, Observation, Sample, Trajectory, Use, Zoom

CropMode = Literal["real", "blank", "shuffled"]

SOURCE_CACHE_PIXELS = 40 * 3840 * 2160
"""Decoded source pixels that are kept (4 bytes each): as many 4K images as a wide rollout has in work at a time."""
SHOWN_CACHE_PIXELS = 64 * 1280 * 28 * 28
"""Pixels of ready views that are kept: every turn shows all earlier views again."""

FULL_DETAIL = 0.95  # shown pixels per source pixel; rounding to the grid can take a little off 1
_DECODER_NICENESS = 10  # a tenth of the time of what has none, where both want a core
_MAX_WORDS = 8_000  # characters of a tool's words that the model reads
_MAX_ERRORS = 4  # in one turn; a hundred unreadable calls need not fill the context with a hundred sentences
_SHUFFLES = 32
_MID_GREY = (128, 128, 128)


@dataclass(frozen=True)
class ZoomSettings:
    """What the policy is shown. The defaults are the paper's: at most 6 zooms, boxes enlarged 1.5 x, crops shown at 2 x.

    Raises:
        InputError: if a value makes no sense.
    """

    system: CoordinateSystem = CoordinateSystem.ABSOLUTE
    limits: PixelLimits = field(default_factory=PixelLimits)
    max_zooms: int = 6
    enlarge: float = 1.5  # of a box about its centre, before it is cut
    min_side: int = 28  # of a crop, in source pixels
    zoom_scale: float = 2.0  # shown pixels of a crop per source pixel, within `limits.zoom_pixels`
    max_source_pixels: int = DEFAULT_MAX_SOURCE_PIXELS
    rule: CropRule = OUR_RULE  # how a box is cut, beside the three above
    counts_from: int = 0  # the number that the model gives to the first image
    box_name: str = "bbox_2d"  # what the model calls a box
    crop: CropMode = "real"  # the ablations: "blank" shows grey, "shuffled" another place of the same image
    resolution: int | None = None  # long side of the overview in shown pixels, in place of `limits.max_pixels`
    tools: tuple[str, ...] = ()  # `module:function` of each tool beside the zoom (see `tools`)

    def __post_init__(self) -> None:
        cell = self.limits.grid**2
        rules = {
            "max_zooms must be 0 or more": self.max_zooms >= 0,
            "enlarge must be between 1 and 100": 1 <= self.enlarge <= 100,
            "min_side must be at least 1": self.min_side >= 1,
            "zoom_scale must be above 0 and at most 100": 0 < self.zoom_scale <= 100,
            "max_source_pixels must be at least 1": self.max_source_pixels >= 1,
            'crop must be "real", "blank" or "shuffled"': self.crop in ("real", "blank", "shuffled"),
            "resolution must be at least 1": self.resolution is None or self.resolution >= 1,
            f"max_pixels must be at least {cell} and min_pixels": self._allows(self.limits.max_pixels),
            f"zoom_pixels must be at least {cell} and min_pixels": self._allows(self.limits.zoom_pixels),
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"{rule}.")

    @property
    def cutting(self) -> CropRule:
        """How a box is cut."""
        return replace(self.rule, enlarge=self.enlarge, min_side=self.min_side, zoom_scale=self.zoom_scale)

    def _allows(self, max_pixels: int) -> bool:
        return max_pixels >= self.limits.grid**2 and 0 < self.limits.min_pixels <= max_pixels

    def overview_pixels(self, source: Size) -> int:
        """The largest area in which a source of this size is shown first, in shown pixels."""
        if self.resolution is None:
            return self.limits.max_pixels
        scale = min(1.0, self.resolution / source.long_side)
        area = round(source.width * scale) * round(source.height * scale)
        return max(area, self.limits.grid**2, self.limits.min_pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        plain = {**asdict(self), "system": self.system.value, "tools": list(self.tools)}
        ours = {name for name in OF_DIALECT if getattr(self, name) == getattr(_OURS, name)}
        return {name: value for name, value in plain.items() if name not in ours}


_OURS = ZoomSettings()
OF_DIALECT = ("rule", "counts_from", "box_name")
"""The settings that a dialect says, and that a record leaves out where they are ours."""


def settings_of(trajectory: Trajectory) -> ZoomSettings:
    """The settings that a trajectory was made with.

    Raises:
        InputError: if the record does not hold them.
    """
    recorded = trajectory.settings
    try:
        plain = {name: recorded[name] for name in ZoomSettings.__dataclass_fields__ if name in recorded}
        typed = {
            "limits": PixelLimits(**recorded["limits"]),
            "system": CoordinateSystem(recorded["system"]),
            "tools": tuple(recorded.get("tools", ())),
            "rule": CropRule(**recorded.get("rule", {})),
        }
        return ZoomSettings(**{**plain, **typed})
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"the trajectory of {trajectory.sample.id} does not say with which settings it was made."
        ) from None


class ZoomEnvironment:
    """Overviews, crops and the sentences about bad requests. Thread-safe; shares decoded images between calls.

    source_cache: decoded source pixels that are kept. Where each sample is read once and done with, as in training, the
    last image is all that helps; 0 keeps that one.
    """

    def __init__(self, settings: ZoomSettings | None = None, *, source_cache: int = SOURCE_CACHE_PIXELS) -> None:
        self.settings = settings or ZoomSettings()
        self._sources: LRUCache[Source] = LRUCache(source_cache)
        self._shown: LRUCache[Image.Image] = LRUCache(min(source_cache, SHOWN_CACHE_PIXELS))
        self._tools = {tool.name: tool for tool in map(load_tool, self.settings.tools)}

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools beside the zoom, by name."""
        return self._tools

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """Their schemas, as OpenAI writes functions."""
        return [tool.schema for tool in self._tools.values()]

    def with_system(self, system: CoordinateSystem) -> ZoomEnvironment:
        """The same environment for a policy that writes its boxes in `system`; shares the decoded images."""
        return self.with_settings(replace(self.settings, system=system))

    def with_settings(self, settings: ZoomSettings) -> ZoomEnvironment:
        """An environment with other settings that shares the decoded images."""
        other = ZoomEnvironment(settings)
        other._sources, other._shown = self._sources, self._shown
        return other

    def at(self, resolution: int | None) -> ZoomEnvironment:
        """The environment in which overviews are `resolution` shown pixels long, or as long as the source; shares the
        decoded images."""
        return self.with_settings(replace(self.settings, resolution=resolution)) if resolution else self

    def reset(self, sample: Sample) -> View:
        """The overview of a sample that has one image; as `overviews`.

        Raises:
            InputError: if it has several; and as `overviews`.
        """
        check_single(sample)
        return self.overviews(sample)[0]

    def overviews(self, sample: Sample) -> tuple[View, ...]:
        """Each whole image of a sample on the processor's grid, within `limits.max_pixels`. Decodes nothing.

        Raises:
            InputError: if an image cannot be opened, or a region of the sample lies outside it.
        """
        sizes = [self._source(path).size for path in sample.images]
        check_inside(sample, sizes[0])
        return tuple(self.overview(size, number) for number, size in enumerate(sizes))

    def notes(self, sample: Sample) -> tuple[str, ...]:
        """What is wrong with the sample's files although all their pixels were read; of those that are still in memory."""
        sources = [self._sources.peek(identity(path)) for path in sample.images]
        return tuple(source.note for source in sources if source is not None and source.note is not None)

    def step(
        self, actions: Sequence[Action], views: Sequence[View], *, sample: Sample | None = None, texts: int = 0
    ) -> tuple[Observation, ...]:
        """What the actions of one turn bring; `views` are all views so far, image `k` is `views[k]`.

        The i-th observation belongs to the i-th action that is no answer. Looks are done in order until the budget
        is spent; the first one beyond it gets a sentence that says so, those after it nothing. Likewise nothing
        comes after the fourth error of a turn.

        sample: whose images the views are of; tools need it, zooms do not. texts: how many looks of earlier turns were
        answered in words; they count as zooms.

        Raises:
            InputError: if a tool needs pixels, and the image cannot be decoded.
        """
        observations: list[Observation] = []
        seen = list(views)
        errors = 0
        for action in actions:
            if isinstance(action, Answer):
                continue
            spent = len(seen) - opened(seen) + texts >= self.settings.max_zooms
            observation = self._observe(sample, action, views, seen, spent=spent)
            observations.append(observation)
            if observation.view is not None:
                seen.append(observation.view)
            texts += observation.text is not None
            errors += observation.error is not None
            if errors == _MAX_ERRORS or (spent and not isinstance(action, Malformed)):
                break
        return tuple(observations)

    def image(self, sample: Sample, view: View) -> Image.Image:
        """The pixels of a view of one of the sample's images: mode RGB at exactly `view.shown_size`, a fresh copy.

        With `crop="blank"` every crop is mid-grey; with `"shuffled"` it shows a region of the same size elsewhere in
        the image, the same one each time. Overviews are always real.

        Raises:
            InputError: if the image cannot be opened or decoded, or is not the one that the view was made for.
        """
        key = (identity(_path(sample, view)), sample.id, view, self.settings.crop, self.settings.rule.resample)
        shown = self._shown.get(key, lambda: self._pixels(sample, view), lambda image: image.width * image.height)
        return shown.copy()

    async def images(self, sample: Sample, views: Sequence[View]) -> list[Image.Image]:
        """`image` of each view. Sources are decoded by threads that all environments share, as many as there are cores;
        what is cut from a source that is decoded already does not wait for them.

        Raises:
            InputError: as `image`.
        """
        sources = [self._sources.peek(identity(path)) for path in {_path(sample, view) for view in views}]
        threads = None if all(source and source.is_decoded for source in sources) else _decoders()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, lambda: [self.image(sample, view) for view in views])

    def _observe(
        self,
        sample: Sample | None,
        action: Zoom | Use | Malformed,
        views: Sequence[View],
        seen: list[View],
        *,
        spent: bool,
    ) -> Observation:
        if isinstance(action, Malformed):
            return Observation(error=action.reason) if spent else self._refused(action.reason, views)
        if spent:
            return Observation(error="No zooms are left: answer with what you have seen.")
        if not 0 <= action.image < len(views):
            last = len(views) - 1
            first = self.settings.counts_from
            known = f"the images are numbered {first} to {last + first}"
            known = f"{first} is the only image of this conversation" if last == 0 else known
            return Observation(error=f"There is no image {action.image + first}: {known}.")
        named = views[action.image]
        if named.tool is not None:
            number = action.image + self.settings.counts_from
            return Observation(
                error=f"Image {number} was made by {named.tool}: name the image that it was made from instead."
            )
        return (
            self._zoomed(action, named, views, seen) if isinstance(action, Zoom) else self._used(sample, action, named)
        )

    def _zoomed(self, action: Zoom, named: View, views: Sequence[View], seen: list[View]) -> Observation:
        system = self.settings.system
        try:
            rule = self.settings.rule
            box = read_box(action.box, system, swap=rule.order == "swap", name=self.settings.box_name)
            box = clip_to_view(box, named, system) if rule.outside == "clip" else box
            view = self.cut(named.to_source(box, system), named, views[named.source])
        except BoxError as error:
            return self._refused(str(error), views)
        return Observation(view=view, note=_no_detail(view, action.image, named, seen, self.settings.counts_from))

    def _refused(self, reason: str, views: Sequence[View]) -> Observation:
        """What a call that cannot be carried out brings: a sentence, or the whole image as if it had been asked for."""
        rule, overview = self.settings.cutting, views[0]
        if rule.bad_box == "sentence":
            return Observation(error=reason)
        whole = Box(0, 0, overview.shown_size.width, overview.shown_size.height)
        shown = shown_size(whole, rule, self.settings.limits)
        return Observation(view=replace(overview, shown_size=shown, cut=whole), note=reason)

    def _used(self, sample: Sample | None, action: Use, named: View) -> Observation:
        if sample is None:
            raise ValueError("a tool needs the sample whose image it is used on")
        arguments = tuple(sorted(action.arguments.items()))
        view = View(named.source_size, named.region, named.shown_size, action.tool, arguments, named.source)
        try:
            result = self._result(self._source(_path(sample, view)), view)
        except ToolError as error:
            return Observation(error=str(error))
        if isinstance(result, str):
            return Observation(text=result[:_MAX_WORDS] or "(no text)")
        limits = self.settings.limits
        shown = smart_resize(
            Size(*result.size), grid=limits.grid, min_pixels=limits.min_pixels, max_pixels=limits.zoom_pixels
        )
        return Observation(view=replace(view, shown_size=shown))

    def _result(self, source: Source, view: View) -> Image.Image | str:
        """What the view's tool makes of its region at full resolution; grey pixels where crops are not real."""
        assert view.tool is not None
        size = Size(int(view.region.width), int(view.region.height))
        if self.settings.crop == "real":
            pixels = source.show(View(view.source_size, view.region, size))
        else:
            pixels = Image.new("RGB", (size.width, size.height), _MID_GREY)
        return self._tools[view.tool].run(pixels, dict(view.arguments))

    def overview(self, size: Size, number: int = 0) -> View:
        """How a source of `size` pixels is shown first, which is image `number` of its sample."""
        limits, most = self.settings.limits, self.settings.overview_pixels(size)
        sizing = self.settings.rule.sizing
        shown = sized(size.width, size.height, sizing, grid=limits.grid, min_pixels=limits.min_pixels, max_pixels=most)
        return View(size, Box(0, 0, size.width, size.height), shown, source=number)

    def crop_view(self, box: Box, source: Size) -> View:
        """How `box` (source pixels) of the first image is shown when it is asked for, by the rule of `settings`.

        Raises:
            BoxError: if the rule refuses it.
        """
        overview = self.overview(source)
        return self.cut(box, overview, overview)

    def cut(self, box: Box, named: View, overview: View) -> View:
        """How `box` (source pixels) is shown when it is asked for in the image `named`; overview: of the same source.

        Raises:
            BoxError: if the rule of `settings` refuses it.
        """
        view = cut(box, named, overview, self.settings.cutting, self.settings.limits)
        return replace(view, source=named.source)

    def _source(self, path: str) -> Source:
        return self._sources.get(
            identity(path),
            lambda: open_source(path, max_source_pixels=self.settings.max_source_pixels),
            lambda source: source.held,
        )

    def _pixels(self, sample: Sample, view: View) -> Image.Image:
        source = self._source(_path(sample, view))
        if view.tool is not None:
            return self._made(source, view)
        if self.settings.crop == "real" or view == self.overview(source.size, view.source):
            return self._real(source, view)
        region = _elsewhere(view, sample) if self.settings.crop == "shuffled" else None
        if region is None:
            return Image.new("RGB", (view.shown_size.width, view.shown_size.height), _MID_GREY)
        return source.show(View(view.source_size, region, view.shown_size))

    def _real(self, source: Source, view: View) -> Image.Image:
        """The view itself, cut from the source or, where its dialect says so, from the overview."""
        resample = self.settings.rule.resample
        if view.cut is None:
            return source.show(view, resample)
        whole = source.show(self.overview(source.size, view.source), resample)
        size = (view.shown_size.width, view.shown_size.height)
        return whole.crop(view.cut.pixels()).resize(size, RESAMPLING[resample])

    def _made(self, source: Source, view: View) -> Image.Image:
        made = self._result(source, view)
        if isinstance(made, str):
            raise InputError(f"the tool {view.tool} gave text where it had given an image; it must always do the same.")
        return made.convert("RGB").resize((view.shown_size.width, view.shown_size.height), Image.Resampling.LANCZOS)


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, "decoder", _step_back)


def _step_back() -> None:
    """Lowers the priority of this thread, where threads have one: a model on the same machine, for which conversations
    queue up, goes first."""
    if sys.platform == "linux":
        os.nice(_DECODER_NICENESS)


def opened(views: Sequence[View]) -> int:
    """How many of these are overviews, where they are all that a conversation has shown: one of each image, before any crop."""
    return 1 + max((view.source for view in views), default=0)


def check_single(sample: Sample) -> None:
    """Refuses a sample of several images.

    Raises:
        InputError: if it has several.
    """
    if sample.more_images:
        raise InputError(f"{sample.id} has {len(sample.images)} images, but this needs a sample of one image.")


def _path(sample: Sample, view: View) -> str:
    """The file of the image that a view is of.

    Raises:
        InputError: if the sample has no such image, as after its record was edited.
    """
    if view.source >= len(sample.images):
        raise InputError(
            f"{sample.id} has {len(sample.images)} images, but a view of image {view.source}, counted from 0."
        )
    return sample.images[view.source]


def _no_detail(view: View, number: int, named: View, seen: Sequence[View], counts_from: int) -> str | None:
    """The note beside a crop that shows nothing new: `named`, image `number`, has its region as sharp, or it was shown before.
    counts_from: the number that the model gives to the first image."""
    if view in seen:
        return f"This view adds no detail: it is the same as image {seen.index(view) + counts_from}."
    enclosed = named.region.coverage(view.region) == 1
    if enclosed and (named.scale >= FULL_DETAIL or named.scale >= view.scale):
        return f"This view adds no detail: image {number + counts_from} already shows the region as sharply."
    return None


def _elsewhere(view: View, sample: Sample) -> Box | None:
    """A region as large as the view's, away from it and from the objects asked for as far as possible; None if there
    is no other place."""
    free_x = int(view.source_size.width - view.region.width)
    free_y = int(view.source_size.height - view.region.height)
    if free_x == free_y == 0:
        return None
    seed = hashlib.sha256(f"{sample.id}|{view.region.pixels()}".encode("utf-8", "replace")).digest()
    rng = random.Random(int.from_bytes(seed, "big"))
    corners = [(rng.randint(0, free_x), rng.randint(0, free_y)) for _ in range(_SHUFFLES)]
    corners += [(x, y) for x in (0, free_x) for y in (0, free_y)]
    places = [Box(x, y, x + view.region.width, y + view.region.height) for x, y in corners]
    avoided = (view.region, *(sample.boxes if view.source == 0 else ()))
    return min(places, key=lambda place: sum(place.intersection(box) for box in avoided))


def changed(sample: Sample) -> int | tuple[int, ...]:
    """When the file of its image was last changed, in nanoseconds; of several images, for each."""
    times = tuple(identity(path)[1] for path in sample.images)
    return times if len(times) > 1 else times[0]


def identity(path: str) -> tuple[str, int, int]:
    """What tells a file from the one that replaced it under the same name: the path, the time of the last change in nanoseconds,
    and the size in bytes. A missing file is reported on opening."""
    try:
        stat = os.stat(file_of(path))
    except (OSError, ValueError):
        return path, 0, 0
    return path, stat.st_mtime_ns, stat.st_size
