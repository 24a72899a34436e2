"""Visual Genome (`region_descriptions.json`, Krishna et al., arXiv 1602.07332): captions of regions, a few to a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cof_agent.data.region_sets.instructions import CAPTION, in_rounds
from cof_agent.data.region_sets.read import box_of, json_of, row
from cof_agent.region_refs import ROUNDS
from cof_agent.trajectory import Sample

TOGETHER = 4  # regions of a conversation


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`. Images are named `<id>.jpg`, as the set's are."""
    path = folder / "region_descriptions.json"
    for number, image in enumerate(json_of(path, list), 1):
        with row(path, number):
            found = []
            for one in image["regions"]:
                box = box_of(one["x"], one["y"], one["width"], one["height"])
                phrase = str(one["phrase"]).strip()
                if box is not None and phrase:
                    found.append((box, phrase))
            id = int(image["id"] if "id" in image else image["regions"][0]["image_id"])
        for start in range(0, len(found), TOGETHER):
            some = found[start : start + TOGETHER]
            name = f"vg-{id}-{start}"
            question, answer, further = in_rounds(CAPTION, [phrase for _, phrase in some], name)
            boxes = tuple(box for box, _ in some)
            yield Sample(name, f"{id}.jpg", question, (answer,), metadata={ROUNDS: further}, regions=boxes)
