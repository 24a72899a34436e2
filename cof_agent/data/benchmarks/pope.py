"""POPE: 9,000 yes-or-no questions whether an object is in a COCO image, three samplings of 3,000 (arXiv 2305.10355).

Layout, as https://huggingface.co/datasets/lmms-lab/POPE lists it and lmms-eval reads it: `data/test-*.parquet` with id,
question_id (counted anew in each category), question, answer (yes or no), image_source, image (the file's bytes) and category
(adversarial, popular, random). `Full/` there has the same rows again, a split for each category, and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {"lmms-lab/POPE": ("data/test-*.parquet",)}
PARTS = {"adversarial": 3000, "popular": 3000, "random": 3000}


def read(copy: Copy) -> Iterator[Sample]:
    for where, row in copy.rows(
        copy.files("test-*.parquet"), ("question_id", "question", "answer", "category", "image")
    ):
        category, answer = text(row, "category"), text(row, "answer").lower()
        if answer not in ("yes", "no"):
            raise InputError(f"{where} has the answer {answer[:40]!r} to a question of yes or no.")
        yield Sample(
            id=f"{category}-{text(row, 'question_id')}",
            image=copy.held(row["image"], where),
            question=text(row, "question"),
            answers=(answer,),
            metadata={"category": category},
        )
