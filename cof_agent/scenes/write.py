"""Puts scene samples on disk: `samples.jsonl` and one PNG a scene (`cof scenes -o DIR --samples N`)."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count as counting
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from cof_agent.episodes import QUESTION, RESOLUTION
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size
from cof_agent.output.files import make_folder, write_atomic
from cof_agent.output.origin import differences, read_origin, write_origin
from cof_agent.scenes.draw import photograph
from cof_agent.scenes.questions import CATEGORIES, Question, ask
from cof_agent.scenes.scene import HARD, HELD_OUT, Scene, Style, generate, part_of
from cof_agent.trajectory import Sample, to_json

SPLITS = ("train", "val", "test", "hard")
DRAWN = 3840  # source pixels of the long side; smaller sizes are resized from this
FEWEST = 3  # scenes for which another process is worth its start


def scene_of(split: str, seed: int, index: int, style: Style) -> tuple[Scene, Question]:
    """The `index`-th scene of a split and its question. The split is part of the seed, so splits share none."""
    category = category_of(index)
    for attempt in range(100):
        key = f"{split}:{seed}:{index}:{attempt}"
        scene = generate(key, style)
        question = ask(scene, category, Random(f"ask:{key}"))
        if question is not None and (split != "hard" or attempt > 20 or _is_new(question)):
            return scene, question
    raise InputError(f"no scene with a question of category {category} came out of a hundred; use larger objects.")


def category_of(index: int) -> str:
    """The category of the question about the `index`-th scene of any split: each in turn."""
    return CATEGORIES[index % len(CATEGORIES)]


def _is_new(question: Question) -> bool:
    """Whether the question is about a colour and shape pair that training never shows."""
    return any(f"{colour} {shape}" in question.text for colour, shape in HELD_OUT)


def style_of(split: str, aspect: Size) -> Style:
    """What the scenes of a split are drawn from, at full resolution, in the aspect ratio of `aspect`."""
    scale = DRAWN / aspect.long_side
    size = Size(max(1, round(aspect.width * scale)), max(1, round(aspect.height * scale)))
    base = HARD if split == "hard" else Style()
    return Style(size, base.count, base.side, base.pairs, base.label_lengths, base.clutter, base.signs)


def sample_of(scene: Scene, question: Question, *, id: str, image: str, size: Size) -> Sample:
    """The record of a question; boxes and details are in pixels of the picture as written, `size`."""
    scale = size.width / scene.size.width
    looks = [
        {
            "name": look.name,
            "boxes": [[value * scale for value in box] for box in look.boxes],
            "detail": look.detail * scale,
        }
        for look in question.looks
    ]
    random = Random(f"choices:{id}")
    options = random.sample(question.options, min(3, len(question.options)))
    choices = [question.answer, *options] if options and random.random() < 0.5 else []
    random.shuffle(choices)
    return Sample(
        id=id,
        image=image,
        question=question.text,
        answers=(question.answer,),
        choices=tuple(choices),
        boxes=tuple(Box(*look["boxes"][-1]) for look in looks),  # type: ignore[index]
        metadata={
            "category": question.category,
            "kind": question.kind,
            "objects": len(scene.items),
            "looks": looks,
        },
    )


def write_scenes(
    output: Path,
    *,
    count: int,
    seed: int,
    size: Size,
    split: str,
    resolutions: Sequence[int] = (),
    parts: Sequence[float] = (1.0,),
    categories: Sequence[str] = CATEGORIES,
    processes: int = 1,
    overwrite: bool = False,
    progress: Callable[[Iterable[list[Sample]]], Iterable[list[Sample]]] = iter,
) -> Path:
    """Write `count` scenes of a split and their `samples.jsonl`; returns the path of the latter.

    resolutions: long sides in pixels at which each scene is written, in the aspect ratio of `size`, as samples of their
    own named `id@resolution`; without them each is written once, at `size`.
    parts: shares of a whole scene's sides (`scene.part_of`). Each picture shows one of them, chosen at random; `size` and
    `resolutions` are those of a whole scene.
    categories: of the questions; scenes with a question of another one are passed over.
    processes: that draw, at most; with more than one the caller must be importable, as multiprocessing asks.
    Pictures that are there already are kept, so the same command goes on after an interruption; and with a larger `count` it
    adds scenes. overwrite: replaces the samples of another command.
    `progress` wraps the samples of each scene as they come, to show how far it is.

    Raises:
        InputError: if there are samples already that this command did not write, or more than it would write; or if the
            folder cannot be written to.
    """
    make_folder(output)
    settings = {"seed": seed, "split": split, "size": str(size), "resolutions": [*resolutions], "parts": [*parts]}
    settings |= {"categories": sorted(categories)}
    _claim(output, settings | {"samples": count}, overwrite=overwrite)
    make_folder(output / "images")
    draw = _Drawing(output, seed, split, style_of(split, size), size, tuple(resolutions), tuple(parts))
    indices = list(islice((index for index in counting() if category_of(index) in categories), count))
    with _mapped(draw, indices, min(processes, count // FEWEST)) as drawn:
        lines = [to_json(sample) for samples in progress(drawn) for sample in samples]
    path = output / "samples.jsonl"
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def _claim(output: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Writes with which settings the folder is made, where it has no samples of other ones."""
    samples, path = output / "samples.jsonl", output / SETTINGS
    earlier = read_origin(path)
    hint = "use another folder, or --overwrite"
    if earlier is None and (output / "trajectories.jsonl").exists():
        raise InputError(f"{output} holds the results of another command; use another folder.")
    if samples.exists() and not overwrite:
        if earlier is None:
            raise InputError(f"{samples} holds samples, and nothing says that `cof scenes` drew them; {hint}.")
        earlier = {"categories": sorted(CATEGORIES)} | earlier  # an older version knew no others
        fewer = settings["samples"] < earlier.get("samples", 0)
        names = [name for name in settings if name != "samples" or fewer]
        if different := differences(earlier, {name: settings[name] for name in names}):
            raise InputError(f"{output} holds other scenes: {different}; {hint}.")
    if earlier != settings:
        write_origin(path, settings)


