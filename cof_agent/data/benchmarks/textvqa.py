"""TextVQA, validation: 5,000 questions about text in photographs, each with ten people's answers (arXiv 1904.08920).

Layout, as the card of lmms-lab/textvqa (https://huggingface.co/datasets/lmms-lab/textvqa) gives it:
`data/validation-*.parquet` with image_id, question_id, question, answers (a list of ten, with repetitions), image (the file's
bytes), image_classes, ocr_tokens and others. A sample's answers are the ten as they are: VQA accuracy counts how many people
gave an answer. There are no categories.
"""

from __future__ import annotations

from collections.abc import Iterator

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {"lmms-lab/textvqa": ("data/validation-*.parquet",)}
SIZE = 5_000
PEOPLE = 10


def read(copy: Copy) -> Iterator[Sample]:
    for where, row in copy.rows(copy.files("*validation-*.parquet"), ("question_id", "question", "answers", "image")):
        answers = row["answers"]
        if not isinstance(answers, list) or len(answers) != PEOPLE:
            raise InputError(f"{where} has not the {PEOPLE} answers that TextVQA's validation split has.")
        yield Sample(
            id=text(row, "question_id"),
            image=copy.held(row["image"], where),
            question=text(row, "question"),
            answers=tuple(str(answer) for answer in answers),
            metadata={},
        )
