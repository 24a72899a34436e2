"""RL steps on 8 to 512 GPUs by the model of `scale`, with the turns of a real `trajectories.jsonl`.

For each number of GPUs: in rounds on one server of eight; at its own pace on one; on as many as train, at its own pace; and the
same with the next batch played ahead. Batches grow with the GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from random import Random

from benches.scale import Conversation, Layout, Rates, Step, Turn, step
from cof_agent.trajectory import Trajectory, read_jsonl

GPUS = (8, 16, 32, 64, 128, 256, 512)
SERVER = 8
"""GPUs of one server."""


def run(path: Path, prompts: int, group: int, rates: Rates, gpus: Sequence[int] = GPUS) -> None:
    """path: a `trajectories.jsonl`. prompts: of a step, for each GPU. group: rollouts of a prompt."""
    known = [conversation for one in read_jsonl(path, Trajectory) if (conversation := conversation_of(one))]
    if not known:
        raise SystemExit(f"{path} has no trajectory whose server told the tokens")
    print(
        f"{path}: {len(known)} conversations, {_mean(known):.1f} turns; {prompts} prompts x {group} a step for each GPU\n{rates}"
    )
    heads = ("rollouts/s", "rollout s", "update s", "engines idle", "trainers idle", "GiB sent")
    for count in gpus:
        drawn = [Random(f"{count}:{number}").choice(known) for number in range(count * prompts * group)]
        print(f"\n{f'{count} GPUs':30}" + "".join(f"{head:>15}" for head in heads))
        for name, layout in layouts(count, group).items():
            print(f"{name:30}{line_of(step(drawn, layout, rates), len(drawn))}", flush=True)


def rates_of(given: Sequence[str]) -> Rates:
    """Rates by NAME=VALUE; those that are not given are the defaults."""
    names = {field.name for field in fields(Rates)}
    found: dict[str, float] = {}
    for pair in given:
        name, _, value = pair.partition("=")
        if name not in names:
            raise SystemExit(f"there is no rate {name}; the rates are {', '.join(sorted(names))}")
        found[name] = float(value)
    return Rates(**found)


def layouts(gpus: int, group: int) -> dict[str, Layout]:
    """Who plays and who trains on so many GPUs. One server is half a machine where there is only one."""
    one, half = min(SERVER, gpus // 2), gpus // 2
    return {
        "rounds, one server": Layout(one, gpus - one, pace=False, group=group),
        "own pace, one server": Layout(one, gpus - one, pace=True, group=group),
        "own pace, half are servers": Layout(half, gpus - half, pace=True, group=group),
        "one ahead, half are servers": Layout(half, gpus - half, pace=True, ahead=True, group=group),
    }


def line_of(found: Step, rollouts: int) -> str:
    """The figures of a step, in the order of the heads."""
    parts = (rollouts / found.seconds, found.rollout, found.update, found.engines_idle, found.trainers_idle)
    return "".join(f"{part:15.2f}" for part in (*parts, found.bytes / 2**30))


def conversation_of(trajectory: Trajectory) -> Conversation | None:
    """The turns of a trajectory; None where a server did not tell the tokens of one, or there is none."""
    shown = [view.shown_size.area for view in trajectory.overviews]
    found: list[Turn] = []
    before = 0
    for turn in trajectory.turns:
        counts = turn.tokens
        if counts is None or counts.prompt is None or not counts.completion:
            return None
        found.append(Turn(counts.prompt - before, tuple(shown), counts.completion))
        before = counts.prompt + counts.completion
        shown = [one.view.shown_size.area for one in turn.observations if one.view is not None]
    return tuple(found) or None


def _mean(conversations: Sequence[Conversation]) -> float:
    return sum(map(len, conversations)) / len(conversations)
