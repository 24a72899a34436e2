"""HR-Bench 4K and 8K: 200 questions each, every one asked four times with its options rotated (arXiv 2408.15556).

Layout, as https://huggingface.co/datasets/DreamMr/HR-Bench lists it and lmms-eval, VLMEvalKit and DeepEyes read it:
`hr_bench_4k.parquet` and `hr_bench_8k.parquet` (the same as TSV, several times as large) with index, question, A, B, C, D,
answer (a letter), category (single: fine-grained single-instance perception, cross: cross-instance), cycle_category (which
of the four rotations) and image (base64). The four cycles stay as published; lmms-eval's score is the mean of the four
cycles' accuracies, which with 200 questions in each is the accuracy over all 800. That single and cross have 400 rows each
follows from the 100 questions of each in the README of https://github.com/DreamMr/HR-Bench.
"""

from __future__ import annotations

from collections.abc import Iterator

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.choices import letter_in, multiple_choice
from cof_agent.trajectory import Sample

REPOSITORY = "DreamMr/HR-Bench"
PARTS = {"single": 400, "cross": 400}


def read(copy: Copy, size: str) -> Iterator[Sample]:
    """size: "4k" or "8k"."""
    files = copy.files(f"hr_bench_{size}.parquet", f"hr_bench_{size}.tsv", f"HRBench{size.upper()}.tsv")
    needed = ("index", "question", "answer", "category", "cycle_category", "image")
    for where, row in copy.rows(files[:1], needed):
        yield multiple_choice(
            text(row, "index"),
            copy.held(row["image"], where),
            text(row, "question"),
            {letter: text(row, letter) for letter in "ABCD"},
            letter_in(row["answer"], where),
            category=text(row, "category"),
            cycle=text(row, "cycle_category"),
        )