SETTINGS = "scenes.json"
"""Holds with which settings the scenes of a folder were drawn."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Draws the scenes of one set, by index; may be sent to another process."""

    output: Path
    seed: int
    split: str
    style: Style
    size: Size
    resolutions: tuple[int, ...]
    parts: tuple[float, ...]

    def __call__(self, index: int) -> list[Sample]:
        """Writes the pictures of a scene that are not there; its samples."""
        part = Random(f"part:{self.split}:{self.seed}:{index}").choice(self.parts)
        scene, question = scene_of(self.split, self.seed, index, part_of(self.style, part))
        name = f"{self.split}-{self.seed}-{index:05d}"
        picture = (
            name if part == 1 else f"{name}-part{part:g}"
        )  # else that of a whole scene of this size is taken for it
        photo: Image.Image | None = None  # drawn once, and only if a picture is missing
        samples = []
        for long_side in self.resolutions or [self.size.long_side]:
            to = _with_long_side(self.size, long_side * part)
            relative = f"images/{picture}-{to.width}x{to.height}.png"
            if not (self.output / relative).exists():
                photo = photo or photograph(scene)
                write_atomic(self.output / relative, _png(photo, to))
            sample = sample_of(scene, question, id=name, image=relative, size=to)
            samples.append(_one_of(sample, to.long_side) if self.resolutions else sample)
        return samples


def _one_of(sample: Sample, side: int) -> Sample:
    """The sample as one of several sizes, `id@side`."""
    told = {RESOLUTION: side, QUESTION: sample.id}
    return replace(sample, id=f"{sample.id}@{side}", metadata=sample.metadata | told)


@contextmanager
def _mapped(draw: _Drawing, indices: Sequence[int], processes: int) -> Iterator[Iterable[list[Sample]]]:
    """The samples of each scene, in order, drawn in so many processes; none is begun after an interrupt."""
    if processes < 2:
        yield map(draw, indices)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _begin_to_draw) as pool:
        try:
            yield pool.map(draw, indices)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin_to_draw() -> None:
    """In a new process: interrupts are left to the parent. One that is killed says nothing, and would be waited for without
    end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


def _with_long_side(size: Size, long_side: float) -> Size:
    scale = long_side / size.long_side
    return Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))


def _png(image: Image.Image, size: Size) -> bytes:
    if image.size != (size.width, size.height):
        # The gap lets Pillow halve a far larger picture first, which is faster and hardly to be seen.
        image = image.resize((size.width, size.height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
