"""RefCOCO, RefCOCO+ and RefCOCOg (Yu et al., arXiv 1608.00272): which one is this region? `refs(*).p` and `instances.json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cof_agent.data.region_sets.instructions import REFERRING, drawn
from cof_agent.data.region_sets.read import SPLIT, box_of, indexed, json_of, plain_pickle, row, text
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

PARTITIONS = ("refs(unc).p", "refs(umd).p", "refs(google).p")
"""The same sentences, parted into splits in different ways; the first that is there is read. Google's tests show images that its
training does, too."""


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`. One sample a sentence."""
    files = {path.name: path for path in folder.glob("refs*.p")}
    path = next((files[name] for name in PARTITIONS if name in files), None)
    if path is None:
        raise InputError(f"{folder} has no refs(unc).p, refs(google).p or refs(umd).p, as RefCOCO does.")
    instances = folder / "instances.json"
    data = json_of(instances, dict)
    with row(instances, "of the whole"):
        annotations, images = indexed(instances, data["annotations"]), indexed(instances, data["images"])
    for number, ref in enumerate(plain_pickle(path), 1):
        with row(path, number):
            box = box_of(*annotations[ref["ann_id"]]["bbox"])
            image = text(images[ref["image_id"]]["file_name"])
            sentences = [(one["sent_id"], text(one["sent"]).strip()) for one in ref["sentences"]]
            split = text(ref["split"])
        for id, sentence in sentences:
            if box is not None and sentence:
                question = drawn(REFERRING, f"refcoco:{id}")
                name = f"refcoco-{path.stem}-{id}"
                yield Sample(name, image, question, (sentence,), metadata={SPLIT: split}, regions=(box,))
