"""`cof eval --data DIR -o OUT`: accuracy with its interval, pointing, zooms and tokens of a model on samples."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cof_agent import scoring
from cof_agent.agent import Agent
from cof_agent.backends.load import load
from cof_agent.commands import common
from cof_agent.data import shards
from cof_agent.data.benchmarks import registry
from cof_agent.data.benchmarks.choices import shuffled
from cof_agent.data.samples import read_samples
from cof_agent.data.shards import Shard
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError
from cof_agent.evaluation.judge import Judge
from cof_agent.evaluation.metrics import HEADINGS, UNKNOWN, Score, cells, summarise
from cof_agent.plugins import load_function
from cof_agent.scenes.oracle import zooms_needed_by
from cof_agent.trajectory import Key, Sample, Trajectory, to_json, write_atomic

NEEDED_BUDGET = 6  # zooms the oracle may take when it says how many a sample needs, whatever the run allows
WHOLE = "trajectories.jsonl"


def run(options: argparse.Namespace) -> int:
    common.config_of(options)  # what is wrong with it is said before a model is loaded
    if options.scoring is not None:
        load_function(options.scoring, "scoring rule")
        if options.judge is not None:
            raise InputError("--scoring and --judge are two ways to score; name one of them.")
    output, shard = Path(options.output), _shard(options)
    samples = _samples(options)
    taken = _asked(shard.of(samples), options)
    if not taken:
        raise InputError(f"there are only {len(samples)} samples, so part {shard.number} of {shard.count} has none.")
    common.warn_if_unknown_to_nano(options, Path(samples[0].image))
    agent = common.agent_of(options)
    with shards.part(output, shard) if shard.count > 1 else nullcontext(output / WHOLE) as part:
        trajectories = agent.ask_many(taken, output=part, concurrency=options.concurrency)
    if shard.count > 1:
        every = [episode.key for episode in _asked(samples, options)]
        trajectories = shards.sum_up(output, shard, lambda found: _write_whole(found, every, output))
        if left := len(every) - len(trajectories):
            print(f"{part}: done. {left} questions are left, of other shards.")
            return 0
    score, judge = _score(options, trajectories, output)
    tables = {"by_zooms_needed": _zooms_needed(agent)}
    summary = summarise(trajectories, score, tables) | common.origin(options, trajectories[0]) | judge
    write_atomic(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _print(summary, output)
    return 0


def _zooms_needed(agent: Agent) -> Callable[[Trajectory], str]:
    """The row of a trajectory in the table by zooms needed: what the oracle takes with the same settings."""
    settings = replace(agent.environment.settings, max_zooms=NEEDED_BUDGET, crop="real")
    environment = agent.environment.with_settings(settings)

    def row(trajectory: Trajectory) -> str:
        needed = zooms_needed_by(trajectory, environment)
        return UNKNOWN if needed is None else str(needed)

    return row


def _score(
    options: argparse.Namespace, trajectories: Sequence[Trajectory], output: Path
) -> tuple[Score, dict[str, Any]]:
    """How answers are scored: by the rule of their benchmark, or by the judge that is named, and what is told of it."""
    if options.scoring is not None:
        return load_function(options.scoring, "scoring rule"), {"scoring": options.scoring}
    if options.judge is None:
        return scoring.score, {}
    policy = load(options.judge, base_url=options.judge_base_url)
    judge = Judge(policy, cache=output / "judge" / "verdicts.jsonl")
    verdicts = dict(zip((t.key for t in trajectories), judge.verdicts(trajectories), strict=True))

    def score(trajectory: Trajectory) -> float | None:
        verdict = verdicts[trajectory.key]
        return None if verdict is None else float(verdict)

    return score, {"judge": {"name": policy.name, "without_verdict": judge.failures}}


def _shard(options: argparse.Namespace) -> Shard:
    """The part of this process: what --shard says, or its place among those that a launcher has started."""
    if options.shard is not None:
        return shards.parse(options.shard)
    if (shard := shards.launched()).count > 1 and not common.is_served(options):
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return shard


def _write_whole(found: dict[Key, Trajectory], every: Sequence[Key], output: Path) -> list[Trajectory]:
    """Those that were found of every question, in their order; written if none is missing."""
    trajectories = [found[key] for key in every if key in found]
    if len(trajectories) == len(every):
        write_atomic(output / WHOLE, "".join(to_json(trajectory) + "\n" for trajectory in trajectories))
    return trajectories


def _samples(options: argparse.Namespace) -> list[Sample]:
    if options.benchmark is None and options.data is None:
        raise InputError("say what to measure on: --data DIR, or --benchmark NAME.")
    if options.runs > 1 and options.seed is None:
        raise InputError("--runs needs --seed N, at which answers are drawn; greedy ones would be the same each time.")
    if options.benchmark is None:
        samples = read_samples(options.data, limit=options.limit)
    else:
        samples = registry.load(options.benchmark, options.data, limit=options.limit)
    return samples if options.shuffle_options is None else shuffled(samples, options.shuffle_options)


def _asked(samples: Sequence[Sample], options: argparse.Namespace) -> list[Episode]:
    """The questions of these samples: each at each resolution, as often as there are runs."""
    resolutions = common.resolutions(options.resolutions) if options.resolutions else ()
    return episodes(samples, resolutions=resolutions, plays=options.runs, shuffle_seed=options.shuffle_options)


def _print(summary: dict[str, Any], output: Path) -> None:
    table = Table(title=f"{summary['policy']}, {summary['strategy']}, on {summary['n']} samples", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    table.add_row("all", *cells(summary))
    for name in ("by_play", "by_category", "by_resolution", "by_zooms_needed"):
        table.add_section()
        for row, figures in summary.get(name, {}).items():
            table.add_row(f"{name.removeprefix('by_').replace('_', ' ')} {row}", *cells(figures))
    console = common.console()
    console.print(table)
    if plays := summary.get("plays"):
        console.print(f"accuracy over plays: mean {plays['mean_accuracy']:.3f}, deviation {plays['sd_accuracy']:.3f}")
    console.print("stop reasons:", ", ".join(f"{name} {n}" for name, n in summary["stop_reasons"].items()))
    console.print(f"written: {output / 'summary.json'}, {output / WHOLE}", soft_wrap=True)
