"""`cof spots SAMPLES -o DIR`: finds the region that each known answer rests on, as Chain-of-Spot's training set is made."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cof_agent import protocol, spot
from cof_agent.commands import common
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.graphs.spot import SPOT, settings_for
from cof_agent.graphs.steps import Context
from cof_agent.highlight import Highlight, draw, pointing
from cof_agent.picture import fitted
from cof_agent.policy import Policy, Sampling, ScriptedPolicy
from cof_agent.rollout import collect
from cof_agent.scenes import oracle
from cof_agent.trajectory import JsonlAppender, Sample, Trajectory, read_jsonl, to_json, write_atomic

if TYPE_CHECKING:
    from cof_agent.backends.local import LocalPolicy

PICTURE = 1280  # pixels of the long side


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    _check_output(output)
    samples = common.samples(options, output)
    if unknown := [sample.id for sample in samples if not sample.answers]:
        raise InputError(f"sample {unknown[0]} has no known answer, so there is nothing to find the region of.")
    policy = _local(options)
    common.warn_if_unknown_to_nano(options, Path(samples[0].image))
    spots = _Spots(policy, ZoomSettings(policy.coordinates, policy.limits, enlarge=options.enlarge), output)
    trajectories = asyncio.run(spots.annotate(samples, pictures=options.pictures))
    summary = spots.summary(trajectories) | common.origin(options, trajectories[0])
    write_atomic(output / "samples.jsonl", "".join(to_json(_boxed(one)) + "\n" for one in trajectories if one.zooms))
    write_atomic(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _print(summary, output)
    return 0


def _check_output(output: Path) -> None:
    """Samples that are there already are not overwritten, least of all those that are read."""
    if (output / "samples.jsonl").exists() and not (output / "highlights.jsonl").exists():
        raise InputError(
            f"{output / 'samples.jsonl'} holds samples that this command did not write; use another folder."
        )


def _local(options: argparse.Namespace) -> LocalPolicy:
    policy = common.policy(options)
    from cof_agent.backends.local import LocalPolicy

    if not isinstance(policy, LocalPolicy):
        raise InputError("a served model does not tell its attention; name nano, a directory or a hub id with --model.")
    return policy


class _Spots:
    """Annotates samples into a folder, where `highlights.jsonl` holds a map for every trajectory there."""

    def __init__(self, policy: LocalPolicy, settings: ZoomSettings, output: Path) -> None:
        self.policy, self.output = policy, output
        self.own = ZoomEnvironment(settings)  # the conversation that the map is made of is in the model's own format
        self.environment = self.own.with_settings(settings_for(settings))

    async def annotate(self, samples: Sequence[Sample], *, pictures: bool) -> list[Trajectory]:
        """One trajectory for each sample, in their order; those that are there already are kept."""

        def made_with(sample: Sample) -> dict[str, Any]:
            return SPOT.made_with(Context(self._teller([]), self.environment))

        with JsonlAppender(self.output / "highlights.jsonl") as file:

            async def one(sample: Sample) -> Trajectory:
                return await self._one(sample, file, pictures)

            return await collect(
                samples, one, output=self.output / "trajectories.jsonl", concurrency=1, made_with=made_with
            )

    async def _one(self, sample: Sample, file: JsonlAppender, pictures: bool) -> Trajectory:
        try:
            overview = self.own.reset(sample)
            found = await self._highlight(sample, overview)
        except InputError:
            return await SPOT.run(sample, self._teller([]), self.environment)  # which records why it cannot be opened
        file.append(found)
        if pictures:
            self._draw(found, sample)
        region = spot.write_region(overview.from_source(found.region, spot.SYSTEM))
        return await SPOT.run(sample, self._teller([region, sample.answers[0]]), self.environment)

    def _teller(self, lines: list[str]) -> Policy:
        return ScriptedPolicy(lines, name=f"{self.policy.name}, relevance", limits=self.policy.limits)

    async def _highlight(self, sample: Sample, overview: View) -> Highlight:
        from cof_agent.backends.relevance import relevance

        image = self.own.image(sample, overview)
        opening = protocol.opening(sample, overview, system=self.policy.coordinates)
        said = await self.policy.generate(opening, [image], Sampling())
        thought = protocol.without_tags(protocol.thought(said.text))
        # Its own thought before the true answer: without one, a model that thinks first has not looked yet.
        reply = protocol.write_answer(thought, sample.answers[0])
        found = await asyncio.to_thread(relevance, self.policy, opening, [image], reply)
        return Highlight(sample.id, overview, tuple(tuple(round(cell, 6) for cell in row) for row in found.tolist()))

    def _draw(self, found: Highlight, sample: Sample) -> None:
        whole = replace(found.overview, shown_size=fitted(found.overview.source_size, PICTURE))
        buffer = io.BytesIO()
        draw(found, sample, self.own.image(sample, whole)).save(buffer, "PNG")
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample.id)
        write_atomic(self.output / "pictures" / f"{name}.png", buffer.getvalue())

    def summary(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """Counts, and the pointing figures of the samples with true boxes; `overview`: of those whose details the overview
        shows, where that is known."""
        maps = {found.id: found for found in read_jsonl(self.output / "highlights.jsonl", Highlight)}
        pairs = [(maps[one.sample.id], one.sample) for one in trajectories if one.sample.id in maps]
        legible = [
            (found, sample)
            for found, sample in pairs
            if "looks" in sample.metadata and not oracle.zooms_needed(sample, found.overview, self.own)
        ]
        return {
            "n": len(trajectories),
            "annotated": sum(bool(one.zooms) for one in trajectories),
            "pointing": {
                "all": pointing((found, sample.boxes) for found, sample in pairs),
                "overview": pointing((found, sample.boxes) for found, sample in legible),
            },
        }


def _boxed(trajectory: Trajectory) -> Sample:
    """The sample with the region that was cut, in place of any boxes of its own."""
    return replace(
        trajectory.sample, image=str(Path(trajectory.sample.image).resolve()), boxes=(trajectory.views[1].region,)
    )


def _print(summary: dict[str, Any], output: Path) -> None:
    console = common.console()
    console.print(f"{summary['annotated']} of {summary['n']} samples have a region.")
    figures = {name: row for name, row in summary["pointing"].items() if row["n"]}
    if figures:
        table = Table(title="maps against true boxes", title_justify="left")
        for heading in ("samples", "n", "peak in a box", "image centre", "overlap", "centre crop"):
            table.add_column(heading, justify="right")
        for name, row in figures.items():
            cells = (f"{row[key]:.3f}" for key in ("hit", "centre_hit", "overlap", "centre_overlap"))
            table.add_row(name, str(row["n"]), *cells)
        console.print(table)
    console.print(f"written: {output / 'samples.jsonl'}, {output / 'trajectories.jsonl'}", soft_wrap=True)
