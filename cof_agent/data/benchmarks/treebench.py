"""TreeBench: 405 questions about dense scenes, with the boxes of the objects they are about (arXiv 2507.07999).

Layout, as `inference_treebench.py` of https://github.com/Haochen-Wang409/TreeVGR and VLMEvalKit read
https://huggingface.co/datasets/HaochenWang/TreeBench: `TreeBench.tsv` with index, image (base64), question, the options as
lines "A. ..." in multi-choice options or as columns A, B, ..., answer (a letter), category ("Perception/OCR", ...; the numbers
of each are those of the README there), l2-category and target_instances (a list of [x0, y0, x1, y1] in pixels).

In the category OCR the options stand in the image; evaluations with VLMEvalKit do not show them as text, as is done here (the
script above does show them): such a sample has no choices, and its letter, its text and both together are accepted. In at
least one row, says a public evaluation that repairs it, the mark of option B stands within the line of A.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.benchmarks.layout import LETTERS, Layout, Table
from cof_agent.data.rows import Row
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

_FILES = ("TreeBench.tsv", "*.parquet")


def _layout(choices: str, *columns: str) -> Layout:
    read = Table(choices=choices, category=("category",), subcategory="l2-category", boxes="target_instances")

    def samples(copy: Copy, row: Row) -> Iterable[Sample]:
        for sample in read(copy, row):
            reading = sample.metadata["category"].endswith("OCR")
            yield _read_from_image(sample, text(row, "answer")) if reading else sample

    return Layout(_FILES, (*read.columns, *columns), samples)


def _read_from_image(sample: Sample, answer: str) -> Sample:
    letter = answer.strip("(). ").upper()
    known = (letter, *(form for text in sample.answers for form in (text, f"{letter}. {text}")))
    metadata = {key: value for key, value in sample.metadata.items() if key != "unscored"} | {"scoring": "exact"}
    return replace(sample, choices=(), answers=known, metadata=metadata)


LAYOUTS = (_layout("multi-choice options", "multi-choice options"), _layout(LETTERS, "A", "B"))
