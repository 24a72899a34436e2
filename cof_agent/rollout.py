"""Runs the agent on many samples at once, into a JSONL file that the same command completes after an interruption."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cof_agent.data.samples import RESOLUTION
from cof_agent.errors import InputError
from cof_agent.policy import GREEDY, Policy, Sampling
from cof_agent.trajectory import JsonlAppender, Sample, StopReason, Trajectory, read_jsonl, to_json, write_atomic

if TYPE_CHECKING:
    from cof_agent.environment import ZoomEnvironment
    from cof_agent.graphs.steps import Graph

Done = Callable[[Trajectory], None]
Item = TypeVar("Item")


async def rollout(
    samples: Iterable[Sample],
    policy: Policy,
    environment: ZoomEnvironment,
    *,
    output: str | Path | None = None,
    concurrency: int = 8,
    sampling: Sampling = GREEDY,
    prompt: str | None = None,
    timeout: float = 600.0,
    retry_errors: bool = False,
    progress: bool = True,
    on_done: Done | None = None,
    resolutions: bool = False,
    graph: Graph | None = None,
) -> list[Trajectory]:
    """One trajectory for each sample, in the order of the samples, of the zoom agent or another graph; see `collect` and
    `Graph.run`. resolutions: each sample is taken at its own (`samples.at_resolutions`).

    Raises:
        InputError: as `collect` does, and where `output` was made by another policy or with other settings.
    """
    from cof_agent.graphs.focus import FOCUS
    from cof_agent.graphs.steps import Context

    play = graph or FOCUS

    def shown_to(sample: Sample) -> ZoomEnvironment:
        return environment.at(sample, sample.metadata[RESOLUTION]) if resolutions else environment

    def made_with(sample: Sample) -> dict[str, Any]:
        return play.made_with(Context(policy, shown_to(sample), sampling, prompt, timeout))

    async def one(sample: Sample) -> Trajectory:
        return await play.run(sample, policy, shown_to(sample), sampling=sampling, prompt=prompt, timeout=timeout)

    return await collect(
        samples,
        one,
        output=output,
        concurrency=concurrency,
        made_with=made_with,
        retry_errors=retry_errors,
        progress=progress,
        on_done=on_done,
    )


async def collect(
    samples: Iterable[Sample],
    one: Callable[[Sample], Awaitable[Trajectory]],
    *,
    output: str | Path | None = None,
    concurrency: int = 8,
    made_with: Callable[[Sample], Mapping[str, Any]] = lambda sample: {},
    retry_errors: bool = False,
    progress: bool = True,
    on_done: Done | None = None,
) -> list[Trajectory]:
    """Runs `one` on each sample, at most `concurrency` at a time; returns the trajectories in the order of the samples.

    output: each trajectory is appended as soon as it is there; samples whose trajectory is there already are not run
    again (those that ended in an error are, with `retry_errors`). Once all are there, the file is put in the order of
    the samples, so that it does not depend on concurrency or interruptions. made_with: fields of `Trajectory` that
    that of a sample must have if it is already there. progress: a bar on stderr. on_done: called for each new trajectory.

    What `one` records on its trajectory stops nobody; what it raises stops everything, with the rest kept.

    Raises:
        InputError: if two samples share an id, or `output` holds something else than earlier trajectories of these.
    """
    wanted = by_id(samples)
    path = Path(output) if output is not None else None
    done = _earlier(path, wanted, made_with) if path is not None else {}
    todo = [sample for id, sample in wanted.items() if not _settled(done.get(id), retry_errors)]
    with JsonlAppender(path) if path is not None else nullcontext() as appender, _bar(progress, todo) as advance:

        async def finish(sample: Sample) -> None:
            trajectory = await one(sample)
            if appender is not None:
                appender.append(trajectory)
            done[sample.id] = trajectory
            advance()
            if on_done is not None:
                on_done(trajectory)

        try:
            await each(todo, finish, concurrency)
        except asyncio.CancelledError:
            if path is not None:
                kept = sum(id in done for id in wanted)
                print(
                    f"interrupted: {kept} of {len(wanted)} trajectories are kept in {path}; "
                    "the same command goes on from there.",
                    file=sys.stderr,
                )
            raise
    if path is not None:
        _put_in_order(path, wanted, done)
    return [done[id] for id in wanted]


def by_id(samples: Iterable[Sample]) -> dict[str, Sample]:
    """The samples by their ids, in their order.

    Raises:
        InputError: if two have the same.
    """
    wanted: dict[str, Sample] = {}
    for sample in samples:
        if sample.id in wanted:
            raise InputError(f"two samples have the id {sample.id!r}; ids must differ.")
        wanted[sample.id] = sample
    return wanted


def _earlier(
    path: Path, wanted: Mapping[str, Sample], made_with: Callable[[Sample], Mapping[str, Any]]
) -> dict[str, Trajectory]:
    """The trajectories of an interrupted run, by sample; of several for one sample, the last."""
    if not path.exists():
        return {}
    earlier = {trajectory.sample.id: trajectory for trajectory in read_jsonl(path, Trajectory)}
    for id, trajectory in earlier.items():
        if id in wanted and trajectory.sample != wanted[id]:
            raise InputError(f"{path} holds a trajectory of another sample {id!r}; use another output.")
        fields = made_with(trajectory.sample).items()
        different = [name for name, value in fields if getattr(trajectory, name) != value]
        if different:
            raise InputError(f"{path} holds trajectories of another run ({different[0]} differs); use another output.")
    return earlier


def _settled(trajectory: Trajectory | None, retry_errors: bool) -> bool:
    return trajectory is not None and not (retry_errors and trajectory.stop is StopReason.ERROR)


async def each(items: Sequence[Item], run: Callable[[Item], Awaitable[None]], concurrency: int) -> None:
    """`run` on all items, started in order, so many at once; the first error stops the others and is raised."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await run(item)

    workers = [asyncio.create_task(work()) for _ in range(min(max(1, concurrency), len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _put_in_order(path: Path, wanted: Mapping[str, Sample], done: Mapping[str, Trajectory]) -> None:
    """Samples' order first; what else an earlier, larger run left there stays behind it."""
    ids = [*wanted, *(id for id in done if id not in wanted)]
    lines = "".join(to_json(done[id]) + "\n" for id in ids)
    if path.read_bytes() != lines.encode():
        write_atomic(path, lines)


@contextmanager
def _bar(shown: bool, todo: Sequence[Sample]) -> Iterator[Callable[[], None]]:
    if not shown or not todo:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("trajectories"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(todo))
        yield lambda: bar.advance(task)
