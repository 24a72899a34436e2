"""Runs the agent on many samples at once, into a JSONL file that the same command completes after an interruption."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from cof_agent.episodes import Episode, by_key
from cof_agent.errors import InputError
from cof_agent.graphs.steps import NOT_TAKEN, Context, Graph
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import write_atomic
from cof_agent.output.origin import differences
from cof_agent.output.progress import progress as shown
from cof_agent.policy import PolicyRefusal
from cof_agent.trajectory import JsonlAppender, Key, Sample, StopReason, Trajectory, read_jsonl, to_json

REFUSALS = 5
"""Samples in a row of which the policy refuses how it is used, that end a run; fewer are failures of these samples."""

Done = Callable[[Trajectory], None]
Item = TypeVar("Item")


def check_same_questions(wanted: Sequence[Episode], path: Path) -> None:
    """Refuses a file of other questions that lacks some of these: a run would mix both.

    Raises:
        InputError: if it holds others and lacks some of these.
    """
    if not path.exists():
        return
    keys, held = {episode.key for episode in wanted}, {one.key for one in read_jsonl(path, Trajectory)}
    if held - keys and keys - held:
        raise InputError(
            f"{path} holds {len(held - keys):,} trajectories of other questions, and lacks {len(keys - held):,} of these: "
            "use another folder."
        )


def check_same_samples(wanted: Iterable[Episode], held: Mapping[Key, Trajectory], where: str | Path) -> None:
    """Refuses trajectories of other samples under the same keys. Regions may differ: a detector adds them.

    Raises:
        InputError: if one of them asks something else.
    """
    for episode in wanted:
        if (one := held.get(episode.key)) is None:
            continue
        if field := _differs(replace(one.sample, regions=()), replace(episode.sample, regions=())):
            raise InputError(
                f"{where} holds a trajectory of another sample {one.sample.id!r}: its {field} differs; use another folder."
            )


async def rollout(
    wanted: Sequence[Episode],
    graph: Graph,
    context_of: Callable[[Episode], Context],
    *,
    output: str | Path | None = None,
    concurrency: int = 8,
    retry_errors: bool = False,
    progress: bool = True,
    on_done: Done | None = None,
) -> list[Trajectory]:
    """One trajectory for each episode, in their order; the rest as for `play_all`.

    Raises:
        InputError: as `play_all` and `Graph.run` do, and where `output` was made by another policy or with other settings.
    """

    async def one(episode: Episode) -> Trajectory:
        return await graph.run(episode.sample, context_of(episode))

    return await play_all(
        wanted,
        one,
        output=output,
        concurrency=concurrency,
        made_with=lambda episode: graph.made_with(context_of(episode)),
        retry_errors=retry_errors,
        progress=progress,
        on_done=on_done,
    )


async def play_all(
    wanted: Iterable[Episode],
    one: Callable[[Episode], Awaitable[Trajectory]],
    *,
    output: str | Path | None = None,
    concurrency: int = 8,
    made_with: Callable[[Episode], Mapping[str, Any]] = lambda episode: {},
    retry_errors: bool = False,
    progress: bool = True,
    on_done: Done | None = None,
) -> list[Trajectory]:
    """Runs `one` on each episode, at most `concurrency` at a time; returns the trajectories in the order of the episodes.

    output: each trajectory is appended as soon as it is there; episodes whose trajectory is there already are not played
    again (those that ended in an error are, with `retry_errors`). Once all are there, the file is put in the order of
    the episodes, so that it does not depend on concurrency or interruptions. made_with: fields of `Trajectory` that
    that of an episode must have if it is already there. progress: shown on stderr. on_done: called for each new trajectory.

    What `one` records on its trajectory stops nobody. A `PolicyRefusal` is kept on the trajectory that it holds, and ends the
    run where `REFUSALS` samples in a row, or all, meet one. What else `one` raises stops everything, with the rest kept.

    Raises:
        InputError: if two samples share an id, `output` holds something else than earlier trajectories of these, or the policy
            refuses how it is used.
    """
    by = by_key(wanted)
    path = Path(output) if output is not None else None
    with JsonlAppender(path) if path is not None else nullcontext() as appender:
        # Read under the lock, so that no other run adds to it meanwhile.
        done = _earlier(path, by, made_with) if path is not None else {}
        todo = [episode for key, episode in by.items() if not _settled(done.get(key), retry_errors)]
        refused, numbers = Refusals(len(todo), path), count(1)

        async def finish(episode: Episode) -> None:
            try:
                trajectory, refusal = await one(episode), None
            except PolicyRefusal as error:
                if error.trajectory is None:
                    raise
                trajectory, refusal = error.trajectory, str(error)
            if appender is not None:
                appender.append(trajectory)
            done[episode.key] = trajectory
            refused.count(trajectory, refusal)
            tell(next(numbers), len(todo))
            if on_done is not None:
                on_done(trajectory)

        try:
            with shown("trajectories", quiet=not (progress and todo)) as tell:
                await each(todo, finish, concurrency)
        except asyncio.CancelledError:
            if path is not None:
                kept = sum(key in done for key in by)
                print(
                    f"interrupted: {kept} of {len(by)} trajectories are kept in {for_terminal(path)}; "
                    "the same command goes on from there.",
                    file=sys.stderr,
                )
            raise
        if path is not None:
            _put_in_order(path, by, done)
    return [done[key] for key in by]


class Refusals:
    """Counts the samples in a row of which a policy refused how it is used, out of `samples` in all; `path` is where the
    trajectories go."""

    def __init__(self, samples: int, path: Path | None) -> None:
        self._most, self._path, self._in_a_row = min(REFUSALS, samples), path, 0

    def count(self, trajectory: Trajectory, refusal: str | None) -> None:
        """Takes note of one more sample; `refusal` is the sentence, None where there is none.

        Raises:
            InputError: if there are too many.
        """
        if refusal is None:
            if trajectory.turns or trajectory.stop is not StopReason.ERROR:  # an image that was not found says nothing
                self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= self._most:
            again = (
                f" What was done is kept in {self._path}; the same command goes on from there." if self._path else ""
            )
            raise InputError(f"{refusal}{again}")


def _earlier(
    path: Path, wanted: Mapping[Key, Episode], made_with: Callable[[Episode], Mapping[str, Any]]
) -> dict[Key, Trajectory]:
    """The trajectories of an interrupted run, by key; of several for one episode, the last."""
    if not path.exists():
        return {}
    earlier = {trajectory.key: trajectory for trajectory in read_jsonl(path, Trajectory)}
    for key, trajectory in list(earlier.items()):
        if key not in wanted:
            continue
        if field := _differs(trajectory.sample, wanted[key].sample):
            raise InputError(
                f"{path} holds a trajectory of another sample {key[0]!r}: its {field} differs; use another output."
            )
        fields = made_with(wanted[key]).items()
        before = {name: _asked_for(getattr(trajectory, name)) for name, _ in fields}
        different = {name: value for name, value in fields if before[name] != value}
        if different:
            told = differences({name: before[name] for name in different}, different)
            raise InputError(f"{path} holds trajectories of a run with other settings: {told}; use another output.")
        earlier[key] = replace(trajectory, sample=wanted[key].sample)  # whose images may lie elsewhere now
    return earlier


def _differs(earlier: Sample, now: Sample) -> str:
    """The first field that differs; empty where none does. Where the images lie does not matter, if their names are the same."""
    if earlier == now:
        return ""
    one, other = (asdict(sample.with_images(Path(path).name for path in sample.images)) for sample in (earlier, now))
    return next((name for name in one if one[name] != other[name]), "")


def _asked_for(value: Any) -> Any:
    """A field of a trajectory without what the server has made of it."""
    return {name: one for name, one in value.items() if name != NOT_TAKEN} if isinstance(value, dict) else value


def finished(wanted: Iterable[Episode], output: Path) -> list[Trajectory] | None:
    """The trajectories of a run that has nothing left to do, in the order of the episodes; None for any other.

    Whether they were made with the same settings is for the caller to know (`origin.check_origin`).

    Raises:
        InputError: if two samples share an id, or `output` holds something else than earlier trajectories of these.
    """
    by = by_key(wanted)
    done = _earlier(output, by, lambda episode: {})
    return [done[key] for key in by] if all(_settled(done.get(key), True) for key in by) else None


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


def _put_in_order(path: Path, wanted: Mapping[Key, Episode], done: Mapping[Key, Trajectory]) -> None:
    """The episodes' order first; what else an earlier, larger run left there stays behind it."""
    keys = [*wanted, *(key for key in done if key not in wanted)]
    lines = "".join(to_json(done[key]) + "\n" for key in keys)
    if path.read_bytes() != lines.encode():
        write_atomic(path, lines)
