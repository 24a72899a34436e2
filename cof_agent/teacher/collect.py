"""Runs the teacher over many samples: what is kept, what is refused and why, resumable and in shards.

`trajectories.jsonl` (kept) and `rejected.jsonl` are made from what all shards have (`data.shards`), in the order of the
samples, at the end of each run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from cof_agent import rollout
from cof_agent.data import shards
from cof_agent.data.shards import Shard
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode, digest
from cof_agent.output.files import write_atomic, write_json
from cof_agent.output.origin import check_origin
from cof_agent.protocol import PROTOCOL_VERSION
from cof_agent.protocol.dialects import recorded
from cof_agent.scoring.rules import BOX_RULES
from cof_agent.teacher import graph as teacher
from cof_agent.teacher.accept import Refusal
from cof_agent.teacher.graph import Search
from cof_agent.trajectory import Key, StopReason, Trajectory, failures, to_json

ORIGIN = "collect.json"
"""Holds what a result depends on."""


async def collect(
    wanted: Sequence[Episode],
    search: Search,
    output: Path,
    *,
    concurrency: int = 8,
    shard: Shard | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Collects from samples, each at one resolution (`episodes.drawn`); returns the summary, which is also written.

    Raises:
        InputError: if `output` holds what was collected in another way, or a policy refuses how it is used.
    """
    shard = shard or Shard()
    made_with = description(search, wanted)
    shards.check(output, shard)
    check_origin(output / ORIGIN, made_with)
    environment = ZoomEnvironment(search.settings)
    refused = refused_unseen(wanted)
    todo = [episode for episode in shard.of(wanted) if episode.sample.id not in refused]

    async def one(episode: Episode) -> Trajectory:
        return await teacher.run(episode, search, environment)

    with writing_results(wanted, output, shard, made_with) as (path, summary):
        await rollout.play_all(
            todo,
            one,
            output=path,
            concurrency=concurrency,
            made_with=lambda episode: {
                "policy": search.cast.name,
                "protocol_version": PROTOCOL_VERSION,
                "dialect": search.dialect.name,
            },
            retry_errors=True,
            progress=progress,
        )
    return summary


def description(search: Search, wanted: Sequence[Episode]) -> dict[str, Any]:
    """What a result depends on, as JSON values."""
    return {
        "roles": search.cast.name,
        "models": search.models,
        "settings": {**search.settings.to_dict(), **recorded(search.dialect)},
        "glances": search.glances,
        "attempts": search.attempts,
        "seed": search.seed,
        "resolutions": sorted({episode.resolution for episode in wanted if episode.resolution is not None}),
        "samples": len(wanted),
        "questions": digest(wanted),
        "protocol_version": PROTOCOL_VERSION,
    }


def refused_unseen(wanted: Sequence[Episode]) -> dict[str, tuple[Refusal, str]]:
    """Samples that need not be looked at, by id: without a known answer, or with one that no teacher can write, or asked before
    about the same picture."""
    first: dict[tuple[Any, ...], str] = {}
    refused = {}
    for sample in (episode.sample for episode in wanted):
        words = " ".join(sample.question.split()).rstrip(" ?.!")
        key = (
            str(Path(sample.image).absolute()),
            words[:1].lower() + words[1:],
            frozenset(sample.choices),
            sample.regions,
        )
        if not sample.answers:
            refused[sample.id] = Refusal.NO_TRUTH, "it has no known answer"
        elif sample.metadata.get("scoring") in BOX_RULES:
            refused[sample.id] = (
                Refusal.BOX,
                "its answer is a box in source pixels, and a student knows shown pixels only",
            )
        elif first.setdefault(key, sample.id) != sample.id:
            refused[sample.id] = Refusal.DUPLICATE, f"the same question on the same picture as {first[key]}"
    return refused


@contextmanager
def writing_results(
    wanted: Sequence[Episode], output: Path, shard: Shard, made_with: dict[str, Any]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The file to which this shard appends, and the summary of all shards, which is filled in when the block ends, by an
    interrupt too."""
    summary: dict[str, Any] = {}
    try:
        with shards.part(output, shard) as path:
            yield path, summary
    finally:
        summary |= shards.sum_up(output, shard, lambda found: _write_results(wanted, found, output, made_with))


def _write_results(
    wanted: Sequence[Episode], played: dict[Key, Trajectory], output: Path, made_with: dict[str, Any]
) -> dict[str, Any]:
    """`trajectories.jsonl`, `rejected.jsonl` and `summary.json`."""
    found = dict(played)
    by_id = {episode.sample.id: episode for episode in wanted}
    for id, (reason, sentence) in refused_unseen(wanted).items():
        refused, error = by_id[id], f"{reason.value}: {sentence}"
        found[refused.key] = Trajectory(
            refused.sample, None, (), StopReason.ERROR, error=error, resolution=refused.resolution
        )
    done = [found[episode.key] for episode in wanted if episode.key in found]
    kept = [trajectory for trajectory in done if trajectory.error is None]
    rejected = [trajectory for trajectory in done if trajectory.error is not None]
    for name, some in (("trajectories.jsonl", kept), ("rejected.jsonl", rejected)):
        write_atomic(output / name, "".join(to_json(trajectory) + "\n" for trajectory in some))
    summary = summarise(kept, rejected, left=len(wanted) - len(done)) | {"made_with": made_with}
    write_json(output / "summary.json", summary)
    return summary


def summarise(kept: Sequence[Trajectory], rejected: Sequence[Trajectory], *, left: int = 0) -> dict[str, Any]:
    """Yield, zooms by resolution, what the policies were asked, and rejections by reason. `left`: not looked at yet."""
    total = len(kept) + len(rejected)
    spent = [trajectory.settings["teacher"] for trajectory in (*kept, *rejected) if "teacher" in trajectory.settings]
    cost = {name: sum(one[name] for one in spent) for name in ("calls", "prompt_tokens", "completion_tokens")}
    by_resolution: dict[int, list[Trajectory]] = {}
    for trajectory in (*kept, *rejected):
        by_resolution.setdefault(trajectory.resolution or 0, []).append(trajectory)
    return {
        "n": total,
        "left": left,
        "kept": len(kept),
        "yield": round(len(kept) / total, 4) if total else None,
        "mean_zooms": _mean_zooms(kept),
        "zooms": {str(zooms): n for zooms, n in sorted(Counter(trajectory.zooms for trajectory in kept).items())},
        "by_resolution": {
            str(long_side): _row([one for one in some if one.error is None], len(some))
            for long_side, some in sorted(by_resolution.items())
        },
        "cost": cost,
        "cost_per_kept": {name: round(value / len(kept), 2) if kept else None for name, value in cost.items()},
        "errors": failures(one for one in rejected if one.failure),
        "rejections": dict(Counter((one.error or "").partition(":")[0] for one in rejected).most_common()),
    }


def _row(kept: Sequence[Trajectory], n: int) -> dict[str, Any]:
    return {"n": n, "kept": len(kept), "yield": round(len(kept) / n, 4), "mean_zooms": _mean_zooms(kept)}


def _mean_zooms(trajectories: Sequence[Trajectory]) -> float | None:
    return round(fmean(trajectory.zooms for trajectory in trajectories), 4) if trajectories else None
