"""Reads questions about images, from our own `samples.jsonl` and from the forms in which public sets come.

- a folder or file written by `cof scenes`;
- JSON or JSONL of the LLaVA form (`conversations`), a sample for each question and answer, with the boxes of Visual-CoT
  (arXiv 2403.16999: `"image": [path, "path###[x0, y0, x1, y1]"]`) where there are any;
- JSONL of Visual-CoT's metadata (`question`, `answer`, `bboxs`);
- other JSON, JSONL, and any dataset that `datasets` loads (hub id, folder, Parquet): columns by name.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from cof_agent.data.spec import is_local
from cof_agent.errors import InputError, said
from cof_agent.geometry import Box
from cof_agent.output.files import write_atomic
from cof_agent.region_refs import check_regions
from cof_agent.trajectory import Sample, read_jsonl

COLUMNS = {
    "id": ("id", "question_id", "qid"),
    "image": ("image", "images", "image_path", "img_path"),
    "question": ("question", "query", "problem", "prompt"),
    "answer": ("answers", "answer", "label", "solution"),
    "choices": ("choices", "options"),
    "boxes": ("boxes", "bboxs", "bboxes", "bbox"),
}
"""What the columns of a set may be called, first found first taken; a mapping given by name replaces these."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def read_samples(
    spec: str | Path,
    *,
    images: str | Path | None = None,
    keep_images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    limit: int | None = None,
) -> list[Sample]:
    """The samples of `spec`, image paths made absolute or relative to the working directory.

    images: the folder that image paths are relative to, by default that of the file. keep_images: where images that a
    dataset holds itself are written, once each. columns: our names (`COLUMNS`) to the set's. split: of a dataset.

    Raises:
        InputError: if there are none, or a row lacks what a sample needs, naming the row; or if a question and its
            regions do not belong to each other.
    """
    path = Path(spec)
    ours = path / "samples.jsonl" if path.is_dir() else path
    if ours.name == "samples.jsonl" and (ours.exists() or not path.is_dir()):
        read: Iterable[Sample] = read_jsonl(ours, Sample, strict=True)
        folder = Path(images) if images else ours.parent
    else:
        _check_columns(columns or {})
        if not path.exists() and (is_local(str(spec)) or not _HUB_ID.fullmatch(str(spec))):
            raise InputError(f"there is no file or folder {spec}, and a dataset of the hub is named like owner/name.")
        rows = json_rows(path) if path.suffix in (".json", ".jsonl") else _dataset_rows(str(spec), split)
        read = _samples(rows, str(spec), columns or {}, Path(keep_images) if keep_images else None)
        folder = Path(images) if images else (path if path.is_dir() else path.parent)
    samples = [replace(sample, image=str(folder / sample.image)) for sample in islice(read, limit)]
    for sample in samples:
        check_regions(sample)
    if not samples:
        raise InputError(f"{ours if ours.exists() else spec} holds no samples.")
    return samples


def _check_columns(columns: Mapping[str, str]) -> None:
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise InputError(f"there is no column {unknown[0]!r} to map; the names are {', '.join(COLUMNS)}.")


def json_rows(path: Path) -> Iterator[Any]:
    """The rows of a JSON list, or of JSONL, whatever they are.

    Raises:
        InputError: if the file cannot be read or is neither.
    """
    try:
        text = path.read_text("utf-8")
        if text.lstrip().startswith("["):
            where = str(path)
            yield from json.loads(text)
            return
        for number, line in enumerate(text.split("\n"), 1):
            where = f"{path}, line {number},"
            if line.strip():
                yield json.loads(line)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error}.") from None
    except ValueError as error:
        raise InputError(f"{where} is neither JSON nor JSONL: {error}.") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply to be read.") from None


