"""CharXiv's reasoning questions: 1,000 about charts of papers, one each (arXiv 2406.18521).

Layout, as lmms-eval (`tasks/charxiv`) reads https://huggingface.co/datasets/princeton-nlp/CharXiv: `val.parquet` with image,
figure_path, reasoning_q, reasoning_q_source (1: a text of the chart, 2: any text, 3: a number of the chart, 4: any number) and
reasoning_a. And that of the authors (https://github.com/princeton-nlp/CharXiv): `data/reasoning_val.json` has an object of
figure_id, query, answer and inst_category for each question, and its image is `images/<figure_id>.jpg`.

The paper tells the model how many decimal places a number of kind 4 has; so does the question here. The descriptive questions are
templates that the files have by number only, so they are not asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.benchmarks.layout import Layout, Table
from cof_agent.data.rows import Row
from cof_agent.trajectory import Sample

HUB = {"princeton-nlp/CharXiv": ("val.parquet",)}
SIZE = 1_000

_KINDS = {"1": "text in chart", "2": "text in general", "3": "number in chart", "4": "number in general"}


def _layout(files: tuple[str, ...], kind_column: str, **columns: str) -> Layout:
    read = Table(**columns)  # type: ignore[arg-type]

    def samples(copy: Copy, row: Row) -> Iterable[Sample]:
        kind = text(row, kind_column)
        for sample in read(copy, row):
            asked = f"{sample.question} {places(sample.answers[0])}" if kind == "4" else sample.question
            yield replace(sample, question=asked, metadata={"category": _KINDS.get(kind, kind)})

    return Layout(files, (*read.columns, kind_column), samples)


def places(number: str | int) -> str:
    """Tells how many decimal places an answer has. number: the answer itself, or the number of places."""
    count = number if isinstance(number, int) else len(number.partition(".")[2].rstrip("%"))
    return f"(Give {count} decimal place{'' if count == 1 else 's'}.)" if count else "(Give a whole number.)"


LAYOUTS = (
    _layout(
        ("val.parquet", "val-*.parquet"),
        "reasoning_q_source",
        id="figure_path",
        question="reasoning_q",
        answer="reasoning_a",
    ),
    _layout(
        ("reasoning_val.json",),
        "inst_category",
        id="figure_id",
        image="figure_id",
        suffix=".jpg",
        question="query",
        answer="answer",
    ),
)
