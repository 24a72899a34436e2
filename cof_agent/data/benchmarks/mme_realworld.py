"""MME-RealWorld in English: 23,609 questions about high-resolution photographs, and its Lite part of 1,919 (arXiv 2408.13257).

Two layouts. The Parquet that lmms-eval reads (yifanzhang114/MME-RealWorld-Lmms-eval and -lite-lmms-eval on the hub): bytes
(the image, base64), index, question, multi-choice options (a list of "(A) ..."), answer (a letter), category
("Perception/Monitoring"), l2-category. And the one of yifanzhang114/MME-RealWorld and MME-RealWorld-Lite, as
https://github.com/yfzhang114/MME-RealWorld shows it: `MME_RealWorld.json`, or `MME-RealWorld-Lite.json` out of data.zip,
with Question_id, Image (a path below the unpacked archives, or below `imgs/` beside the JSON of Lite), Text, Answer choices,
Ground truth, Task, Subtask, Category. The hub is asked for the first, since the second comes as split archives.

The last option, E, is that the others are wrong or that the image does not show it. The number of questions is that of a
public evaluation that checks it (the paper has 29,429 with the Chinese part).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.choices import letter_in, listed, multiple_choice, options_in
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

HUB = {"yifanzhang114/MME-RealWorld-Lmms-eval": ("data/*.parquet",)}
HUB_LITE = {"yifanzhang114/MME-RealWorld-lite-lmms-eval": ("data/*.parquet",)}
SIZE, SIZE_LITE = 23_609, 1_919


def read(copy: Copy) -> Iterator[Sample]:
    return _read(copy, copy.files("MME_RealWorld.json", "train-*.parquet"))


def read_lite(copy: Copy) -> Iterator[Sample]:
    return _read(copy, copy.files("MME-RealWorld-Lite.json", "MME_RealWorld_Lite.json", "train-*.parquet"))


def _read(copy: Copy, files: Sequence[Path]) -> Iterator[Sample]:
    return _annotations(copy, files[:1]) if files[0].suffix == ".json" else _tables(copy, files)


def _annotations(copy: Copy, files: Sequence[Path]) -> Iterator[Sample]:
    beside = files[0].parent
    folder = beside / "imgs" if (beside / "imgs").is_dir() else beside
    needed = ("Question_id", "Image", "Text", "Answer choices", "Ground truth", "Task", "Subtask", "Category")
    for where, row in copy.rows(files, needed):
        yield multiple_choice(
            text(row, "Question_id"),
            copy.named(folder, row["Image"], where),
            text(row, "Text"),
            _options(row["Answer choices"], where),
            letter_in(row["Ground truth"], where),
            category=f"{text(row, 'Task')}/{text(row, 'Subtask')}",
            subcategory=text(row, "Category"),
        )


def _tables(copy: Copy, files: Sequence[Path]) -> Iterator[Sample]:
    needed = ("index", "bytes", "question", "multi-choice options", "answer", "category", "l2-category")
    for where, row in copy.rows(files, needed):
        yield multiple_choice(
            text(row, "index"),
            copy.held(row["bytes"], where),
            text(row, "question"),
            _options(row["multi-choice options"], where),
            letter_in(row["answer"], where),
            category=text(row, "category"),
            subcategory=text(row, "l2-category"),
        )


def _options(found: object, where: str) -> dict[str, str]:
    options = listed(found) if isinstance(found, list | tuple) else options_in(str(found))[1]
    if not options:
        raise InputError(f"{where} has no options marked (A), (B) and so on.")
    return options
