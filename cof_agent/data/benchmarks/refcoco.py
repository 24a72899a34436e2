"""RefCOCO, RefCOCO+ and RefCOCOg: name an object, find its box (Yu et al., arXiv 1608.00272; Mao et al., arXiv 1511.02283).

Layouts: lmms-lab's Parquet, as lmms-eval (`tasks/refcoco/utils_rec.py`) reads it: question_id, image, answer (a list of
expressions, each of which is a question), bbox ([x, y, width, height] in pixels), one file for each split. And the JSON of VLM-R1
(https://github.com/om-ai-lab/VLM-R1, `src/eval/test_rec_r1.py`): image (a path), normal_caption (one expression), solution
([x0, y0, x1, y1] in pixels). An answer is right from an overlap (IoU) of 0.5 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cof_agent.data.benchmarks.copy import Copy, text
from cof_agent.data.benchmarks.layout import Layout
from cof_agent.data.boxes import Form, Order, in_pixels, written
from cof_agent.data.forms import LOCATE
from cof_agent.data.rows import Row
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample

TESTS = ("testA", "testB")


def _described(copy: Copy, row: Row) -> Iterable[Sample]:
    """A question for each expression of an object."""
    said = row.values["answer"]
    expressions = said if isinstance(said, list) else [said]
    split = row.file.name.partition("-")[0]
    for number, expression in enumerate(expressions):
        id = f"{text(row, 'question_id')}-{number}"
        yield from _find(copy, row, id, split, str(expression), box=_box(row, "bbox", "xywh"))


def _captioned(copy: Copy, row: Row) -> Iterable[Sample]:
    split = row.file.stem.rpartition("_")[2]
    yield from _find(copy, row, str(row.number), split, text(row, "normal_caption"), box=_box(row, "solution", "xyxy"))


def _find(copy: Copy, row: Row, id: str, split: str, expression: str, *, box: Box) -> Iterator[Sample]:
    yield Sample(
        id=f"{split}-{id}",
        image=copy.pictures(row.values["image"], row)[0],
        question=f"{LOCATE}{expression.strip()}",
        answers=(f"[{', '.join(f'{round(value, 2):g}' for value in box)}]",),
        boxes=(box,),
        metadata={"category": split},
    )


def _box(row: Row, column: str, order: Order) -> Box:
    try:
        (found,) = written(row.values[column])
        box = in_pixels(found, Form(order=order))
    except (Unusable, ValueError):
        box = None
    if box is None:
        raise InputError(f"{row} has a {column} that is no box: {str(row.values[column])[:80]}.")
    return box


def layouts(name: str, splits: tuple[str, ...]) -> tuple[Layout, ...]:
    """name: as VLM-R1's files have it, such as refcocop."""
    every = f"{{{','.join(splits)}}}"
    return (
        Layout((f"{every}-*.parquet",), ("question_id", "image", "answer", "bbox"), _described),
        Layout((f"{name}_{every}.json",), ("image", "normal_caption", "solution"), _captioned),
    )


def hub(repository: str, splits: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The files of the hub's copy."""
    return {repository: tuple(f"data/{split}-*.parquet" for split in splits)}
