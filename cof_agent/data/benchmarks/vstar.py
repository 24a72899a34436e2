"""V*: 115 questions about attributes of small objects and 76 about their relative position (arXiv 2312.14135).

Layouts, as https://huggingface.co/datasets/craigwu/vstar_bench lists them and public loaders read them:

- `test_questions.jsonl` with image (`direct_attributes/sa_4690.jpg`), text (the question, options as lines "(A) ...", and an
  instruction), category, label (a letter), question_id. lmms-lab/vstar-bench has the same columns in Parquet, images inside.
- Beside each image a JSON of the same name with target_object, bbox (a list of [x, y, width, height] in pixels), question and
  options, which are sentences. The right one is the first, as the authors' `vstar_bench_eval.py` and DeepEyes' `eval_vstar.py`
  have it. With the first layout, only the boxes are taken.
- Converted copies: any form of rows that the general reader knows, such as messages, also in a JSON of `train` and `test`.

`GPT4V-hard` and `OCR` in the repository belong to other tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cof_agent.data.benchmarks import converted
from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import INSIDE, Layout, Table, table, vlmevalkit
from cof_agent.data.boxes import Form, in_pixels, written
from cof_agent.data.choices import listed
from cof_agent.data.images import SUFFIXES
from cof_agent.data.questions import without_marks
from cof_agent.data.rows import Row
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

HUB = {"craigwu/vstar_bench": ("test_questions.jsonl", "direct_attributes/*", "relative_position/*")}
PARTS = {"direct_attributes": 115, "relative_position": 76}

_COLUMNS = Table(id="question_id", question="text", answer="label", choices=INSIDE, category=("category",))


def _with_boxes(copy: Copy, row: Row) -> Iterable[Sample]:
    for sample in _COLUMNS(copy, row):
        beside = Path(sample.image).with_suffix(".json")
        yield replace(sample, boxes=_boxes(beside)) if beside.is_file() else sample


def _boxes(file: Path) -> tuple[Box, ...]:
    """The boxes of the objects that the question is about."""
    try:
        found = [in_pixels(one, Form(order="xywh")) for one in written(json.loads(file.read_text("utf-8"))["bbox"])]
    except (OSError, TypeError, ValueError, KeyError, Unusable):
        raise InputError(f"{file} has a bbox that is no list of [x, y, width, height] in pixels.") from None
    return tuple(box for box in found if box is not None)


def _beside_image(copy: Copy, row: Row) -> Iterable[Sample]:
    """The question of a JSON beside its image."""
    if row.file.parent.name not in PARTS:
        return
    image = next((path for suffix in SUFFIXES if (path := row.file.with_suffix(suffix)).is_file()), None)
    choices = listed(row.values["options"])
    yield Sample(
        id=row.file.stem,
        image=str(image or row.file.with_suffix(".jpg")),
        question=without_marks(row.values["question"]),
        answers=(next(iter(choices.values())),),
        choices=tuple(choices.values()),
        boxes=_boxes(row.file),
        metadata={"category": row.file.parent.name},
    )


def _converted(copy: Copy, row: Row) -> Iterable[Sample]:
    """The part is that of the image's folder, if a row does not name it."""
    for sample in converted.read(copy, row):
        part = next((part for part in PARTS if f"/{part}/" in sample.image), "unknown")
        yield replace(sample, metadata={"category": part} | sample.metadata)


LAYOUTS = (
    Layout(("test_questions.jsonl", "*.jsonl"), _COLUMNS.columns, _with_boxes),
    table("test-*.parquet", id="question_id", question="text", answer="label", choices=INSIDE, category=("category",)),
    vlmevalkit("VStarBench.tsv", category=("category",)),
    Layout(
        ("{direct_attributes,relative_position}/*.json",),
        ("target_object", "bbox", "question", "options"),
        _beside_image,
    ),
    Layout(("*.json", "*.jsonl"), (), _converted),
)
