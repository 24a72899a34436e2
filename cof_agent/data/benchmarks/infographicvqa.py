"""InfographicVQA, validation: 2,801 questions about infographics, scored by ANLS (arXiv 2104.12756).

Layout, as the card of https://huggingface.co/datasets/lmms-lab/DocVQA gives it: `InfographicVQA/validation-*.parquet` with
questionId, question, answers (a list of accepted texts), answer_type (a list), image (the file's bytes), image_url,
operation/reasoning (a list), ocr, data_split. The answers of the test split are not public.
"""

from __future__ import annotations

from collections.abc import Iterator

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {"lmms-lab/DocVQA": ("InfographicVQA/validation-*.parquet",)}
SIZE = 2_801


def read(copy: Copy) -> Iterator[Sample]:
    files = copy.files("InfographicVQA/validation-*.parquet", "validation-*.parquet")
    for where, row in copy.rows(files, ("questionId", "question", "answers", "answer_type", "image")):
        if not isinstance(row["answers"], list) or not row["answers"]:
            raise InputError(f"{where} has no answers; only the validation split has them.")
        yield Sample(
            id=text(row, "questionId"),
            image=copy.held(row["image"], where),
            question=text(row, "question"),
            answers=tuple(str(answer) for answer in row["answers"]),
            metadata={
                "category": _several(row["answer_type"]),
                "subcategory": _several(row.get("operation/reasoning")),
            },
        )


def _several(kinds: object) -> str:
    """A question may be of several kinds, and of none."""
    return ", ".join(sorted(str(kind) for kind in kinds)) if isinstance(kinds, list) and kinds else "none"
