"""Measures every sample before training: tokens and images; what cannot be trained on is left out and listed, never cut.

A sample that is too long loses its answer when it is cut, and an image that loses some of its tokens ends the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from cof_agent.data.unusable import HINTS, LeftOut, Tally, write_left_out
from cof_agent.errors import InputError
from cof_agent.output.terminal import console
from cof_agent.training.distill import Plays
from sft.conversations.ruler import Measure, Ruler
from sft.dataset import Mixture, Rows, read_rows
from sft.frame import Frame, Outline
from sft.settings import CURRICULUM, RunConfig, Settings

LONGEST = 400  # characters of a message that are printed


@dataclass(frozen=True, slots=True)
class Measured:
    """The samples to train on, and why the others are left out."""

    kept: list[Measure]
    left_out: list[LeftOut]


def measure(rows: Rows, processor: Any, frame: Frame, max_tokens: int | None, *, progress: bool = False) -> Measured:
    """Measures all samples of `rows`; at most `max_tokens` a sample."""
    kept: list[Measure] = []
    tally, ruler = Tally(), Ruler(processor, frame, max_tokens)
    indices: Iterable[int] = range(len(rows))
    if progress:
        indices = track(indices, "Measuring samples", len(rows), console=console(stderr=True), transient=True)
    for index in indices:
        file, number = rows.where(index)
        found = tally.attempt(number, Path(file), lambda index=index: ruler.measure(index, rows.outline(index)))  # type: ignore[misc]
        if found is not None:
            kept.append(found)
    return Measured(kept, tally.left_out)


def show(name: str, rows: Rows, measured: Measured, tally: Tally, left_out: Path | None, to: Console) -> None:
    """Prints what a person wants to see before a long run: what was read and left out, how long samples are, and the first.

    left_out: the list of what is left out, if it was written.
    """
    to.print(_table(name, measured, tally))
    for note in tally.notes:
        to.print(note, soft_wrap=True)
    for reason in _reasons(tally, measured):
        if reason in HINTS:
            to.print(f"{reason}: {HINTS[reason]}", soft_wrap=True)
    if left_out is not None and (tally.left_out or measured.left_out):
        to.print(f"listed in {left_out}", soft_wrap=True)
    first = measured.kept[0].index
    file, number = rows.where(first)
    to.rule(f"{file}, row {number}", align="left")
    to.print(_example(rows.outline(first)), soft_wrap=True)


def _table(name: str, measured: Measured, tally: Tally) -> Table:
    made = Table(title=name, title_justify="left")
    for heading in ("", "in all", "mean of a sample", "least", "most"):
        made.add_column(heading, justify="right" if heading else "left")
    reasons = _reasons(tally, measured)
    made.add_row("rows read", str(tally.rows))
    for kind, count in tally.kinds.items():
        made.add_row(f"  {kind}", str(count))
    made.add_row("left out", str(sum(reasons.values())))
    for reason, count in reasons.items():
        made.add_row(f"  {reason}", str(count))
    made.add_row("samples", str(len(measured.kept)))
    for field in ("turns", "images", "tokens", "image_tokens", "trained"):
        values = [getattr(one, field) for one in measured.kept]
        label = {"trained": "tokens trained on", "turns": "turns of the assistant"}.get(field, field.replace("_", " "))
        made.add_row(f"  {label}", str(sum(values)), f"{fmean(values):.1f}", str(min(values)), str(max(values)))
    return made


def _reasons(tally: Tally, measured: Measured) -> dict[str, int]:
    return Tally(left_out=[*tally.left_out, *measured.left_out]).reasons


def _example(outline: Outline) -> str:
    """A sample as it is trained on."""
    sizes, lines = iter(outline.sizes), []
    for message in outline.messages:
        parts = (f"[image, {next(sizes)}]" if one["type"] == "image" else one["text"] for one in message["content"])
        said = "".join(parts)
        lines.append(f"{message['role']}: {said if len(said) <= LONGEST else f'{said[:LONGEST]} ...'}")
    return "\n".join(lines)


def read_data(settings: Settings, processor: Any, frame: Frame) -> tuple[Rows, Measured]:
    """The samples and their measures; prints the table, and lists what is left out beside the checkpoints.

    Raises:
        InputError: if nothing can be trained on, saying why, or a row is left out and the settings are strict.
    """
    run, first = settings.run, settings.training.process_index == 0
    if run.data == CURRICULUM:
        from sft.nano.curriculum import CurriculumRows, Plan  # nano's schooling, which no other model needs

        rows: Rows = CurriculumRows(Plan(**run.plan), settings.training.seed, run.samples or 0)
        return rows, Measured([Measure(index, 0, 0, 0, 0, 0) for index in range(len(rows))], [])
    output, tally = Path(str(settings.training.output_dir)), Tally()
    progress = first and not run.quiet
    rows = _read(run, frame, tally, output / "images", progress=progress)
    found = measure(rows, processor, frame, settings.max_length, progress=progress)
    measured = Measured(found.kept, [*tally.left_out, *found.left_out])
    _check(run, measured, tally)
    if first:
        listed = None if run.dry_run else output / "left_out.jsonl"
        if listed is not None and measured.left_out:
            write_left_out(listed, measured.left_out)
        show(_name(run), rows, found, tally, listed, console(stderr=True, quiet=run.quiet))
    return rows, measured


def _name(run: RunConfig) -> str:
    return ", ".join([run.data, *run.mix])


def _read(run: RunConfig, frame: Frame, tally: Tally, images: Path, *, progress: bool = False) -> Rows:
    plays = Plays(run.distill, run.distill_rate) if run.distill else None
    parts = [
        read_rows(
            replace(run, data=spec),
            frame,
            tally,
            keep_images=images,
            write=not run.dry_run,
            most_pixels=run.max_source_pixels,
            progress=progress,
            dialect=run.agent_config().spoken,
            plays=plays,
        )
        for spec in [run.data, *run.mix]
    ]
    if plays is not None:
        plays.check(_name(run))
    return parts[0] if len(parts) == 1 else Mixture(parts)


def _check(run: RunConfig, measured: Measured, tally: Tally) -> None:
    if not tally.rows:
        raise InputError(f"{_name(run)} holds nothing to train on.")
    if not measured.left_out or (measured.kept and not run.strict):
        return
    reasons = Tally(left_out=measured.left_out).reasons
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.items())
    one = measured.left_out[0]
    hint = f"; {HINTS[one.reason]}" if one.reason in HINTS else ""
    detail = f" ({one.detail})" if one.detail else ""
    what = "rows are left out" if measured.kept else "nothing can be trained on"
    first = f"the first is row {one.row} of {one.file}: {one.reason}{detail}{hint}"
    raise InputError(f"{_name(run)}: {what}: {told}, of {tally.rows} rows; {first}.")
