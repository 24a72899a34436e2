"""VCR (`train.jsonl`, `val.jsonl`, Zellers et al., arXiv 1811.10830): reasoning about people and things, which its texts name by
number; boxes are in the metadata of each image. The question first, then why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cof_agent.data.region_sets.instructions import WHY, drawn
from cof_agent.data.region_sets.read import SPLIT, box_of, json_of, row
from cof_agent.data.rows import json_rows
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.region_refs import ROUNDS
from cof_agent.trajectory import Sample

IMAGES = "vcr1images"  # the folder of images and their metadata, beside the questions


def samples(folder: Path) -> Iterator[Sample]:
    """See `region_sets.build.samples_of`. The test set, whose answers are not public, is passed over."""
    files = [path for path in (folder / "train.jsonl", folder / "val.jsonl") if path.exists()]
    if not files:
        raise InputError(f"{folder} has no train.jsonl or val.jsonl, as VCR does.")
    for path in files:
        for number, one in enumerate(json_rows(path), 1):
            with row(path, number):
                yield _sample(folder, path, one)


def _sample(folder: Path, path: Path, one: dict[str, Any]) -> Sample:
    frames = _boxes(folder / IMAGES / str(one["metadata_fn"]))
    texts = (
        one["question"],
        one["answer_choices"][int(one["answer_label"])],
        one["rationale_choices"][int(one["rationale_label"])],
    )
    named: list[int] = []
    for text in texts:
        named += [index for word in text if isinstance(word, list) for index in word if index not in named]
    boxes = [frames[index] if 0 <= index < len(frames) else None for index in named]
    if None in boxes:
        raise ValueError("it names an object that the metadata has no box of")
    id = str(one["annot_id"])
    asked = [index for word in texts[0] if isinstance(word, list) for index in word]
    question, answer, reason = (_words(text, one["objects"], named) for text in texts)
    question = _words(texts[0], one["objects"], named, placeholder=True)
    unasked = [number for number, index in enumerate(named, 1) if index not in asked]
    if unasked:  # spoken of in the answer only, where the model is to know them by number
        question += f" (Also to be seen: {', '.join(f'<region{number}>' for number in unasked)}.)"
    return Sample(
        f"vcr-{path.stem}-{id}",
        f"{IMAGES}/{one['img_fn']}",
        question,
        (answer,),
        metadata={ROUNDS: [[drawn(WHY, id), reason]], SPLIT: path.stem},
        regions=tuple(box for box in boxes if box is not None),
    )


def _words(text: list[Any], objects: list[str], named: list[int], *, placeholder: bool = False) -> str:
    """A text of VCR, words and lists of objects by index, with `<regionN>` for these, or `person (region N)`."""
    pieces = []
    for word in text:
        if isinstance(word, list):
            places = [(named.index(index) + 1, objects[index]) for index in word]
            pieces.append(" and ".join(f"<region{n}>" if placeholder else f"{name} (region {n})" for n, name in places))
        else:
            pieces.append(str(word))
    joined = " ".join(pieces)
    for mark in (".", ",", "?", "!", "'"):
        joined = joined.replace(f" {mark}", mark)
    return joined.strip()


def _boxes(path: Path) -> list[Box | None]:
    data = json_of(path, dict)
    with row(path, "of the whole"):
        return [box_of(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1, *_ in data["boxes"]]
