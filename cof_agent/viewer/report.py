"""Writes trajectories as one self-contained HTML page that opens from disk: `cof view FILE -o report.html`.

The page's markup, style and script stand in `page/`. Text of models and data reaches the page only as JSON in a data
block, from which the script builds text nodes; the page's own policy forbids any other script, style or request.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import DEFAULT_MAX_SOURCE_PIXELS, open_source
from cof_agent.protocol import lettered, thought
from cof_agent.region_refs import in_source_pixels
from cof_agent.scoring import choice_of
from cof_agent.trajectory import Action, Answer, Observation, Trajectory, Turn, Use, Zoom, views_of, write_atomic
from cof_agent.viewer.markup import cut, fill, part, policy
from cof_agent.viewer.picture import PALETTE, annotate, fitted

__all__ = ["MAX_PAGE_BYTES", "MAX_TRAJECTORIES", "annotate", "write_page"]

MAX_PAGE_BYTES = 60_000_000
"""No page is larger. The more images there are, the smaller each is embedded; very long texts are cut, and say so."""

MAX_TRAJECTORIES = 5_000
"""The first so many are shown; the page says how many there were."""

_IMAGE_BYTES = 29_000_000  # of WebP; a third more as base64
_TEXT_BYTES = 14_000_000
_OVERVIEW_BYTES, _OVERVIEW_SIDE, _OVERVIEW_WEIGHT = 360_000, 1600, 4.0
_CROP_BYTES, _CROP_SIDE, _CROP_WEIGHT = 90_000, 720, 1.0
_MIN_SIDE = 48  # pixels; an image that must be smaller to fit is left out
_LONGEST_TEXT, _SHORT_TEXT, _SHORTEST_TEXT = 12_000, 200, 24  # characters of one text
_BLOCK_BYTES = 72  # what the markup around an image takes, in bytes before base64
_MOST_TURNS, _MOST_STEPS, _MOST_VIEWS, _MOST_CHOICES = 60, 24, 100, 60


def write_page(
    trajectories: Iterable[Trajectory],
    output: Path,
    *,
    title: str,
    score: Callable[[Trajectory], bool | None],
    progress: Callable[[int, int], None] | None = None,
    max_source_pixels: int = DEFAULT_MAX_SOURCE_PIXELS,
) -> None:
    """Write the page, whole, to `output`; at most `MAX_PAGE_BYTES`.

    Each distinct image of each source is embedded once; each source is decoded once, a few at a time. A source that is
    missing, broken or above `max_source_pixels` is told on its cards and stops nothing. `score` says right, wrong or
    (None) not scored. `progress` is told how many source images of how many are done.

    Raises:
        OSError: if `output` cannot be written.
    """
    everything = list(trajectories)
    shown = everything[:MAX_TRAJECTORIES]
    pictures = _Pictures(max_source_pixels)
    allowance = _TEXT_BYTES // max(1, len(shown))
    records = [_fit_record(trajectory, score(trajectory), pictures, allowance) for trajectory in shown]
    embedded = pictures.encode(progress)
    title = cut(title, 200)
    head = {
        "total": len(everything),
        "palette": PALETTE,
        "problems": [[text, numbers] for text, numbers in pictures.problems.items()],
    }
    data = f'{_json(head)[:-1]},"records":[{",".join(records)}]}}'
    write_atomic(output, _page(title, data, embedded))


def located(trajectory: Trajectory, folder: Path) -> Trajectory:
    """A relative image path is meant from the folder of the file, where it does not exist from here."""
    image = Path(trajectory.sample.image)
    if image.is_absolute() or image.exists() or not (folder / image).exists():
        return trajectory
    return replace(trajectory, sample=replace(trajectory.sample, image=str(folder / image)))


# --- the page around the data


def _page(title: str, data: str, embedded: dict[int, tuple[Size, bytes]]) -> bytes:
    parts = {kind: part(f"page.{kind}") for kind in ("html", "css", "js")}
    fills = {
        "title": escape(title),
        "policy": escape(policy(parts["css"], parts["js"]), quote=True),
        "style": parts["css"],
        "script": parts["js"],
        "data": data,
        "images": "".join(_image_block(number, *image) for number, image in embedded.items()),
    }
    return fill(parts["html"], fills).encode()


def _image_block(number: int, size: Size, encoded: bytes) -> str:
    """Base64 in a data block of its own, so that the page reads an image only when its card comes into sight."""
    text = base64.b64encode(encoded).decode()
    return f'<script type="text/plain" id="i{number}" data-w="{size.width}" data-h="{size.height}">{text}</script>\n'


_UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def _json(value: Any) -> str:
    """JSON that is also safe inside a script element: it can neither close the element nor open a comment."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


# --- one trajectory as data


