"""`cof ask IMAGE QUESTION`: one question about one image, the steps as they happen; or about each image of a folder."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cof_agent import protocol, scoring
from cof_agent.commands import common, detected, pictures
from cof_agent.commands.ask_each import UNANSWERED, each
from cof_agent.commands.options import add_agent, option
from cof_agent.config import AgentConfig
from cof_agent.data.fetch import Fetcher
from cof_agent.episodes import Episode
from cof_agent.errors import InputError, check_text
from cof_agent.image import Source, check_whole, file_of, open_source
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import make_folder, write_atomic
from cof_agent.region_refs import DETECTED, check_inside, check_regions, read_region
from cof_agent.trajectory import Answer, Observation, Sample, StopReason, Trajectory, to_json

if TYPE_CHECKING:
    from rich.console import Console

REGIONS_FIRST = "regions"  # the strategy of --region-crops
ENDED = {
    StopReason.MAX_ZOOMS: "the zoom budget was spent and the model still asked for more (--max-zooms raises it)",
    StopReason.TRUNCATED: "a turn ran into --max-tokens before it came to an action",
    StopReason.MALFORMED: "the model wrote neither a zoom nor an answer that can be read",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof ask IMAGE QUESTION [OPTION ...]"
    parser.epilog = (
        'example:\n  cof ask photo.jpg "What is the name of the shop?" --model Qwen/Qwen2.5-VL-7B-Instruct -o out'
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="image of any size: a path, a page (file.pdf#page=3), - for standard input, or a URL (needs --download); of a "
        "folder, a pattern such as 'scans/*.png', or all pages ('file.pdf#page=*'), each image is a question",
    )
    parser.add_argument("question", metavar="QUESTION", help="what you want to know")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        dest="more_images",
        help="further image; repeat, in order",
    )
    parser.add_argument("--choice", action="append", default=[], metavar="TEXT", help="a possible answer; repeat")
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="box that <region1>, <region2>, ... in the question means, in pixels of the image; repeat",
    )
    parser.add_argument(
        "--region-crops", action="store_true", help="first show a crop of each region; each one counts as a zoom"
    )
    detected.add_options(parser)
    option(parser, "download")
    option(
        parser,
        "output",
        help="folder for trajectory.jsonl, trajectory.png and report.html; of many images for answers.jsonl and "
        "trajectories.jsonl; after an interruption, the same command goes on from these (default: none)",
    )
    parser.add_argument(
        "--font",
        metavar="FILE",
        help="TrueType or OpenType font for the words of trajectory.png; the built-in one has plain Latin letters only",
    )
    option(parser, "concurrency", default=32)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the trajectory of each question as one line of JSON, and nothing else",
    )
    add_agent(parser)


def run(options: argparse.Namespace) -> int:
    if (many := pictures.find(options.image)) is not None:
        return each(options, many)
    with tempfile.TemporaryDirectory(prefix="cof-ask-") as folder:  # for what is kept nowhere else
        keep = Path(options.output or folder) / "images"
        fetcher = Fetcher() if options.download else None
        names = [pictures.taken(name, keep, fetcher) for name in (options.image, *options.more_images)]
        return _one(options, names)


def _one(options: argparse.Namespace, images: Sequence[str]) -> int:
    """One question about these images."""
    first, *others = images
    regions = tuple(read_region(text) for text in options.region)
    sample = Sample(
        Path(first).name,
        first,
        options.question,
        choices=tuple(options.choice),
        regions=regions,
        more_images=tuple(others),
    )
    config = common.config_of(options, **({"strategy": REGIONS_FIRST} if options.region_crops else {}))
    sources = _check(sample, options, config)
    (sample,) = detected.filled(options, [sample])
    common.warn_if_unknown_to_nano(config.model, [sample], config.base_url)
    agent = common.agent_of(config)
    steps = common.console(quiet=options.json or options.quiet)
    _show_regions(steps, sample)
    for source in sources:
        if source.passes:
            words = f"{source.path} holds no smaller copy of itself: the overview takes a pass through the file"
            _line(steps, "reading", words, "dim")
    trajectory = asyncio.run(agent.play(Episode(sample), on_event=lambda event: _show(steps, event)))
    if options.json:
        print(for_terminal(to_json(trajectory)))
    elif options.quiet and trajectory.answer is not None:
        print(for_terminal(trajectory.answer, lines=True))
    if trajectory.overview is None:  # the header could be read, the pixels not
        raise InputError(trajectory.error or "the image cannot be opened.")
    if options.output:
        _save(trajectory, options, steps)
    return _close(trajectory, steps)


_SAVED = ("trajectory.jsonl", "trajectory.png", "report.html")


def _check_output(folder: Path, sample: Sample) -> None:
    """Raises: InputError: if an image that is asked about would be overwritten."""
    places = {(folder / name).resolve() for name in _SAVED}
    if own := next((path for path in sample.images if Path(file_of(path)).resolve() in places), None):
        raise InputError(f"{own} would be overwritten by what is saved; name another folder with -o.")


def _check(sample: Sample, options: argparse.Namespace, config: AgentConfig) -> list[Source]:
    """The images; what is wrong is said before a model is loaded."""
    for text, what in ((sample.question, "the question"), *((choice, "a choice") for choice in sample.choices)):
        check_text(text, what)
    if options.output:
        _check_output(Path(options.output), sample)
    sources = [open_source(path, max_source_pixels=options.max_source_pixels) for path in sample.images]
    for source in sources:
        if source.held == source.size.area:  # decoded as a whole, which takes far less time than to load a model
            with open(source.path, "rb") as file:
                check_whole(file, str(source.path))
    check_regions(sample)
    check_inside(sample, sources[0].size)
    detected.check(options)
    if options.region_crops and not sample.regions and options.detector is None:
        raise InputError("--region-crops shows the regions of the question; give one with --region X0,Y0,X1,Y1.")
    if options.detector is not None and (sample.regions or sample.more_images):
        raise InputError("--detector finds the regions of one image itself; leave --region and --image out.")
    regions = len(sample.regions) or detected.most(options)
    if options.region_crops and regions > config.zooms:
        raise InputError(
            f"--region-crops takes a zoom for each of the {regions} regions; raise --max-zooms from {config.zooms}."
        )
    if options.region_crops and options.strategy != AgentConfig.strategy:
        raise InputError("--region-crops is a strategy of its own; leave --strategy out.")
    if sample.more_images:
        from cof_agent.strategies.registry import check_images  # which imports strategies

        check_images(options.strategy, config.spoken, [sample])
    if options.output and Path(options.output).exists() and not Path(options.output).is_dir():
        raise InputError(f"--output {options.output} is a file; name a folder.")
    _check_font(options.font)
    if options.output:
        make_folder(Path(options.output))
    return sources


def _check_font(file: str | None) -> None:
    from PIL import ImageFont

    if file is not None:
        try:
            ImageFont.truetype(file, 10)
        except OSError:
            raise InputError(f"--font {file} is no font that can be read; name a .ttf or .otf file.") from None


def _show_regions(console: Console, sample: Sample) -> None:
    """What a detector has found, if one was asked."""
    if (told := sample.metadata.get(DETECTED)) is None:
        return
    for number, (box, one) in enumerate(zip(sample.regions, told["found"], strict=True), 1):
        score = "" if one["score"] is None else f", score {one['score']:.2f}"
        corners = ", ".join(f"{value:.0f}" for value in box)
        _line(console, f"region {number}", f"{one['label']} at ({corners}){score}", "cyan")
    if not sample.regions:
        _line(console, "regions", f"none: {told.get('error', 'the detector finds nothing in the image')}", "yellow")


def _show(console: Console, event: object) -> None:
    from cof_agent.graphs.steps import Looked, Saw, Spoke

    match event:
        case Looked(overviews=overviews):
            for number, view in enumerate(overviews):
                which = f"image {number}: " if len(overviews) > 1 else ""
                _line(console, "overview", f"{which}{view.source_size} shown at {view.shown_size}", "dim")
        case Spoke(number=number, turn=turn, thought=thought):
            _line(console, f"turn {number + 1}", thought, "bold", "italic")
            for action in turn.actions:
                if isinstance(action, Answer):
                    _line(console, "answer", action.text, "bold green")
        case Saw(observations=observations):
            for observation in observations:
                _show_observation(console, observation)


def _show_observation(console: Console, observation: Observation) -> None:
    view = observation.view
    if view is None:
        label, style = ("refused", "yellow") if observation.text is None else ("tool", "cyan")
        _line(console, label, observation.error or observation.text or "", style)
        return
    region = view.region
    corner = f"({region.x0:.0f}, {region.y0:.0f}) to ({region.x1:.0f}, {region.y1:.0f})"
    size = f"{region.width:.0f} x {region.height:.0f}"
    note = f"  {observation.note}" if observation.note else ""
    of = f" of image {view.source}" if view.source else ""
    words = f"{corner}{of}, {size} source pixels shown at {view.shown_size}{note}"
    _line(console, "zoom" if view.tool is None else "tool", words, "cyan")


def _line(console: Console, label: str, text: str, style: str, text_style: str = "") -> None:
    """One line of the report: what it is, and its text, which may come from the model."""
    from cof_agent.output.terminal import styled

    console.print(styled((label, style), " " * (11 - len(label)), (text, text_style)), soft_wrap=True)


def _save(trajectory: Trajectory, options: argparse.Namespace, console: Console) -> None:
    """trajectory.jsonl, trajectory.png and report.html in the folder of `--output`."""
    import io

    from cof_agent.viewer.picture import annotate, undrawn
    from cof_agent.viewer.report import write_page

    folder = Path(options.output)
    try:
        write_atomic(folder / "trajectory.jsonl", to_json(trajectory) + "\n")
        buffer, most = io.BytesIO(), options.max_source_pixels
        sources = [open_source(path, max_source_pixels=most) for path in trajectory.sample.images]
        annotate(trajectory, *sources, font=options.font).save(buffer, "PNG")
        write_atomic(folder / "trajectory.png", buffer.getvalue())
        write_page([trajectory], folder / "report.html", title=trajectory.sample.question, score=scoring.accuracy)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}.") from None
    for name in _SAVED:
        _line(console, "saved", str(folder / name), "dim")
    if lacking := undrawn(trajectory, options.font):
        words = f"trajectory.png has no letters for {lacking[:12]!r}; --font FILE names a font that has them"
        _line(console, "note", words, "yellow")


def _close(trajectory: Trajectory, console: Console) -> int:
    if trajectory.stop is StopReason.ANSWERED:
        _show_choice(console, trajectory.answer or "", trajectory.sample.choices)
        if trajectory.warning is not None:
            _line(console, "unreliable", trajectory.warning, "bold yellow")
        return 0
    reason = trajectory.error if trajectory.stop is StopReason.ERROR else ENDED[trajectory.stop]
    print(f"cof ask: no answer: {for_terminal(reason)}", file=sys.stderr)
    return UNANSWERED


def _show_choice(console: Console, answer: str, choices: Sequence[str]) -> None:
    """Which of the choices the answer is, where it does not say so itself; or that it is none of them."""
    choice = scoring.choice_of(answer, choices)
    if choice is not None and choice != answer:
        letters = {text: letter for letter, text in protocol.lettered(choices)}
        _line(console, "choice", f"{letters[choice]}. {choice}", "dim")
    elif choice is None and choices:
        _line(console, "choice", f"none: the answer is none of the {len(choices)} choices", "yellow")
