"""`cof data PICTURES --make text-questions -o DIR`: questions with known answers, of the text in pictures."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from cof_agent.commands import common, pictures
from cof_agent.commands.options import Group, count, option
from cof_agent.environment import ZoomEnvironment, ZoomSettings, identity
from cof_agent.errors import InputError
from cof_agent.geometry import PixelLimits
from cof_agent.image.source import DEFAULT_MAX_SOURCE_PIXELS
from cof_agent.output.escape import for_terminal
from cof_agent.output.progress import track
from cof_agent.trajectory import JsonlAppender, Sample, read_jsonl

if TYPE_CHECKING:
    from cof_agent.ocr.questions import Made, Maker

NAME = "text-questions"
RECORD = "pictures.jsonl"
PER_PICTURE = 3


def add_options(group: Group) -> None:
    group.add_argument(
        "--make",
        choices=(NAME,),
        help="make questions: SPEC is a picture, a PDF file, a folder or a pattern of them, and the answers are text that two "
        "engines read in them at full resolution, and that the overview does not show (extra `ocr`, and tesseract)",
    )
    group.add_argument(
        "--per-picture",
        type=count,
        default=PER_PICTURE,
        metavar="N",
        help=f"most questions of one picture or page (default: {PER_PICTURE})",
    )
    option(group, "seed", default=0, help="seed of the choice among a picture's questions (default: 0)")
    option(
        group,
        "overview_pixels",
        default=PixelLimits().max_pixels,
        help="area of the overview that must leave the answer open, in shown pixels (default: 1003520, that of Qwen2.5-VL)",
    )
    option(group, "max_source_pixels")


def check_unused(options: argparse.Namespace) -> None:
    """Refuses an option of `--make` without it.

    Raises:
        InputError: if one was.
    """
    defaults = {
        "per_picture": PER_PICTURE,
        "seed": 0,
        "overview_pixels": PixelLimits().max_pixels,
        "max_source_pixels": DEFAULT_MAX_SOURCE_PIXELS,
    }
    if given := [name for name, default in defaults.items() if getattr(options, name) != default]:
        raise InputError(f"--{given[0].replace('_', '-')} is for making questions; add --make {NAME}.")


def samples(options: argparse.Namespace) -> list[Sample]:
    """The questions; what was made of each picture is in `pictures.jsonl` of the output folder, and is not made twice.

    Raises:
        InputError: if there is nothing to read, nothing to read it with, or no question comes of it.
    """
    from cof_agent.ocr.questions import READABLE

    found = pictures.find(options.data)
    names = found.paths if found else (options.data,)
    made = list(_made(_maker(options), names, options))
    _print(made, quiet=options.quiet)
    questions = [sample for one in made for sample in one.samples]
    if not questions:
        reasons = Counter(one.reason for one in made)
        first = reasons.most_common(1)[0][0]
        hint = "; a smaller one shows less: lower --overview-pixels" if first == READABLE else ""
        raise InputError(f"no question could be made: {first}{hint}.")
    return questions


def _maker(options: argparse.Namespace) -> Maker:
    from cof_agent.ocr.pictures import Reading
    from cof_agent.ocr.questions import Maker
    from cof_agent.ocr.rapid import RapidOcr
    from cof_agent.ocr.tesseract import Tesseract

    limits = PixelLimits(max_pixels=options.overview_pixels)
    settings = ZoomSettings(limits=limits, max_source_pixels=options.max_source_pixels)
    environment = ZoomEnvironment(settings, source_cache=0)
    second, first = Reading(Tesseract()), Reading(RapidOcr())
    return Maker(first, second, environment, options.per_picture, options.seed)


def _made(maker: Maker, names: Sequence[str], options: argparse.Namespace) -> Iterator[Made]:
    from cof_agent.ocr.questions import Made

    record = Path(options.output) / RECORD
    before = {one.image: one for one in read_jsonl(record, Made)} if record.exists() else {}
    _check_settings(before.values(), maker, record)
    with JsonlAppender(record) as file:
        for name in track(names, "Reading pictures", quiet=options.quiet):
            here, earlier = identity(name), before.get(name)
            if earlier is not None and tuple(earlier.identity) == here:
                yield earlier
                continue
            made = maker.make(name, here)
            file.append(made)
            yield made


def _check_settings(before: Iterable[Made], maker: Maker, record: Path) -> None:
    """Refuses to go on with records that were made otherwise.

    Raises:
        InputError: if they were made in another way.
    """
    if any(one.settings != maker.settings for one in before):
        raise InputError(
            f"{record} was made with other settings, engines or rules of this project; use another output folder."
        )


def _print(made: Sequence[Made], *, quiet: bool) -> None:
    questions = [sample for one in made for sample in one.samples]
    table = Table(title=f"{len(questions)} questions of {len(made)} pictures", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "lines read": sum(one.lines for one in made),
        "  alike by both engines": sum(one.sure for one in made),
        "questions they answer": sum(one.asked for one in made),
        "  the overview, too": sum(one.readable for one in made),
        "pictures without a question": sum(not one.samples for one in made),
        **{
            f"  {reason}": number for reason, number in Counter(_kind(one.reason) for one in made if one.reason).items()
        },
    }
    for name, number in rows.items():
        table.add_row(for_terminal(name), f"{number:,}")
    common.console(quiet=quiet).print(table)


def _kind(reason: str) -> str:
    """A reason as it is counted; what is wrong with a file stands in the record, a sentence for each."""
    from cof_agent.ocr.questions import NO_TEXT, NOT_SURE, READABLE

    return reason if reason in (NO_TEXT, NOT_SURE, READABLE) else f"could not be read: see {RECORD}"