def _fit_record(trajectory: Trajectory, right: bool | None, pictures: _Pictures, allowance: int) -> str:
    """The trajectory as JSON of at most `allowance` bytes: long texts are cut ever shorter, then turns are left out."""
    views = trajectory.views[:_MOST_VIEWS]
    numbers = [pictures.add(trajectory.sample.image, view, overview=k == 0) for k, view in enumerate(views)]
    limit, turns = _LONGEST_TEXT, _MOST_TURNS
    while True:
        record = _json(_record(trajectory, right, numbers, limit, turns))
        size = len(record.encode())
        if size <= allowance or limit < _SHORT_TEXT:
            return record
        if limit > _SHORT_TEXT:
            limit = max(_SHORT_TEXT, int(limit * min(0.5, allowance / size)))
        elif turns:
            turns //= 2
        else:
            limit = _SHORTEST_TEXT


def _record(trajectory: Trajectory, right: bool | None, numbers: list[int], limit: int, turns: int) -> dict[str, Any]:
    sample, shown = trajectory.sample, trajectory.turns[:turns]
    views = views_of(trajectory.overview, shown)
    most = _MOST_CHOICES if turns else 2
    category, answer, overview = sample.metadata.get("category"), trajectory.answer, trajectory.overview
    crop = trajectory.settings.get("crop", "real")
    return {
        "id": cut(sample.id, min(limit, 200)),
        "file": cut(Path(sample.image).name, min(limit, 200)),
        "question": cut(in_source_pixels(sample.question, sample, overview.source_size), limit)
        if overview
        else cut(sample.question, limit),
        "choices": [[letter, cut(text, min(limit, 1000))] for letter, text in lettered(sample.choices[:most])],
        "truth": [[cut(text, min(limit, 1000)), _choice(text, sample.choices)] for text in sample.answers[:most]],
        "answer": None if answer is None else [cut(answer, limit), _choice(answer, sample.choices)],
        "right": right,
        "stop": trajectory.stop.value,
        "error": None if trajectory.error is None else cut(trajectory.error, min(limit, 2000)),
        "policy": cut(trajectory.policy, min(limit, 120)),
        "category": "" if category is None else cut(str(category), min(limit, 80)),
        "altered": "" if crop == "real" else cut(str(crop), min(limit, 40)),  # an ablation: the model saw other crops
        "zooms": trajectory.zooms,
        "tokens": _tokens(trajectory.turns),
        "seconds": _finite(trajectory.seconds),
        "size": [overview.source_size.width, overview.source_size.height] if overview else None,
        "boxes": [list(box) for box in (*sample.boxes, *sample.regions)[:most] if _all_finite(box)],
        "views": [_view(view, number) for view, number in zip(views, numbers, strict=False)],
        "turns": _turns(shown, limit),
        "left_out": len(trajectory.turns) - len(shown),
    }


def _tokens(turns: Iterable[Turn]) -> list[int | None]:
    """Tokens in and out of all turns; None where no turn knows."""
    spent = [(turn.tokens.prompt, turn.tokens.completion) for turn in turns]
    known = [[count for count in column if count is not None] for column in zip(*spent, strict=True)]
    return [sum(counts) if counts else None for counts in known] or [None, None]


def _view(view: View, number: int) -> dict[str, Any]:
    return {
        "image": number,
        "region": list(view.region.pixels()),
        "shown": [view.shown_size.width, view.shown_size.height],
    }


def _turns(turns: Iterable[Turn], limit: int) -> list[dict[str, Any]]:
    shown, next_view = [], 1
    for turn in turns:
        steps: list[dict[str, Any]] = []
        pairs = list(_paired(turn))
        for action, observation in pairs[:_MOST_STEPS]:
            steps.append(_step(action, observation, next_view, limit))
            next_view += observation is not None and observation.view is not None
        unshown = [observation for _, observation in pairs[_MOST_STEPS:]]
        next_view += sum(observation is not None and observation.view is not None for observation in unshown)
        shown.append(
            {
                "thought": cut(thought(turn.text), limit),
                "text": cut(turn.text, limit),
                "steps": steps,
                "more": len(pairs) - len(steps),
                "tokens": [turn.tokens.prompt, turn.tokens.completion],
                "seconds": _finite(turn.seconds),
            }
        )
    return shown


def _paired(turn: Turn) -> Iterator[tuple[Action | None, Observation | None]]:
    """Each action with what came back for it: the i-th observation belongs to the i-th action that is no answer."""
    waiting = deque(turn.observations)
    for action in turn.actions:
        yield action, waiting.popleft() if waiting and not isinstance(action, Answer) else None
    yield from ((None, observation) for observation in waiting)


