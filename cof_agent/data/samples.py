"""Samples of any set: `read` for a table of what is there, `read_samples` for a command that plays them.

A row goes through `forms` (what it asks), then `questions`, `choices`, `answers` and `boxes` (what that means). What a set means
as a whole, such as what the numbers of its boxes are, is decided over all its rows before any sample is made.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cof_agent.data import own
from cof_agent.data.boxes import form_named
from cof_agent.data.columns import Columns
from cof_agent.data.containers import Container, find
from cof_agent.data.fetch import Fetcher
from cof_agent.data.folders import archives
from cof_agent.data.image_files import ImageFiles
from cof_agent.data.images import references
from cof_agent.data.items import gathered
from cof_agent.data.rows import Row
from cof_agent.data.understanding import understand
from cof_agent.data.unusable import HINTS, IMAGE_MISSING, SEVERAL_IMAGES, Tally, Unusable, write_left_out
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample

NO_BOXES = "none"
"""What `--boxes` says for boxes that are to be passed over."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read from the set of this name."""

    name: str
    samples: list[Sample]
    tally: Tally


def read_samples(
    spec: str | Path,
    *,
    images: str | Path | None = None,
    keep_images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    download: bool = False,
    strict: bool = False,
    boxes: str | None = None,
    one_image: bool = False,
    left_out: str | Path | None = None,
) -> list[Sample]:
    """The samples of `spec`, as `read` makes them; a warning says how many rows were left out, and why.

    left_out: where a line is written for each of these rows, if there are any.

    Raises:
        InputError: as `read`.
    """
    found = read(
        spec,
        images=images,
        keep_images=keep_images,
        columns=columns,
        split=split,
        limit=limit,
        download=download,
        strict=strict,
        boxes=boxes,
        one_image=one_image,
    )
    if found.tally.left_out:
        if left_out is not None:
            write_left_out(Path(left_out), found.tally.left_out)
        _log.warning("%s%s", told(found), f", listed in {left_out}" if left_out is not None else "")
    for note in found.tally.notes:
        _log.warning("%s: %s", found.name, note)
    return found.samples


def told(found: Reading) -> str:
    """How many rows were left out, by reason, in one sentence; a row may hold several questions."""
    reasons = "; ".join(f"{count} {reason}" for reason, count in found.tally.reasons.items())
    lost = found.tally.left_out
    rows = len({(one.file, one.row) for one in lost})
    what = f"{rows} of" if rows == len(lost) else f"{len(lost)} questions in {rows} of"
    return f"{found.name}: {what} {found.tally.rows} rows are left out ({reasons})"


def read(
    spec: str | Path,
    *,
    images: str | Path | None = None,
    keep_images: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    download: bool = False,
    strict: bool = False,
    boxes: str | None = None,
    one_image: bool = False,
    write: bool = True,
) -> Reading:
    """The samples of a file, a folder or a set of the hub, in whatever form they are.

    images: the folder that image paths are relative to, by default that of the file and those around it. keep_images: the
    folder to which images are written that rows hold themselves or, with `download`, name by URL. columns: our names
    (`columns.FIELDS`) to the set's. split: by default the training split, or the only one. limit: how many samples at most.
    strict: whether a row that cannot be used is refused, not left out. boxes: what the numbers of boxes mean
    (`boxes.FORMS`), or "none" to pass them over; by default it is recognised. one_image: whether
    samples of several images are left out. write: whether images are written at all;
    where they are not, `Sample.image` of such a row is "".

    Raises:
        InputError: if there is nothing to read, no row can be used, boxes cannot be told, or `strict` refuses a row.
    """
    source = find(str(spec), split)
    keep = Path(keep_images) if keep_images is not None else None
    folders = source.folders(Path(images) if images is not None else None)
    files = ImageFiles(folders, keep, fetcher=Fetcher() if download else None, moved=images is not None)
    form = form_named(boxes) if boxes not in (None, NO_BOXES) else None
    mapped = Columns(columns or {})
    tally = Tally(notes=list(source.notes))
    with _uncollected():
        if source.ours:
            if columns:
                raise InputError(
                    f"{source.name} is taken as it stands, so that no column can be named; leave --column out."
                )
            samples = _own(source, files, limit, write, tally, one_image)
        else:
            items = gathered(source, files, mapped, limit, write, tally, one_image=one_image)
            samples = understand(items, source.name, form, boxes != NO_BOXES, tally)
            tally.notes.extend(
                f"nothing is read from the column {name}; did you mean {meant}?" for name, meant in mapped.misspelt()
            )
    if IMAGE_MISSING in tally.reasons and source.root is not None and (packed := archives(source.root)):
        tally.notes.append(f"images may be in {packed}: unpack what is packed")
    samples = samples[:limit] if source.ours else _with_ids(samples[:limit])
    found = Reading(source.name, samples, tally)
    if strict and tally.left_out:
        first = tally.left_out[0]
        raise InputError(f"{told(found)}; the first is row {first.row} of {first.file}.")
    if not samples:
        raise InputError(_nothing(found))
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for circles of objects: rows make none, and it takes the longer the more of them there are."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _nothing(found: Reading) -> str:
    """Why there are no samples, and what can be done."""
    if not found.tally.left_out:
        return f"{found.name} holds no samples."
    first = found.tally.left_out[0]
    detail = f" ({first.detail})" if first.detail else ""
    hints = [HINTS[first.reason]] if first.reason in HINTS else []
    hint = "; ".join(["", *hints, *found.tally.notes])
    return f"{told(found)}: row {first.row}: {first.reason}{detail}{hint}."


def _own(
    source: Container, files: ImageFiles, limit: int | None, write: bool, tally: Tally, one_image: bool
) -> list[Sample]:
    """The samples of our own layout."""
    samples: list[Sample] = []
    unknown: set[str] = set()
    for row in source.rows():
        if limit is not None and len(samples) >= limit:
            break
        tally.rows += 1
        unknown |= own.unknown_keys(row.values)
        made = tally.attempt(row.number, row.file, lambda row=row: _own_sample(row, files, write, one_image))  # type: ignore[misc]
        if made is not None:
            samples.append(made)
    if unknown:
        tally.notes.append(f"keys that mean nothing here: {', '.join(sorted(unknown))}")
    own.check_unit([box for sample in samples for box in sample.boxes], source.name)
    return samples


def _own_sample(row: Row, files: ImageFiles, write: bool, one_image: bool) -> Sample:
    sample = own.sample_of(row.values)
    if one_image and sample.more_images:
        raise Unusable(SEVERAL_IMAGES, len(sample.images))
    named = [ref for image in sample.images for ref in references(image)]
    placed = sample.with_images(files.take(ref, write=write).path for ref in named)
    return replace(placed, id=sample.id or f"{row.number:07d}")


def _with_ids(samples: list[Sample]) -> list[Sample]:
    taken: set[str] = set()
    ids = [unique_id(sample.id, number, taken) for number, sample in enumerate(samples, 1)]
    return [one if one.id == id else replace(one, id=id) for one, id in zip(samples, ids, strict=True)]


def unique_id(id: str, number: int, taken: set[str]) -> str:
    """`id`, with the number of its row where it is taken already; it is taken from then on."""
    made = id
    while made in taken:
        made = f"{made}-{number}"
    taken.add(made)
    return made
