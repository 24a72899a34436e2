"""XLRS-Bench-lite: questions about aerial photographs of 8,000 to 10,000 pixels a side (arXiv 2503.23771).

Layouts: https://huggingface.co/datasets/initiacms/XLRS-Bench-lite as lmms-eval (`tasks/xlrs`) reads it: Parquet with index,
question, image (a list of one), multi-choice options (a list of "(A) ..."), answer (letters), category
("Counting/Overall counting"), l2-category. And XLRS-Bench-lite_VLM as VLMEvalKit reads it: JSONL of the same columns, the
image in base64, the options as one text.

In one task several options may be right. There the question says so, in our words; the authors' prompt does it, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import Layout, Table
from cof_agent.data.rows import Row
from cof_agent.trajectory import Sample

HUB = {"initiacms/XLRS-Bench-lite": ("data/train-*.parquet",)}
SEVERAL_RIGHT = "Several options may be right."

_TASK = "Overall Land use classification"
_OPTIONS = "multi-choice options"
_TABLE = Table(choices=_OPTIONS, category=("category",), subcategory="l2-category", part_of=("category",))


def _samples(copy: Copy, row: Row) -> Iterable[Sample]:
    for sample in _TABLE(copy, row):
        several = sample.metadata["category"].endswith(_TASK)
        yield replace(sample, question=f"{sample.question} {SEVERAL_RIGHT}") if several else sample


LAYOUTS = tuple(
    Layout((name,), _TABLE.columns, _samples, _TABLE.known_by) for name in ("train-*.parquet", "XLRS-Bench-lite*.jsonl")
)
