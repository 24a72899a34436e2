"""V*: 115 questions about attributes of small objects and 76 about their relative position (arXiv 2312.14135).

Layout, as https://huggingface.co/datasets/craigwu/vstar_bench lists it and public loaders read it:
`test_questions.jsonl` with image (`direct_attributes/sa_4690.jpg`), text, category, label (a letter), question_id; text is
"What is the material of the glove?\\n(A) rubber\\n(B) cotton\\n(C) kevlar\\n(D) leather\\nAnswer with the option's letter from
the given choices directly." (two options where positions are asked for). Beside each image lies a JSON of the same name
with target_object, bbox (a list of [x, y, width, height] in pixels), question and options, of which only the boxes are
taken: its options are sentences, and the right one is always the first, as the authors' own `vstar_bench_eval.py` of
https://github.com/penghao-wu/vstar has it. `GPT4V-hard` and `OCR` in the same repository belong to other tests.

The Parquet of https://huggingface.co/datasets/lmms-lab/vstar-bench has the same columns, the images inside and no boxes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.boxes import boxes_of
from cof_agent.data.choices import letter_in, multiple_choice, options_in
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

HUB = {"craigwu/vstar_bench": ("test_questions.jsonl", "direct_attributes/*", "relative_position/*")}
PARTS = {"direct_attributes": 115, "relative_position": 76}

_INSTRUCTION = re.compile(r"\s*Answer with the option's letter.*\Z", re.DOTALL)


def read(copy: Copy) -> Iterator[Sample]:
    files = copy.files("test_questions.jsonl", "test-*.parquet")
    for where, row in copy.rows(files, ("image", "text", "category", "label", "question_id")):
        question, options = options_in(_INSTRUCTION.sub("", text(row, "text")))
        named = isinstance(row["image"], str)
        image = copy.named(files[0].parent, row["image"], where) if named else copy.held(row["image"], where)
        sample = multiple_choice(
            text(row, "question_id"),
            image,
            question,
            options,
            letter_in(row["label"], where),
            category=text(row, "category"),
        )
        yield replace(sample, boxes=_boxes(Path(image).with_suffix(".json"))) if named else sample


def _boxes(beside: Path) -> tuple[Box, ...]:
    """The boxes of the objects that the question is about, none where the file beside the image is missing."""
    try:
        found = json.loads(beside.read_text("utf-8"))["bbox"]
        corners = [[x, y, x + width, y + height] for x, y, width, height in found]
    except FileNotFoundError:
        return ()
    except (OSError, TypeError, ValueError, KeyError):
        raise InputError(f"{beside} has a bbox that is no list of [x, y, width, height] in pixels.") from None
    return boxes_of(corners, str(beside))
