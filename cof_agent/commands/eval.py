"""`cof eval --data DIR -o OUT`: accuracy with its interval, pointing, zooms and tokens of a model on samples."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cof_agent import scoring
from cof_agent.backends.load import named_policy, split_spec
from cof_agent.commands import common
from cof_agent.data import shards
from cof_agent.data.benchmarks.choices import shuffled
from cof_agent.data.benchmarks.registry import load
from cof_agent.data.samples import at_each_resolution, read_samples
from cof_agent.data.shards import Shard
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.evaluation.difficulty import plays_of
from cof_agent.evaluation.judge import Judge
from cof_agent.evaluation.metrics import HEADINGS, Score, cells, summarise
from cof_agent.rollout import rollout
from cof_agent.strategies import registry as strategies
from cof_agent.trajectory import Sample, Trajectory, read_jsonl, to_json, write_atomic

NEEDED_BUDGET = 6  # zooms the oracle may take when it says how many a sample needs, whatever the run allows
WHOLE = "trajectories.jsonl"


def run(options: argparse.Namespace) -> int:
    prompt, output, shard = common.system_prompt(options), Path(options.output), _shard(options)
    samples = _samples(options)
    taken = _asked(shard.of(samples), options)
    if not taken:
        raise InputError(f"there are only {len(samples)} samples, so part {shard.number} of {shard.count} has none.")
    policy = common.policy(options)
    common.warn_if_unknown_to_nano(options, Path(samples[0].image))
    way = strategies.by_name(options.strategy)(policy, common.settings(options, policy))
    part = output / (f"shard-{shard.name}.jsonl" if shard.count > 1 else WHOLE)
    trajectories = asyncio.run(
        rollout(
            taken,
            way.policy,
            ZoomEnvironment(way.settings),
            output=part,
            concurrency=options.concurrency,
            sampling=common.sampling(options),
            prompt=prompt,
            resolutions=bool(options.resolutions),
            graph=way.graph,
        )
    )
    if shard.count > 1:
        every = [sample.id for sample in _asked(samples, options)]
        found = _of_all_shards(output, shard)
        if left := sum(id not in found for id in every):
            print(f"{part}: done. {left} questions are left, of other shards.")
            return 0
        trajectories = [found[id] for id in every]
        write_atomic(output / WHOLE, "".join(to_json(trajectory) + "\n" for trajectory in trajectories))
    needed_by = ZoomEnvironment(replace(way.settings, max_zooms=NEEDED_BUDGET, crop="real"))
    score, judge = _score(options, trajectories, output)
    summary = summarise(trajectories, needed_by, score) | common.origin(options, trajectories[0]) | judge
    write_atomic(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _print(summary, output)
    return 0


def _score(
    options: argparse.Namespace, trajectories: Sequence[Trajectory], output: Path
) -> tuple[Score, dict[str, Any]]:
    """How answers are scored: by the rule of their benchmark, or by the judge that is named, and what is told of it."""
    if options.judge is None:
        return scoring.score, {}
    provider, model = split_spec(options.judge)
    policy = named_policy(model, provider=provider, base_url=options.judge_base_url)
    judge = Judge(policy, cache=output / "judge" / "verdicts.jsonl")
    verdicts = dict(zip((t.sample.id for t in trajectories), judge.verdicts(trajectories), strict=True))

    def score(trajectory: Trajectory) -> float | None:
        verdict = verdicts[trajectory.sample.id]
        return None if verdict is None else float(verdict)

    return score, {"judge": {"name": policy.name, "without_verdict": judge.failures}}


def _shard(options: argparse.Namespace) -> Shard:
    """The part of this process: what --shard says, or its place among those that a launcher has started."""
    if options.shard is not None:
        return shards.parse(options.shard)
    if (shard := shards.launched()).count > 1 and not (options.provider or options.base_url):
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return shard


def _of_all_shards(output: Path, shard: Shard) -> dict[str, Trajectory]:
    """What there is of all the parts so far, by sample."""
    files = [output / f"shard-{Shard(number, shard.count).name}.jsonl" for number in range(1, shard.count + 1)]
    found = [trajectory for file in files if file.exists() for trajectory in read_jsonl(file, Trajectory)]
    return {trajectory.sample.id: trajectory for trajectory in found}


def _samples(options: argparse.Namespace) -> list[Sample]:
    if options.benchmark is None and options.data is None:
        raise InputError("say what to measure on: --data DIR, or --benchmark NAME.")
    if options.runs > 1 and options.seed is None:
        raise InputError("--runs needs --seed N, at which answers are drawn; greedy ones would be the same each time.")
    if options.benchmark is None:
        samples = read_samples(options.data, limit=options.limit)
    else:
        samples = load(options.benchmark, options.data, limit=options.limit)
    return samples if options.shuffle_options is None else shuffled(samples, options.shuffle_options)


def _asked(samples: Sequence[Sample], options: argparse.Namespace) -> list[Sample]:
    """The questions of these samples: each at each resolution, as often as there are runs."""
    asked = list(samples)
    if options.resolutions:
        asked = at_each_resolution(asked, common.resolutions(options.resolutions))
    return plays_of(asked, options.runs) if options.runs > 1 else asked


def _print(summary: dict[str, Any], output: Path) -> None:
    table = Table(title=f"{summary['policy']} on {summary['n']} samples", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    table.add_row("all", *cells(summary))
    for name in ("by_run", "by_category", "by_resolution", "by_zooms_needed"):
        table.add_section()
        for row, figures in summary.get(name, {}).items():
            table.add_row(f"{name.removeprefix('by_').replace('_', ' ')} {row}", *cells(figures))
    console = common.console()
    console.print(table)
    if runs := summary.get("runs"):
        console.print(f"accuracy over runs: mean {runs['mean_accuracy']:.3f}, deviation {runs['sd_accuracy']:.3f}")
    console.print("stop reasons:", ", ".join(f"{name} {n}" for name, n in summary["stop_reasons"].items()))
    console.print(f"written: {output / 'summary.json'}, {output / WHOLE}", soft_wrap=True)
