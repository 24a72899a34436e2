"""CharXiv's reasoning questions: 1,000 about charts of papers, one each (arXiv 2406.18521).

Layout, as lmms-eval (`tasks/charxiv`) reads https://huggingface.co/datasets/princeton-nlp/CharXiv: `val.parquet` with image,
figure_path, reasoning_q, reasoning_q_source (1: a text of the chart, 2: any text, 3: a number of the chart, 4: any number) and
reasoning_a. The paper tells the model how many decimal places a number of kind 4 has; so does the question here. The descriptive
questions are templates that the file has by number only, so they are not asked.
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
_TABLE = Table(id="figure_path", question="reasoning_q", answer="reasoning_a")


def _samples(copy: Copy, row: Row) -> Iterable[Sample]:
    kind = text(row, "reasoning_q_source")
    for sample in _TABLE(copy, row):
        asked = f"{sample.question} {places(sample.answers[0])}" if kind == "4" else sample.question
        yield replace(sample, question=asked, metadata={"category": _KINDS.get(kind, kind)})


def places(number: str | int) -> str:
    """Tells how many decimal places an answer has. number: the answer itself, or the number of places."""
    count = number if isinstance(number, int) else len(number.partition(".")[2].rstrip("%"))
    return f"(Give {count} decimal place{'' if count == 1 else 's'}.)" if count else "(Give a whole number.)"


LAYOUTS = (Layout(("val.parquet", "val-*.parquet"), (*_TABLE.columns, "reasoning_q_source"), _samples),)
