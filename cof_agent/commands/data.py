"""`cof data SPEC`: shows what is read of a set before a long run, and writes it in our own layout with `-o`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.table import Table

from cof_agent.commands import common, text_questions
from cof_agent.commands.options import add_samples, option
from cof_agent.data.samples import Reading, read
from cof_agent.data.source import Source
from cof_agent.data.unusable import HINTS, LeftOut, write_left_out
from cof_agent.errors import InputError
from cof_agent.output.files import write_new
from cof_agent.protocol import question_text
from cof_agent.trajectory import Sample, to_json

EXAMPLES = 3
LONGEST = 800  # characters of a question that are printed


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof data SPEC [-o DIR] [OPTION ...]"
    parser.epilog = (
        "example:\n  cof data rows.parquet --column question=extra_info.question -o outputs/mine\n"
        f"  cof data manual.pdf --make {text_questions.NAME} -o outputs/text"
    )
    parser.add_argument(
        "data", metavar="SPEC", help="a folder, a file (JSON, JSONL, CSV, TSV, Parquet) or a dataset of the hub"
    )
    group = add_samples(parser, without=("data",))
    option(group, "output", help="folder for samples.jsonl, images/ and left_out.jsonl (default: nothing is written)")
    text_questions.add_options(parser.add_argument_group("making questions"))


def run(options: argparse.Namespace) -> int:
    if options.make:
        _check_made(options)
        questions = text_questions.samples(options)
        _write(Path(options.output), questions)
        return 0
    text_questions.check_unused(options)
    source = Source(**{field.name: getattr(options, field.name) for field in fields(Source)})
    output = Path(options.output) if options.output else None
    if output is not None:
        _check_output(source.data, output)
    found = read(source.data, **source.reading, keep_images=output and output / "images", write=output is not None)
    _print(found, examples=0 if options.quiet else EXAMPLES)
    if output is not None:
        _write(output, found.samples, found.tally.left_out)
    return 0


def _check_made(options: argparse.Namespace) -> None:
    """Raises:
    InputError: if there is no folder to write, or an option was given that says how rows are read; pictures have none.
    """
    if not options.output:
        raise InputError(f"--make {text_questions.NAME} writes a folder; name it with -o DIR.")
    for name in ("images", "column", "split", "samples", "boxes", "download", "strict"):
        if getattr(options, name):
            raise InputError(f"--{name} is for rows of a data set; --make reads pictures.")


def _check_output(data: str, output: Path) -> None:
    """The samples that are read are not written over."""
    written = output / "samples.jsonl"
    if (
        written.exists()
        and Path(data).exists()
        and written.resolve() in (Path(data).resolve(), (Path(data) / written.name).resolve())
    ):
        raise InputError(f"{written} is what is read; use another output folder.")


def _print(found: Reading, examples: int) -> None:
    console = common.console()
    console.print(_table(found))
    for note in found.tally.notes:
        console.print(note, soft_wrap=True)
    for reason in found.tally.reasons:
        if reason in HINTS:
            console.print(f"{reason}: {HINTS[reason]}", soft_wrap=True)
    for sample in found.samples[:examples]:
        console.rule(sample.id, align="left")
        console.print(_example(sample), soft_wrap=True)


def _table(found: Reading) -> Table:
    samples, left_out = found.samples, len(found.tally.left_out)
    table = Table(title=found.name, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("rows read", str(found.tally.rows))
    table.add_row("samples", str(len(samples)))
    table.add_row("  with choices", str(sum(bool(sample.choices) for sample in samples)))
    table.add_row("  with a known answer", str(sum(bool(sample.answers) for sample in samples)))
    table.add_row("  with boxes", str(sum(bool(sample.boxes) for sample in samples)))
    if several := sum(bool(sample.more_images) for sample in samples):
        table.add_row("  with several images", str(several))
    table.add_row("left out", str(left_out))
    for reason, count in found.tally.reasons.items():
        table.add_row(f"  {reason}", str(count))
    return table


def _example(sample: Sample) -> str:
    """A sample as the model is asked, and what is known about it."""
    asked = question_text(sample)
    lines = [
        asked if len(asked) <= LONGEST else f"{asked[:LONGEST]} ...",
        f"answer: {' | '.join(sample.answers) or 'not known'}",
    ]
    if sample.boxes:
        boxes = ", ".join(str([round(edge, 1) for edge in box]) for box in sample.boxes)
        lines.append(f"boxes, in source pixels: {boxes}")
    if rule := sample.metadata.get("scoring"):
        lines.append(f"scored by: {rule}")
    if instruction := sample.metadata.get("instruction"):
        lines.append(f"left out of the question: {instruction[:LONGEST]}")
    images = ", ".join(image or "in the row" for image in sample.images)
    return "\n".join([*lines, f"{'images' if sample.more_images else 'image'}: {images}"])


def _write(output: Path, samples: Sequence[Sample], left_out: Sequence[LeftOut] = ()) -> None:
    """samples.jsonl, whose images are named relative to it where they are in the same folder, and left_out.jsonl.

    Raises:
        InputError: if the folder holds other samples already.
    """
    folder = output.resolve()
    moved = [one.with_images(_named(Path(image).resolve(), folder) for image in one.images) for one in samples]
    written = [output / "samples.jsonl"]
    write_new(written[0], "".join(to_json(sample) + "\n" for sample in moved))
    if left_out:
        written.append(output / "left_out.jsonl")
        write_left_out(written[-1], left_out)
    common.console().print(f"written: {', '.join(map(str, written))}", soft_wrap=True)


def _named(image: Path, folder: Path) -> str:
    return os.path.relpath(image, folder) if image.is_relative_to(folder) else str(image)
