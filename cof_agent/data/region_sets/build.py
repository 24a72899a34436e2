"""Turns a public set with regions, or drawn scenes, into `samples.jsonl` (`cof regions BUILDER --data FOLDER -o DIR`)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from cof_agent.data.region_sets import coco, drawn, flickr30k, refcoco, scenes, vcr, visual_genome
from cof_agent.data.region_sets.read import SPLIT
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source
from cof_agent.output.files import check_new, write_atomic, write_new
from cof_agent.region_refs import check_inside, check_regions
from cof_agent.scenes.draw import sketch
from cof_agent.trajectory import Sample, to_json

BUILDERS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "coco": coco.samples,
    "refcoco": refcoco.samples,
    "visual-genome": visual_genome.samples,
    "flickr30k": flickr30k.samples,
    "vcr": vcr.samples,
    "scenes": scenes.samples,
}

IN_PARTS = {"visual-genome": ("VG_100K", "VG_100K_2")}
"""Folders that a set's images are published in, below that which is named."""
TRAIN, ALL = "train", "all"
_OF_SPLIT = "they are of the split "
DRAWN = "drawn"
DRAWN_SIZE = Size(1344, 756)  # source pixels: three times the overview of 448


@dataclass(frozen=True, slots=True)
class Built:
    """What was written, and how many samples were left out for each reason."""

    samples: int
    left_out: Counter[str]


def no_builder(name: str) -> InputError:
    """The sentence for a name that is none of them."""
    return InputError(f"there is no builder {name!r}; the builders are {', '.join([*BUILDERS, DRAWN])}.")


def samples_of(name: str, folder: Path) -> Iterator[Sample]:
    """The samples of a set in its published layout; `image` is relative to the set's images.

    Raises:
        InputError: if there is no such builder, or a file of the set is missing, damaged or another one.
    """
    if name not in BUILDERS:
        raise no_builder(name)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    return BUILDERS[name](folder)


def build(
    name: str, folder: Path, images: Path, output: Path, *, split: str = TRAIN, limit: int | None = None
) -> Built:
    """Writes `samples.jsonl` into `output`, with absolute paths of images. Samples whose image is missing or cannot be
    opened, or that have a region outside of it, are left out and counted. split: of sets that say of which each sample is;
    `ALL` takes every one. limit: of samples of the split that are looked at.

    Raises:
        InputError: as `samples_of`, and if nothing is left.
    """
    lines: list[str] = []
    left_out: Counter[str] = Counter()
    sizes: dict[str, Size | None] = {}
    parts = IN_PARTS.get(name, ())
    for sample in islice(_of_split(samples_of(name, folder), split, left_out), limit):
        placed = replace(sample, image=str(_found(sample.image, [images, *(images / part for part in parts)])))
        check_regions(placed)
        if placed.image not in sizes:
            sizes[placed.image] = _size(placed.image)
        size = sizes[placed.image]
        if size is None:
            left_out["its image is missing or cannot be opened"] += 1
        elif not _inside(placed, size):
            left_out["a region lies outside its image"] += 1
        else:
            lines.append(to_json(placed))
    if not lines:
        reason = left_out.most_common(1)[0][0] if left_out else None
        hint = (
            "name another one with --split"
            if reason and reason.startswith(_OF_SPLIT)
            else "name their folder with --images"
        )
        raise InputError(f"nothing in {folder} can be used{f': {reason}; {hint}' if reason else ''}.")
    _write(lines, output)
    return Built(len(lines), left_out)


def _of_split(samples: Iterable[Sample], split: str, left_out: Counter[str]) -> Iterator[Sample]:
    for sample in samples:
        own = sample.metadata.get(SPLIT, split)
        if split in (own, ALL):
            yield sample
        else:
            left_out[f"{_OF_SPLIT}{own}"] += 1


def _found(name: str, folders: Sequence[Path]) -> Path:
    """An image in the first of these folders that has it; in the first where none has."""
    paths = [(folder / name).absolute() for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def _size(path: str) -> Size | None:
    try:
        return open_source(path).size
    except InputError:
        return None


def _inside(sample: Sample, size: Size) -> bool:
    try:
        check_inside(sample, size)
    except InputError:
        return False
    return True


def draw(output: Path, *, count: int, seed: int) -> Built:
    """Draws scenes and writes their samples, with the pictures beside them; those that are there already are kept.

    Raises:
        InputError: if the folder holds other samples.
    """
    keys = [f"test:{seed}:{index}" for index in range(count)]
    names = [f"images/regions-{seed}-{index:05d}.png" for index in range(count)]
    lines: list[str] = []
    for key, name in zip(keys, names, strict=True):
        scene = drawn.scene_of(key)
        scale = DRAWN_SIZE.width / scene.size.width
        lines += [to_json(sample) for sample in drawn.samples_of(scene, key, name, scale=scale)]
    check_new(output / "samples.jsonl", "".join(f"{line}\n" for line in lines))
    for key, name in zip(keys, names, strict=True):
        if not (output / name).exists():
            scene = drawn.scene_of(key)
            view = View(scene.size, Box(0, 0, scene.size.width, scene.size.height), DRAWN_SIZE)
            buffer = io.BytesIO()
            sketch(scene, view.region, view.shown_size).save(buffer, "PNG", compress_level=1)
            write_atomic(output / name, buffer.getvalue())
    _write(lines, output)
    return Built(len(lines), Counter())


def _write(lines: Iterable[str], output: Path) -> None:
    write_new(output / "samples.jsonl", "".join(f"{line}\n" for line in lines))
