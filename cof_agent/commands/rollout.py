"""`cof rollout --data SPEC -o DIR`: plays each sample several times, and keeps those that are neither too easy nor too hard.

`trajectories.jsonl` has all plays, `samples.jsonl` what is kept: data for an RL run, or for `cof eval`.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cof_agent.commands import common
from cof_agent.commands.options import above_0, add_agent, add_samples, option
from cof_agent.episodes import by_key, episodes
from cof_agent.errors import InputError
from cof_agent.evaluation.difficulty import Rated, chosen, rated
from cof_agent.output.files import write_atomic, write_json
from cof_agent.trajectory import Sample, failures, to_json

BAR = 40  # characters of the histogram's longest bar


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof rollout --data SPEC -o DIR [OPTION ...]"
    parser.epilog = "example:\n  cof rollout --data outputs/train -o outputs/kept --plays 8 --keep 0,1"
    option(add_samples(parser), "output", required=True, help="folder for trajectories.jsonl and samples.jsonl")
    run = parser.add_argument_group("run")
    option(run, "plays", default=8, help="play each sample K times")
    run.add_argument(
        "--keep", default="0,1", metavar="LOW,HIGH", help="keep samples with a pass rate strictly between these"
    )
    option(run, "concurrency", default=32)
    add_agent(
        parser,
        temperature={"type": above_0, "default": 1.0, "help": "temperature at which answers are drawn"},
        seed={"default": 0},
    )


def run(options: argparse.Namespace) -> int:
    config = common.config_of(options)
    output, (low, high) = Path(options.output), _bounds(options.keep)
    _check_output(options.data, output)
    every = common.samples(options, output, one_image=common.needs_one_image(config))
    samples = [sample for sample in every if sample.answers]
    if not samples:
        raise InputError(f"no sample of {options.data} has a known answer, so that no play can be right.")
    wanted = episodes(samples, plays=options.plays)
    by_key(wanted)
    common.warn_if_unknown_to_nano(config.model, samples, config.base_url)
    resumed = common.check_settings(config, output)

    from cof_agent.rollout import check_same_questions  # which imports LangGraph

    check_same_questions(wanted, output / "trajectories.jsonl")
    trajectories = common.played(config, wanted, output / "trajectories.jsonl", options, resumed=resumed)
    ratings = rated(samples, trajectories, options.plays)
    kept = chosen(ratings, low, high)
    counts: dict[str, Any] = {
        "errors": failures(trajectories),
        "unknown": len(every) - len(samples),
        "failed": sum(one.right is None for one in ratings),
        "unreliable": sum(one.warning is not None for one in trajectories),
    }
    summary = _summary(ratings, kept, (low, high)) | counts | common.origin(options, trajectories[0])
    write_atomic(output / "samples.jsonl", "".join(to_json(sample) + "\n" for sample in kept))
    write_json(output / "summary.json", summary)
    _print(summary, output, quiet=options.quiet)
    return common.report_errors(trajectories, "and say nothing of their samples")


def _bounds(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d*\.?\d+),(\d*\.?\d+)", text)
    low, high = (float(found[1]), float(found[2])) if found else (1.0, 0.0)
    if not 0 <= low < high <= 1:
        raise InputError(f"--keep must be LOW,HIGH with 0 <= LOW < HIGH <= 1, such as 0.1,0.9, not {text!r}.")
    return low, high


def _check_output(data: str, output: Path) -> None:
    """Other samples are not overwritten, least of all those that are read."""
    written = output / "samples.jsonl"
    source = Path(data) / "samples.jsonl" if Path(data).is_dir() else Path(data)
    ours = (output / "trajectories.jsonl").exists() and written.resolve() != source.resolve()
    if written.exists() and not ours:
        raise InputError(f"{written} holds samples that no rollout chose; use another output folder.")


def _summary(ratings: Sequence[Rated], kept: Sequence[Sample], bounds: tuple[float, float]) -> dict[str, Any]:
    """Counts of samples; `right` says how many had so many of their plays right."""
    counts = Counter(one.right for one in ratings if one.right is not None)
    return {
        "n": len(ratings),
        "plays": ratings[0].plays,
        "kept": len(kept),
        "keep": bounds,
        "right": {str(right): counts[right] for right in range(ratings[0].plays + 1) if counts[right]},
    }


def _print(summary: dict[str, Any], output: Path, *, quiet: bool) -> None:
    from rich.table import Table

    low, high = summary["keep"]
    table = Table(title=f"{summary['policy']} on {summary['n']} samples, {summary['plays']} plays each")
    table.title_justify = "left"
    for heading in ("right", "pass rate", "samples", "kept"):
        table.add_column(heading, justify="right")
    table.add_column("")
    most = max(summary["right"].values(), default=1)
    for right, count in summary["right"].items():
        rate = int(right) / summary["plays"]
        kept = count if low < rate < high else 0
        table.add_row(right, f"{rate:.3f}", str(count), str(kept), "#" * max(1, round(BAR * count / most)))
    console = common.console(quiet=quiet)
    console.print(table)
    if summary["unknown"]:
        console.print(f"left out: {summary['unknown']} samples without a known answer")
    if summary["failed"]:
        console.print(
            f"left out: {summary['failed']} samples of which a play failed; the same command tries them again"
        )
    share = f"{summary['kept']} of {summary['n']} samples, pass rate strictly between {low:g} and {high:g}"
    common.console().print(f"kept: {share}", soft_wrap=True)
    console.print(f"written: {output / 'samples.jsonl'}, {output / 'trajectories.jsonl'}", soft_wrap=True)
