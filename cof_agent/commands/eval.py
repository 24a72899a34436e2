"""`cof eval --data DIR -o OUT`: accuracy with its interval, pointing, zooms and tokens of a model on samples."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cof_agent import strategies
from cof_agent.benchmarks.choices import shuffled
from cof_agent.benchmarks.table import load
from cof_agent.commands import common
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.evaluate import summarise
from cof_agent.rollout import rollout
from cof_agent.samples import at_each_resolution, read_samples
from cof_agent.trajectory import Sample, write_atomic

NEEDED_BUDGET = 6  # zooms the oracle may take when it says how many a sample needs, whatever the run allows
SCORED = ("choice", "exact", "yes_no")  # rules of benchmarks that `scoring.accuracy` is


def run(options: argparse.Namespace) -> int:
    prompt, output = common.system_prompt(options), Path(options.output)
    samples = _samples(options)
    policy = common.policy(options)
    common.warn_if_unknown_to_nano(options, Path(samples[0].image))
    policy, settings = strategies.by_name(options.strategy)(policy, common.settings(options, policy))
    trajectories = asyncio.run(
        rollout(
            samples,
            policy,
            ZoomEnvironment(settings),
            output=output / "trajectories.jsonl",
            concurrency=options.concurrency,
            sampling=common.sampling(options),
            prompt=prompt,
            resolutions=bool(options.resolutions),
        )
    )
    judged_by = ZoomEnvironment(replace(settings, max_zooms=NEEDED_BUDGET, crop="real"))
    summary = summarise(trajectories, judged_by) | common.origin(options, trajectories[0])
    write_atomic(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _print(summary, output)
    return 0


def _samples(options: argparse.Namespace) -> list[Sample]:
    if options.benchmark is None and options.data is None:
        raise InputError("say what to measure on: --data DIR, or --benchmark NAME.")
    if options.benchmark is None:
        samples = read_samples(options.data, limit=options.limit)
    else:
        samples = load(options.benchmark, options.data, limit=options.limit)
        if (rule := samples[0].metadata["scoring"]) not in SCORED:
            raise InputError(f"{options.benchmark} is scored by the rule {rule}, which cof eval does not have yet.")
    if options.shuffle_options is not None:
        samples = shuffled(samples, options.shuffle_options)
    return at_each_resolution(samples, common.resolutions(options.resolutions)) if options.resolutions else samples


def _print(summary: dict[str, Any], output: Path) -> None:
    table = Table(title=f"{summary['policy']} on {summary['n']} samples", title_justify="left")
    for heading in ("", "n", "accuracy", "95 %", "hits", "zooms", "tokens in", "out", "malformed"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    _row(table, "all", summary)
    for name in ("by_category", "by_resolution", "by_zooms_needed"):
        table.add_section()
        for row, figures in summary[name].items():
            _row(table, f"{name.removeprefix('by_').replace('_', ' ')} {row}", figures)
    console = common.console()
    console.print(table)
    console.print("stop reasons:", ", ".join(f"{name} {n}" for name, n in summary["stop_reasons"].items()))
    console.print(f"written: {output / 'summary.json'}, {output / 'trajectories.jsonl'}", soft_wrap=True)


def _row(table: Table, name: str, figures: dict[str, Any]) -> None:
    interval = figures["accuracy_ci95"]
    table.add_row(
        name,
        str(figures["n"]),
        _figure(figures["accuracy"], 3),
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-",
        _figure(figures["target_hit_rate"], 3),
        _figure(figures["mean_zooms"], 2),
        _figure(figures["tokens_in"], 0),
        _figure(figures["tokens_out"], 0),
        _figure(figures["malformed_rate"], 3),
    )


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
