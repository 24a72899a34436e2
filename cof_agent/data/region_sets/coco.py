"""COCO detection (`annotations/instances_*.json`, Lin et al., arXiv 1405.0312): what is this region? One conversation an image,
a round for each object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cof_agent.data.region_sets.instructions import CATEGORY, in_rounds
from cof_agent.data.region_sets.read import SPLIT, box_of, indexed, json_of, row
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.region_refs import ROUNDS
from cof_agent.trajectory import Sample

MOST = 6  # regions of a conversation; the largest


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`. Crowds are no objects, and are left out."""
    files = sorted(folder.glob("annotations/instances_*.json")) or sorted(folder.glob("instances_*.json"))
    if not files:
        raise InputError(f"{folder} has no annotations/instances_*.json, as COCO does.")
    for path in files:
        yield from _samples(path)


def _samples(path: Path) -> Iterator[Sample]:
    data, split = json_of(path, dict), path.stem.removeprefix("instances_").rstrip("0123456789")
    with row(path, "of the whole"):
        images, names = indexed(path, data["images"]), indexed(path, data["categories"])
        annotations = data["annotations"]
    of_image: dict[object, list[tuple[Box, str]]] = {}
    for number, one in enumerate(annotations, 1):
        with row(path, number):
            box, name = box_of(*one["bbox"]), str(names[one["category_id"]]["name"])
            if one["image_id"] not in images:
                raise ValueError(f"there is no image {one['image_id']}")
            if box is not None and not one.get("iscrowd"):
                of_image.setdefault(one["image_id"], []).append((box, name))
    for id, found in of_image.items():
        found = sorted(found, key=lambda pair: -pair[0].area)[:MOST]
        question, answer, further = in_rounds(CATEGORY, [name for _, name in found], f"coco:{id}")
        with row(path, f"of image {id}"):
            image = str(images[id]["file_name"])
        boxes = tuple(box for box, _ in found)
        metadata = {ROUNDS: further, SPLIT: split}
        yield Sample(f"coco-{id}", image, question, (answer,), metadata=metadata, regions=boxes)
