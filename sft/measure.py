"""Measures every sample before training: tokens and images; what cannot be trained on is left out and listed, never cut.

A sample that is too long loses its answer when it is cut, and an image that loses some of its tokens ends the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.progress import track
from rich.table import Table

from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic
from cof_agent.output.terminal import console
from sft.collate import assistant_mask
from sft.dataset import Outline, Rows, read_rows
from sft.frame import Frame, Unfit
from sft.settings import CURRICULUM, Settings


@dataclass(frozen=True, slots=True)
class Measure:
    """Tokens of a rendered sample, how many of them are image tokens and how many are trained, and its images."""

    index: int
    tokens: int
    image_tokens: int
    trained: int
    images: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The samples to train on, and why the others (by name) are left out."""

    kept: list[Measure]
    left_out: dict[str, str]


def measure(rows: Rows, processor: Any, frame: Frame, max_tokens: int | None, *, progress: bool = False) -> Measured:
    """Measures all samples of `rows`; at most `max_tokens` a sample."""
    kept: list[Measure] = []
    left_out: dict[str, str] = {}
    indices: Iterable[int] = range(len(rows))
    if progress:
        indices = track(indices, "Measuring samples", len(rows), console=console(stderr=True), transient=True)
    for index in indices:
        try:
            found = _measure(index, rows.outline(index), processor, frame)
            if max_tokens is not None and found.tokens > max_tokens:
                raise Unfit(f"it has {found.tokens} tokens, more than max_length {max_tokens}")
        except Unfit as reason:
            left_out[rows.name(index)] = str(reason)
        else:
            kept.append(found)
    return Measured(kept, left_out)


def _measure(index: int, outline: Outline, processor: Any, frame: Frame) -> Measure:
    for number, size in enumerate(outline.sizes):
        if not frame.fits(size):
            raise Unfit(
                f"its image {number} is {size} pixels, which the processor would make {frame.fitted(size)}: boxes in "
                "the text would be off"
            )
    text = processor.apply_chat_template(outline.messages, tokenize=False)
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    slots = ids.count(processor.image_token_id)
    if slots != len(outline.sizes):
        raise Unfit(f"its text has {slots} image tokens for {len(outline.sizes)} images")
    trained = int(assistant_mask(torch.tensor([ids]), processor.tokenizer, frame.family.markers).sum())
    if not trained:
        raise Unfit("nothing in it was written by an assistant")
    cells = sum(size.area // frame.grid**2 for size in outline.sizes)
    return Measure(index, len(ids) - slots + cells, cells, trained, len(outline.sizes))


def table(measured: Measured, left_out: Path | None) -> Table:
    """What a person wants to see before a long run. `left_out`: the list of what is left out, if it was written."""
    made = Table(title=f"{len(measured.kept)} samples", title_justify="left")
    for heading in ("a sample", "mean", "least", "most", "in all"):
        made.add_column(heading, justify="left" if heading == "a sample" else "right")
    for name in ("tokens", "image_tokens", "trained", "images"):
        values = [getattr(one, name) for one in measured.kept]
        label = {"trained": "tokens trained on"}.get(name, name.replace("_", " "))
        made.add_row(label, f"{fmean(values):.1f}", str(min(values)), str(max(values)), str(sum(values)))
    if measured.left_out:
        listed = f", listed in {left_out}" if left_out else ""
        made.caption = f"{len(measured.left_out)} left out{listed}: {_commonest(measured.left_out)}"
        made.caption_justify = "left"
    return made


def _commonest(left_out: dict[str, str]) -> str:
    (reason, count), *others = Counter(left_out.values()).most_common()
    return f"{count} because {reason}" + (f"; and {len(others)} other reasons" if others else "")


def write_left_out(measured: Measured, path: Path) -> None:
    """One line for each sample that was left out; no file where there is none."""
    if measured.left_out:
        lines = [
            json.dumps({"sample": name, "reason": why}, ensure_ascii=False) for name, why in measured.left_out.items()
        ]
        write_atomic(path, "\n".join(lines) + "\n")


def read_data(settings: Settings, processor: Any, frame: Frame) -> tuple[Rows, Measured]:
    """The samples and their measures; prints the table, and lists what is left out beside the checkpoints.

    Raises:
        InputError: if nothing can be trained on, saying why.
    """
    run, first = settings.run, settings.training.process_index == 0
    if run.data == CURRICULUM:
        from sft.nano.curriculum import CurriculumRows, Plan  # nano's schooling, which no other model needs

        rows: Rows = CurriculumRows(Plan(**run.plan), settings.training.seed, run.samples or 0)
        return rows, Measured([Measure(index, 0, 0, 0, 0) for index in range(len(rows))], {})
    rows = read_rows(run, frame)
    measured = measure(rows, processor, frame, settings.max_length, progress=first and not run.quiet)
    left_out = Path(settings.training.output_dir) / "left_out.jsonl"
    if not measured.kept:
        name, reason = next(iter(measured.left_out.items()))
        raise InputError(
            f"nothing in {run.data} can be trained on; of the first of its {len(rows)} samples, {name}: {reason}."
        )
    if first:
        if not run.dry_run:
            write_left_out(measured, left_out)
        console(stderr=True, quiet=run.quiet).print(table(measured, None if run.dry_run else left_out))
    return rows, measured