def _step(action: Action | None, observation: Observation | None, next_view: int, limit: int) -> dict[str, Any]:
    step: dict[str, Any] = {"kind": action.kind if action else "observation"}
    if isinstance(action, Use):
        return {"kind": "use", "tool": cut(action.tool, limit), "arguments": cut(str(action.arguments), limit)}
    if isinstance(action, Zoom):
        step["asked"] = cut("[" + ", ".join(str(value) for value in action.box[:8]) + "]", 120)
        step["of"] = action.image
    elif isinstance(action, Answer):
        step["text"] = cut(action.text, limit // 2)
    elif action is not None:
        step["text"] = cut(action.reason, 400)
    if observation is not None:
        if observation.view is not None:
            step["view"] = next_view
        step["error"] = None if observation.error is None else cut(observation.error, 400)
        step["note"] = None if observation.note is None else cut(observation.note, 400)
    return step


def _choice(answer: str, choices: tuple[str, ...]) -> int | None:
    text = choice_of(answer, choices)
    return None if text is None else choices.index(text)


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _all_finite(box: Box) -> bool:
    return all(math.isfinite(edge) for edge in box)


# --- the images


@dataclass(frozen=True, slots=True)
class _Picture:
    """A part of a source to embed; `side` is the most pixels on its long side, `weight` its share of the bytes."""

    source_size: Size
    region: Box
    side: int
    weight: float
    most_bytes: int


@dataclass(slots=True)
class _Pictures:
    """Every distinct image the page needs, numbered in the order of asking; by source, so that each is decoded once."""

    max_source_pixels: int
    by_path: dict[str, dict[_Picture, int]] = field(default_factory=dict)
    problems: dict[str, list[int]] = field(default_factory=dict)  # what went wrong: the images it keeps from the page
    count: int = 0

    def add(self, path: str, view: View, *, overview: bool) -> int:
        """The number of the image that shows `view` of the source at `path`."""
        if overview:
            side = min(_OVERVIEW_SIDE, max(view.shown_size.long_side, view.source_size.long_side))
            wanted = _Picture(view.source_size, view.region, side, _OVERVIEW_WEIGHT, _OVERVIEW_BYTES)
        else:
            side = min(_CROP_SIDE, view.shown_size.long_side)
            wanted = _Picture(view.source_size, view.region, side, _CROP_WEIGHT, _CROP_BYTES)
        pictures = self.by_path.setdefault(path, {})
        if wanted not in pictures:
            pictures[wanted] = self.count
            self.count += 1
        return pictures[wanted]

    def encode(self, progress: Callable[[int, int], None] | None) -> dict[int, tuple[Size, bytes]]:
        """Every image as WebP; those that could not be had are in `problems`. Together at most `_IMAGE_BYTES`."""
        weights = sum(picture.weight for pictures in self.by_path.values() for picture in pictures)
        unit = _IMAGE_BYTES / max(1.0, weights)
        done: dict[int, tuple[Size, bytes]] = {}
        # Decoding releases the interpreter lock; each worker holds one decoded source at a time.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            jobs = pool.map(
                lambda path: _encode_source(path, self.by_path[path], unit, self.max_source_pixels), self.by_path
            )
            for index, (encoded, problems) in enumerate(jobs, 1):
                done |= encoded
                for number, text in problems.items():
                    self.problems.setdefault(cut(text, 200), []).append(number)
                if progress is not None:
                    progress(index, len(self.by_path))
        return done


def _encode_source(
    path: str, pictures: dict[_Picture, int], unit: float, max_source_pixels: int
) -> tuple[dict[int, tuple[Size, bytes]], dict[int, str]]:
    encoded: dict[int, tuple[Size, bytes]] = {}
    problems: dict[int, str] = {}
    try:
        source = open_source(path, max_source_pixels=max_source_pixels)
    except (InputError, OSError) as error:
        return {}, {number: str(error) for number in pictures.values()}
    for picture, number in pictures.items():
        most = int(min(picture.most_bytes, unit * picture.weight - _BLOCK_BYTES))
        size = fitted(_region_size(picture.region), _first_side(picture, most), at_least=picture.side)
        try:
            pixels = source.show(View(picture.source_size, picture.region, size))
            encoded[number] = encode(pixels, most)
        except (InputError, ValueError, OSError, MemoryError) as error:
            problems[number] = str(error) or type(error).__name__
    return encoded, problems


def _region_size(region: Box) -> Size:
    return Size(max(1, round(region.width)), max(1, round(region.height)))


def _first_side(picture: _Picture, most_bytes: int) -> int:
    """A long side that is worth trying: WebP of a noisy photograph takes at least 0.04 bytes a pixel."""
    aspect = max(picture.region.width / picture.region.height, picture.region.height / picture.region.width)
    return max(_MIN_SIDE, min(picture.side, round(math.sqrt(max(0, most_bytes) / 0.04 * aspect))))


def encode(pixels: Image.Image, most_bytes: int) -> tuple[Size, bytes]:
    """`pixels` as WebP of at most `most_bytes`, made smaller until it fits.

    Raises:
        InputError: if not even a very small one fits.
    """
    while True:
        file = io.BytesIO()
        pixels.save(file, "WEBP", quality=78, method=3)
        if file.tell() <= most_bytes:
            return Size(*pixels.size), file.getvalue()
        # A smaller picture takes more bytes a pixel, hence the 0.9.
        factor = max(0.4, 0.9 * math.sqrt(most_bytes / file.tell()))
        width, height = (max(1, round(side * factor)) for side in pixels.size)
        if max(width, height) < _MIN_SIDE:
            raise InputError("there is no room for this image on a page with so many")
        pixels = pixels.resize((width, height), Image.Resampling.BICUBIC)
