"""TreeBench: 405 questions about dense scenes, with the boxes of the objects they are about (arXiv 2507.07999).

Layout, as `inference_treebench.py` of https://github.com/Haochen-Wang409/TreeVGR and other public loaders read
https://huggingface.co/datasets/HaochenWang/TreeBench: `TreeBench.tsv` with index, image (base64), question, multi-choice
options (lines "A. ..." in one field), answer (a letter), category ("Perception/OCR", "Reasoning/Ordering", ...; the numbers
of each are those of the README there), l2-category and target_instances (a list of [x0, y0, x1, y1] in pixels).

In the category OCR the options stand in the image; evaluations with VLMEvalKit do not show them as text, as is done here (the
script above does show them): such a sample has no choices, and its letter, its text and both together are accepted. In at
least one row, says a public evaluation that repairs it, the mark of option B stands within the line of A.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.boxes import boxes_of
from cof_agent.data.choices import letter_in, multiple_choice, options_in
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

HUB = {"HaochenWang/TreeBench": ("TreeBench.tsv",)}
PARTS = {
    "Perception/Attributes": 29,
    "Perception/Material": 13,
    "Perception/Physical State": 23,
    "Perception/Object Retrieval": 16,
    "Perception/OCR": 68,
    "Reasoning/Perspective Transform": 85,
    "Reasoning/Ordering": 57,
    "Reasoning/Contact and Occlusion": 41,
    "Reasoning/Spatial Containment": 29,
    "Reasoning/Comparison": 44,
}


def read(copy: Copy) -> Iterator[Sample]:
    needed = ("index", "image", "question", "multi-choice options", "answer", "category", "target_instances")
    for where, row in copy.rows(copy.files("TreeBench.tsv", "*.parquet"), needed):
        _, options = options_in(text(row, "multi-choice options"))
        letter = letter_in(row["answer"], where)
        sample = multiple_choice(
            text(row, "index"),
            copy.held(row["image"], where),
            text(row, "question"),
            options,
            letter,
            category=text(row, "category"),
            subcategory=text(row, "l2-category"),
        )
        if sample.metadata["category"].endswith("OCR"):
            sample = _read_from_image(sample, letter)
        yield replace(sample, boxes=_boxes(row["target_instances"], where))


def _read_from_image(sample: Sample, letter: str) -> Sample:
    known = (letter, *(form for text in sample.answers for form in (text, f"{letter}. {text}")))
    metadata = {key: value for key, value in sample.metadata.items() if key != "unscored"} | {"scoring": "exact"}
    return replace(sample, choices=(), answers=known, metadata=metadata)


def _boxes(written: object, where: str) -> tuple[Box, ...]:
    try:
        found = ast.literal_eval(written) if isinstance(written, str) else written
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise InputError(f"{where} has target_instances that are no list of boxes.") from None
    return boxes_of(found, where)