def load_table(spec: str, split: str) -> Any:
    """The rows of a Parquet file, a folder or a dataset of the hub, as `datasets` loads them.

    Raises:
        InputError: if there is no such set, it cannot be read, or the package datasets is missing.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(f"reading {spec} needs the package datasets: pip install 'chain-of-focus[train]'.") from None
    try:
        if Path(spec).is_file():
            return datasets.load_dataset("parquet", data_files=spec, split=split)
        return datasets.load_dataset(spec, split=split)
    except Exception as error:  # what a broken file or a missing set makes the loaders raise is not limited
        here = "" if Path(spec).exists() else ", which is no file or folder here"
        raise InputError(f"cannot load the dataset {spec}{here}: {said(error)}") from None


def _dataset_rows(spec: str, split: str) -> Iterator[Any]:
    loaded = load_table(spec, split)
    import datasets

    for name, feature in loaded.features.items():
        if isinstance(feature, datasets.Image):
            loaded = loaded.cast_column(name, datasets.Image(decode=False))  # the file's own bytes
    yield from loaded


def _samples(rows: Iterable[Any], spec: str, columns: Mapping[str, str], keep: Path | None) -> Iterator[Sample]:
    ids: set[str] = set()
    for number, row in enumerate(rows, 1):
        where = f"{spec}, row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where} is no object with named fields.")
        made = _from_conversations(row, where) if "conversations" in row else [_from_columns(row, where, columns)]
        for question, sample in enumerate(made):
            id = sample.id or f"{number:07d}"
            id = unique_id(id if len(made) == 1 else f"{id}-{question}", number, ids)
            whole = replace(sample, id=id, image=_image(row, sample.image, where, columns, keep))
            _check_text(whole, where)
            yield whole


def _check_text(sample: Sample, where: str) -> None:
    """A record is UTF-8, which has no half of a surrogate pair: an id would come back as another one."""
    for text in (sample.id, sample.image, sample.question, *sample.answers, *sample.choices):
        if _SURROGATE.search(text):
            raise InputError(f"{where} holds half a surrogate pair, which is no character: {ascii(text)[:60]}.")


_SURROGATE = re.compile("[\ud800-\udfff]")


def unique_id(id: str, number: int, taken: set[str]) -> str:
    """`id`, with the number of its row where it is taken already; it is taken from then on."""
    made = id if id not in taken else f"{id}-{number}"
    taken.add(made)
    return made


def _from_columns(row: dict[str, Any], where: str, columns: Mapping[str, str]) -> Sample:
    question, answer = _column(row, "question", columns), _column(row, "answer", columns)
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where} has no question; name its column, as in --column question=NAME.")
    choices = _choices(_column(row, "choices", columns), where)
    if isinstance(answer, int) and choices and not isinstance(answer, bool) and 0 <= answer < len(choices):
        answer = choices[answer]
    answers = answer if isinstance(answer, list) else [answer]
    return Sample(
        id=str(_column(row, "id", columns) or ""),
        image="",
        question=question.strip(),
        answers=tuple(str(one) for one in answers if one not in (None, "")),
        choices=choices,
        boxes=boxes_of(_column(row, "boxes", columns), where),
        metadata={"dataset": row["dataset"]} if isinstance(row.get("dataset"), str) else {},
    )


def _choices(found: Any, where: str) -> tuple[str, ...]:
    try:
        return tuple(str(choice) for choice in found or ())
    except TypeError:
        raise InputError(f"{where} has choices that are no list, but {str(found)[:40]!r}.") from None


def _column(row: Mapping[str, Any], name: str, columns: Mapping[str, str]) -> Any:
    names = (columns[name],) if name in columns else COLUMNS[name]
    return next((row[one] for one in names if row.get(one) is not None), None)


def boxes_of(found: Any, where: str) -> tuple[Box, ...]:
    """Boxes in source pixels from `[x0, y0, x1, y1]` or a list of such; those without an area are left out.

    Raises:
        InputError: if one is not four numbers, naming `where`.
    """
    if not found:
        return ()
    try:
        boxes = found if isinstance(found[0], list | tuple) else [found]
        made = tuple(Box(*(float(value) for value in box)) for box in boxes)
        if not all(math.isfinite(value) for box in made for value in box):
            raise ValueError
    except (TypeError, ValueError, LookupError, OverflowError):
        raise InputError(f"{where} has a box that is not four numbers [x0, y0, x1, y1] in pixels.") from None
    return tuple(box for box in made if box.width > 0 and box.height > 0)


# What Visual-CoT puts behind its questions, and where LLaVA's form says that an image stands.
_ASKS_FOR_BOX = re.compile(r"\s*Please provide the bounding box coordinate of the region.*", re.DOTALL)
_IMAGE_TAG = re.compile(r"\s*<image>\s*")
_MARKED = re.compile(r"(.*)###\s*(\[[^\]]*\])\s*", re.DOTALL)


def _from_conversations(row: dict[str, Any], where: str) -> list[Sample]:
    """A sample for each human turn with its answer; turns about boxes give the box, and no sample."""
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "value" in turn for turn in turns):
        raise InputError(f"{where} has conversations that are no list of turns with a value.")
    said = [_IMAGE_TAG.sub(" ", str(turn["value"])).strip() for turn in turns]
    boxes = _marked_boxes(row.get("image"), where)
    made, waiting = [], ""
    for question, answer in zip(said[::2], said[1::2], strict=False):
        asks_for_box = _ASKS_FOR_BOX.search(question)
        if asks_for_box:
            waiting = _ASKS_FOR_BOX.sub("", question)  # its answer comes behind the box
            continue
        text = question or waiting
        if text and answer:
            made.append(Sample(str(row.get("id") or row.get("question_id") or ""), "", text, (answer,), boxes=boxes))
    return made


def _marked_boxes(image: Any, where: str) -> tuple[Box, ...]:
    marked = [_MARKED.fullmatch(path) for path in image if isinstance(path, str)] if isinstance(image, list) else []
    try:
        return boxes_of([json.loads(found[2]) for found in marked if found], where)
    except ValueError:
        raise InputError(f"{where} has a box behind ### that is no list of numbers.") from None


def _image(row: dict[str, Any], known: str, where: str, columns: Mapping[str, str], keep: Path | None) -> str:
    """The path of a row's image; one that the row holds itself is written to `keep` first."""
    found = known or _column(row, "image", columns)
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict):
        if found.get("bytes"):
            return kept_image(found["bytes"], where, keep)
        found = found.get("path")
    if not isinstance(found, str) or not found:
        raise InputError(f"{where} has no image; name its column, as in --column image=NAME.")
    if re.match(r"[a-z]+://", found):
        raise InputError(f"{where} names an image by URL, {found[:80]}; nothing is downloaded, save it to disk first.")
    marked = _MARKED.fullmatch(found)
    return marked[1] if marked else found


def kept_image(content: bytes, where: str, keep: Path | None) -> str:
    """The path of an image that a row holds itself, written to the folder `keep` under a name made of its content.

    Raises:
        InputError: if there is no folder, or it is no image, naming `where`.
    """
    from PIL import Image, UnidentifiedImageError

    if keep is None:
        raise InputError(f"{where} holds an image itself; say where it may be written.")
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = (image.format or "png").lower()
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{where} holds an image that cannot be read.") from None
    path = keep / f"{hashlib.sha256(content).hexdigest()[:24]}.{re.sub('[^a-z0-9]', '', kind)}"
    if not path.exists():
        write_atomic(path, content)
    return str(path.absolute())
