"""`cof collect SAMPLES -o DIR`: questions with known answers become verified zoom trajectories."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from cof_agent.agent import load_policy
from cof_agent.backends.load import split_spec
from cof_agent.commands import common
from cof_agent.config import AgentConfig
from cof_agent.data import shards
from cof_agent.data.export import EXPORTS
from cof_agent.episodes import drawn
from cof_agent.nano import NANO
from cof_agent.policy import Policy
from cof_agent.teacher import collect
from cof_agent.teacher.graph import Search
from cof_agent.teacher.prompted import (
    DESCRIBE,
    AskedLocator,
    AskedPlanner,
    AskedSummariser,
    AskedVerifier,
    PolicyDescriber,
)
from cof_agent.teacher.ray import collect_on_ray
from cof_agent.teacher.roles import Cast, Locator
from cof_agent.teacher.rules import BOXES, RULES, AnnotatedBoxes, RulePlanner, RuleSummariser, RuleVerifier
from cof_agent.trajectory import Trajectory, read_jsonl

DETECTOR = "detector:"


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    wanted = drawn(common.samples(options, output), common.resolutions(options.resolutions), options.seed or 0)
    shard, concurrency = shards.parse(options.shard), options.concurrency
    if options.ray:
        build = partial(search_of, options)
        summary = collect_on_ray(
            wanted, build, output, workers=options.ray, concurrency=concurrency, gpus=options.gpus, shard=shard
        )
    else:
        search = search_of(options)
        summary = asyncio.run(collect.collect(wanted, search, output, concurrency=concurrency, shard=shard))
    _print(summary, output)
    console = Console(stderr=True)
    if options.export and summary["left"]:
        print("not exported: some samples are left; the run that completes them exports all.")
        return 0
    for name in options.export:
        kept = read_jsonl(output / "trajectories.jsonl", Trajectory)
        shown = track(kept, f"Exporting {name}", summary["kept"], console=console, disable=not console.is_terminal)
        print(EXPORTS[name](shown, output))
    return 0


def search_of(options: argparse.Namespace) -> Search:
    """The search that the options describe, its models loaded.

    Raises:
        InputError: if a model cannot be loaded or reached as described.
    """
    cast, describer = _cast(options)
    settings = common.config_of(options).settings(describer)
    return Search(cast, settings, options.glances, options.attempts, options.seed or 0, options.timeout)


def _cast(options: argparse.Namespace) -> tuple[Cast, Policy]:
    @cache
    def policy(spec: str) -> Policy:
        served = split_spec(spec)[0] is not None
        config = AgentConfig(
            model=spec,
            base_url=options.base_url if served else None,
            coordinates=options.coordinates if served else None,
            overview_pixels=options.overview_pixels,
            zoom_pixels=options.zoom_pixels,
        )
        return load_policy(config)

    def player(role: str, default: str) -> str:
        return getattr(options, role) or options.teacher or default

    planner, locator, describer, verifier, summariser = (
        player(role, default)
        for role, default in (
            ("planner", RULES),
            ("locator", BOXES),
            ("describer", NANO),
            ("verifier", RULES),
            ("summariser", RULES),
        )
    )
    cast = Cast(
        RulePlanner() if planner == RULES else AskedPlanner(policy(planner)),
        _locator(locator, policy),
        PolicyDescriber(policy(describer), prompt=None if describer == NANO else DESCRIBE),
        RuleVerifier() if verifier == RULES else AskedVerifier(policy(verifier)),
        RuleSummariser() if summariser == RULES else AskedSummariser(policy(summariser)),
    )
    return cast, policy(describer)


def _locator(spec: str, policy: Callable[[str], Policy]) -> Locator:
    if spec == BOXES:
        return AnnotatedBoxes()
    if spec.startswith(DETECTOR):
        from cof_agent.teacher.detector import DetectorLocator

        return DetectorLocator(spec.removeprefix(DETECTOR))
    return AskedLocator(policy(spec))


def _print(summary: dict[str, Any], output: Path) -> None:
    console = common.console()
    table = Table(title=f"{summary['kept']} of {summary['n']} samples became trajectories", title_justify="left")
    for heading in ("resolution", "n", "kept", "yield", "zooms"):
        table.add_column(heading, justify="right")
    rows = {**summary["by_resolution"], "all": summary}
    for name, row in rows.items():
        zooms = "-" if row["mean_zooms"] is None else f"{row['mean_zooms']:.2f}"
        share = "-" if row["yield"] is None else f"{row['yield']:.3f}"
        table.add_row(name, str(row["n"]), str(row["kept"]), share, zooms)
    console.print(table)
    cost = summary["cost_per_kept"]
    if summary["kept"]:
        console.print(
            f"per kept trajectory: {cost['calls']} calls, {cost['prompt_tokens']} tokens in, "
            f"{cost['completion_tokens']} out"
        )
    for reason, count in summary["rejections"].items():
        console.print(f"rejected, {reason}: {count}")
    if summary["left"]:
        console.print(f"{summary['left']} samples are left, of other shards or of a run that was interrupted.")
    console.print(f"written: {output / 'trajectories.jsonl'}, {output / 'rejected.jsonl'}", soft_wrap=True)
