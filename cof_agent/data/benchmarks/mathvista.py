"""MathVista, testmini: 1,000 questions about figures, charts and photographs that take arithmetic (arXiv 2310.02255).

Layout, as lmms-eval (`tasks/mathvista`) reads https://huggingface.co/datasets/AI4Math/MathVista: `data/testmini-*.parquet` with
pid, question, decoded_image, image (a path that is not there), choices (a list or null), unit, precision (decimal places),
answer (a text, of choices the right one's), question_type, answer_type, metadata with the task. VLMEvalKit's TSV has the columns
index, image, question (behind a hint, and with its choices), choices, answer, and task. The authors' `data/testmini.json` has an
object for each pid, with the path of its image.

The paper has a language model extract the answer, and compares it exactly, numbers at the question's precision. So the question
tells the unit and the decimal places here, in our words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.charxiv import places
from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.benchmarks.layout import Layout, Table
from cof_agent.data.nested import at_path, is_missing
from cof_agent.data.rows import Row
from cof_agent.trajectory import Sample

HUB = {"AI4Math/MathVista": ("data/testmini-*.parquet",)}
SIZE = 1_000


def _layout(pattern: str, **columns: str | bool) -> Layout:
    read = Table(choices="choices", by_text=True, **columns)  # type: ignore[arg-type]

    def samples(copy: Copy, row: Row) -> Iterable[Sample]:
        for sample in read(copy, row):
            task = str(at_path(row.values, "metadata.task") or at_path(row.values, "task") or "unknown")
            told = {"category": task} | ({} if sample.choices else {"scoring": "rounded"})
            asked = sample.question if sample.choices else f"{sample.question} {_form(row)}".strip()
            yield replace(sample, question=asked, metadata=sample.metadata | told)

    return Layout((pattern,), (*read.columns, "answer_type"), samples)


def _form(row: Row) -> str:
    """What form an open answer has, in words."""
    kind, unit = text(row, "answer_type"), text(row, "unit")
    precision = at_path(row.values, "precision")
    digits = 2 if is_missing(precision) else round(float(precision))
    form = {"integer": places(0), "float": places(digits), "list": "(Give a list.)"}
    return " ".join(part for part in (f"(Unit: {unit}.)" if unit else "", form.get(kind, "")) if part)


LAYOUTS = (
    _layout("testmini-*.parquet", id="pid", image="decoded_image"),
    _layout("MathVista_MINI.tsv", lists_choices=True),
    _layout("testmini.json", id="pid", image="image"),
)
