"""POPE: whether an object is in the image, 3,000 questions in each of three categories (arXiv 2305.10355).

Layouts: `test-*.parquet` of https://huggingface.co/datasets/lmms-lab/POPE, or a file for each category, with question_id,
question, answer, image and category; and VLMEvalKit's TSV, in which a question that belongs to several categories stands once,
with all their names in one text (`vlmeval/dataset/utils/yorn.py` counts it in each). The authors' three files, such as
`coco_pope_random.json`, have question_id, image (the file's name), text and label, a question a line; the name of the file is the
category.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import Layout, Table, table
from cof_agent.data.rows import Row
from cof_agent.trajectory import Sample

HUB = {"lmms-lab/POPE": ("data/test-*.parquet",)}
PARTS = dict.fromkeys(("adversarial", "popular", "random"), 3_000)
_LINES = Table(id="question_id", question="text", answer="label")
_TSV = Table(category=("category",))


def _samples(copy: Copy, row: Row) -> Iterable[Sample]:
    for sample in _TSV(copy, row):
        for category in str(sample.metadata["category"]).split(","):
            yield replace(sample, metadata=sample.metadata | {"category": category.strip()})


def _of_authors(copy: Copy, row: Row) -> Iterable[Sample]:
    category = row.file.stem.rpartition("_")[2]
    for sample in _LINES(copy, row):
        yield replace(sample, id=f"{sample.id}-{category}", metadata=sample.metadata | {"category": category})


LAYOUTS = (
    table("test-*.parquet", "{adversarial,popular,random}-*.parquet", id="question_id", category=("category",)),
    Layout(("POPE.tsv",), _TSV.columns, _samples),
    Layout(("coco_pope_{adversarial,popular,random}.json",), _LINES.columns, _of_authors),
)
