"""`cof spots --data SPEC -o DIR`: finds the region that each known answer rests on, as Chain-of-Spot's training set is made."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends.load import in_vllm
from cof_agent.commands import common
from cof_agent.commands.options import add_samples, option
from cof_agent.errors import InputError
from cof_agent.output.files import write_atomic, write_json
from cof_agent.trajectory import to_json

if TYPE_CHECKING:
    from cof_agent.backends.local.policy import LocalPolicy
    from cof_agent.config import AgentConfig

HIGHLIGHTS = "highlights.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof spots --data SPEC -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof spots --data outputs/train -o outputs/spots --pictures"
    samples = add_samples(parser)
    option(samples, "output", required=True, help="folder for samples.jsonl, trajectories.jsonl and highlights.jsonl")
    parser.add_argument("--pictures", action="store_true", help="draw each map over its overview, with the region")
    shown = parser.add_argument_group(
        "model and what it is shown", "The model must run here in transformers: others do not tell their attention."
    )
    for name in ("model", "device", "dtype", "attn", "overview_pixels", "zoom_pixels", "enlarge", "max_source_pixels"):
        option(shown, name)


def run(options: argparse.Namespace) -> int:
    config = common.config_of(options)
    if common.is_served(config) or in_vllm(config.model):
        raise InputError(
            f"{config.model} does not tell its attention; name a model for transformers with --model: nano, a folder or a hub id."
        )
    output = Path(options.output)
    _check_output(output)
    samples = common.samples(options, output, one_image=True)
    if unknown := [sample.id for sample in samples if not sample.answers]:
        raise InputError(f"sample {unknown[0]} has no known answer, so there is nothing to find the region of.")
    common.warn_if_unknown_to_nano(config.model, samples, config.base_url)
    from cof_agent.strategies.spot.annotate import Annotator, boxed

    policy = _local(config)
    spots = Annotator(policy, config.settings(policy), output / HIGHLIGHTS)
    trajectories = asyncio.run(spots.annotate(samples, output / "trajectories.jsonl", progress=not options.quiet))
    found = spots.found(trajectories)
    if options.pictures:
        for sample, highlight in found:
            spots.draw(highlight, sample, output / "pictures")
    summary = spots.summary(trajectories, found) | common.origin(options, trajectories[0])
    write_atomic(output / "samples.jsonl", "".join(to_json(boxed(*pair)) + "\n" for pair in found))
    write_json(output / "summary.json", summary)
    _print(summary, output, quiet=options.quiet)
    return common.report_errors(trajectories, "and have no region")


def _check_output(output: Path) -> None:
    """Samples that are there already are not overwritten, least of all those that are read."""
    if (output / "samples.jsonl").exists() and not (output / HIGHLIGHTS).exists():
        raise InputError(
            f"{output / 'samples.jsonl'} holds samples that this command did not write; use another folder."
        )


def _local(config: AgentConfig) -> LocalPolicy:
    from cof_agent.agent import load_policy
    from cof_agent.backends.local.policy import LocalPolicy

    policy = load_policy(config)
    assert isinstance(policy, LocalPolicy)  # what is not served is local
    return policy


def _print(summary: dict[str, Any], output: Path, *, quiet: bool) -> None:
    from rich.table import Table

    common.console().print(f"{summary['annotated']} of {summary['n']} samples have a region.")
    console = common.console(quiet=quiet)
    figures = {name: row for name, row in summary["pointing"].items() if row["n"]}
    if figures:
        table = Table(title="maps against true boxes", title_justify="left")
        for heading in ("samples", "n", "peak meets a box", "image centre", "overlap", "centre crop"):
            table.add_column(heading, justify="right")
        for name, row in figures.items():
            cells = (f"{row[key]:.3f}" for key in ("hit", "centre_hit", "overlap", "centre_overlap"))
            table.add_row(name, str(row["n"]), *cells)
        console.print(table)
    console.print(f"written: {output / 'samples.jsonl'}, {output / 'trajectories.jsonl'}", soft_wrap=True)
