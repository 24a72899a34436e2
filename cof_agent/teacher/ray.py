"""Runs the teacher as a stage of Ray Data over a cluster: `cof collect ... --ray WORKERS`.

Each worker holds the models of the roles and searches for a batch of samples at once. The driver holds no model; it
appends to the shard's file as results come in, so that the same command goes on after an interruption.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cof_agent.data import shards
from cof_agent.data.shards import Shard
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.output.origin import check_origin
from cof_agent.policy import PolicyRefusal
from cof_agent.rollout import Refusals
from cof_agent.teacher import collect
from cof_agent.teacher import graph as teacher
from cof_agent.teacher.graph import Search
from cof_agent.trajectory import JsonlAppender, StopReason, Trajectory, from_json, read_jsonl, to_json

Build = Callable[[], Search]
"""Makes the search on a worker; it must survive pickling."""


def collect_on_ray(
    wanted: Sequence[Episode],
    build: Build,
    output: Path,
    *,
    workers: int,
    concurrency: int = 8,
    gpus: float = 0.0,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """As `collect.collect`, on `workers` processes of the cluster that Ray is connected to, or a local one.

    concurrency: samples under way at once on each worker. gpus: of each worker.

    Raises:
        InputError: if the package ray is missing, `output` holds what was collected in another way, or a policy refuses how it
            is used, as in `rollout.play_all`.
    """
    try:
        import ray
    except ImportError:
        raise InputError(f"--ray needs another package: {how_to_install('ray')}.") from None
    shard = shard or Shard()
    shards.check(output, shard)
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    describe = ray.remote(num_gpus=gpus)(lambda: collect.description(build(), wanted))
    made_with = ray.get(describe.remote())
    check_origin(output / collect.ORIGIN, made_with)
    refused = collect.refused_unseen(wanted)
    with collect.writing_results(wanted, output, shard, made_with) as (path, summary):
        done = {t.sample.id for t in _earlier(path) if t.stop is not StopReason.ERROR}
        todo = [
            {"episode": to_json(episode)}
            for episode in shard.of(wanted)
            if episode.sample.id not in refused | dict.fromkeys(done)
        ]
        if todo:
            found = ray.data.from_items(todo).map_batches(
                _Worker, fn_constructor_args=(build,), batch_size=concurrency, concurrency=workers, num_gpus=gpus
            )
            refusals = Refusals(len(todo), path)
            with JsonlAppender(path) as appender:
                for row in found.iter_rows():
                    trajectory = from_json(row["trajectory"], Trajectory)
                    appender.append(trajectory)
                    refusals.count(trajectory, row["refusal"] or None)
    return summary


def _earlier(path: Path) -> list[Trajectory]:
    return list(read_jsonl(path, Trajectory)) if path.exists() else []


class _Worker:
    """One process of the stage."""

    def __init__(self, build: Build) -> None:
        self.search = build()
        self.environment = ZoomEnvironment(self.search.settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        wanted = [from_json(line, Episode) for line in batch["episode"]]
        found = asyncio.run(self._all(wanted))
        return {
            "trajectory": [to_json(trajectory) for trajectory, _ in found],
            "refusal": [refusal for _, refusal in found],
        }

    async def _all(self, wanted: Sequence[Episode]) -> list[tuple[Trajectory, str]]:
        return await asyncio.gather(*map(self._one, wanted))

    async def _one(self, episode: Episode) -> tuple[Trajectory, str]:
        """The record, and the sentence of a policy that refuses how it is used, empty without one."""
        try:
            return await teacher.run(episode, self.search, self.environment), ""
        except PolicyRefusal as refused:
            if refused.trajectory is None:
                raise
            return refused.trajectory, str(refused)
