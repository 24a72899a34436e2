"""The rows of a JSON file whose top level is an object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from cof_agent.data.columns import asks, is_named
from cof_agent.data.conversations import is_conversation
from cof_agent.data.images import SUFFIXES, holds_image, images_in
from cof_agent.data.truths import QUESTION_ID, joined, truths_of
from cof_agent.errors import InputError

_TABLES_BESIDE = (
    "images",
    "categories",
    "licenses",
    "features",
)  # lists that rows refer to, and no rows, as in COCO's form


def rows_in(top: Any, path: Path) -> Iterator[Any]:
    """The rows of a JSON file whose top level is an object: a list of rows in it (with the images that COCO's form lists
    beside it), a row for each key, a list for each column, or one row.

    Raises:
        InputError: if there are several lists of rows, naming `path`.
    """
    if not isinstance(top, dict) or _is_row(top):
        yield top
        return
    lists = {name: value for name, value in top.items() if _is_list_of_rows(value)} | _truths_beside(path)
    if len(lists) == 1 and holds_image(top) and not any(map(holds_image, next(iter(lists.values())))):
        yield top  # a row with several questions about its image
        return
    rows = {name: value for name, value in lists.items() if name not in _TABLES_BESIDE}
    rows = _with_truths(rows) or {name: value for name, value in lists.items() if asks(value[0])} or rows or lists
    if len(rows) > 1 and all(map(_is_image_name, top)):
        yield from ({"image": image} | row for image, inside in rows.items() for row in inside)
        return
    if len(rows) > 1:
        raise InputError(
            f"{path} holds several lists of rows ({', '.join(rows)}); write the one that is meant to a file."
        )
    if rows:
        (found,) = rows.values()
        yield from _with_images(found, lists.get("images", []))
    elif len(top) > 1 and all(isinstance(value, dict) for value in top.values()):
        yield from _rows_by_key(top)
    elif len(top) > 1 and _is_columns(top):
        yield from (dict(zip(top, values, strict=True)) for values in zip(*top.values(), strict=True))
    else:
        yield top


def _with_truths(lists: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The rows of VQA's form: a list of questions and a list of their answers, each with the same ids; none for another form."""
    if len(lists) != 2 or not all(QUESTION_ID in rows[0] for rows in lists.values()):
        return {}
    questions, truths = sorted(lists.values(), key=lambda rows: not asks(rows[0]))
    return {"questions": joined(questions, truths)}


def _truths_beside(path: Path) -> dict[str, list[Any]]:
    """The list of answers that lies in a file of its own, under a name of its own; none where there is no such file.

    Raises:
        InputError: if that file cannot be read.
    """
    beside = truths_of(path)
    if beside is None:
        return {}
    try:
        top = json.loads(beside.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {beside}, the answers to {path}: {error}.") from None
    lists = [value for value in top.values() if _is_list_of_rows(value)] if isinstance(top, dict) else [top]
    if len(lists) != 1 or not _is_list_of_rows(lists[0]):
        raise InputError(f"{beside}, the answers to {path}, does not hold one list of rows.")
    return {"": lists[0]}


def _is_row(top: dict[str, Any]) -> bool:
    return any(
        is_conversation(value) or (isinstance(value, str) and is_named(name, "question")) for name, value in top.items()
    )


def _is_list_of_rows(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and len(first) > 1


def _is_columns(top: dict[str, Any]) -> bool:
    return all(isinstance(value, list) for value in top.values()) and len({len(v) for v in top.values()}) == 1


def _rows_by_key(top: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each key, or, as pandas writes tables, for each key of the columns' objects."""
    inner = [set(value) for value in top.values()]
    if all(keys == inner[0] for keys in inner) and all(key.isdecimal() for key in inner[0]):
        for key in next(iter(top.values())):
            yield {column: values[key] for column, values in top.items()}
        return
    by_image = all(map(_is_image_name, top))
    for key, row in top.items():
        named = {"image": key} if by_image and not images_in(row) else {}
        yield {"id": key} | named | row


def _is_image_name(key: str) -> bool:
    return PurePath(key).suffix.lower() in SUFFIXES


def _with_images(rows: list[Any], images: list[Any]) -> Iterator[Any]:
    names = {
        image["id"]: image["file_name"]
        for image in images
        if isinstance(image, dict) and "id" in image and "file_name" in image
    }
    for row in rows:
        known = names.get(row.get("image_id")) if isinstance(row, dict) else None
        yield row if known is None else {"image": known} | row
