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

from cof_agent import protocol
from cof_agent.agent import load_policy
from cof_agent.commands import common
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.graphs.steps import Context
from cof_agent.policy import Line, PolicyError, Sampling, ScriptedPolicy
from cof_agent.rollout import collect
from cof_agent.scenes import oracle
from cof_agent.strategies.spot import protocol as spot
from cof_agent.strategies.spot.graph import SPOT, settings_for
from cof_agent.strategies.spot.highlight import Highlight, draw, pointing
from cof_agent.trajectory import JsonlAppender, Sample, Trajectory, read_jsonl, to_json, write_atomic
from cof_agent.viewer.picture import fitted

if TYPE_CHECKING:
    from cof_agent.backends.local.policy import LocalPolicy

HIGHLIGHTS = "highlights.jsonl"
PICTURE = 1280  # pixels of the long side
THOUGHT = 128  # tokens: of the thought, and of what follows it and is not read


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    _check_output(output)
    samples = common.samples(options, output)
    if unknown := [sample.id for sample in samples if not sample.answers]:
        raise InputError(f"sample {unknown[0]} has no known answer, so there is nothing to find the region of.")
    policy = _local(options)
    common.warn_if_unknown_to_nano(options, Path(samples[0].image))
    spots = _Spots(policy, ZoomSettings(policy.coordinates, policy.limits, enlarge=options.enlarge), output)
    trajectories = asyncio.run(spots.annotate(samples))
    found = spots.found(trajectories)
    if options.pictures:
        for sample, highlight in found:
            spots.draw(highlight, sample)
    summary = spots.summary(trajectories, found) | common.origin(options, trajectories[0])
    write_atomic(output / "samples.jsonl", "".join(to_json(_boxed(*pair)) + "\n" for pair in found))
    write_atomic(output / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    _print(summary, output)
    return 0


def _check_output(output: Path) -> None:
    """Samples that are there already are not overwritten, least of all those that are read."""
    if (output / "samples.jsonl").exists() and not (output / HIGHLIGHTS).exists():
        raise InputError(
            f"{output / 'samples.jsonl'} holds samples that this command did not write; use another folder."
        )


def _local(options: argparse.Namespace) -> LocalPolicy:
    policy = load_policy(common.config_of(options))
    from cof_agent.backends.local.policy import LocalPolicy

    if not isinstance(policy, LocalPolicy):
        raise InputError("a served model does not tell its attention; name nano, a directory or a hub id with --model.")
    return policy


class _Spots:
    """Annotates samples into a folder, where `HIGHLIGHTS` holds a map for every trajectory there."""

    def __init__(self, policy: LocalPolicy, settings: ZoomSettings, output: Path) -> None:
        self.policy, self.output = policy, output
        self.own = ZoomEnvironment(settings)  # the conversation that the map is made of is in the model's own format
        self.environment = self.own.with_settings(settings_for(settings))

    async def annotate(self, samples: Sequence[Sample]) -> list[Trajectory]:
        """One trajectory for each sample, in their order; those that are there already are kept."""

        def made_with(episode: Episode) -> dict[str, Any]:
            return SPOT.made_with(self._context())

        with JsonlAppender(self.output / HIGHLIGHTS) as file:

            async def one(episode: Episode) -> Trajectory:
                return await self._one(episode.sample, file)

            return await collect(
                episodes(samples), one, output=self.output / "trajectories.jsonl", concurrency=1, made_with=made_with
            )

    async def _one(self, sample: Sample, file: JsonlAppender) -> Trajectory:
        try:
            overview = self.own.reset(sample)
            found = await self._highlight(sample, overview)
        except (InputError, PolicyError) as error:
            return await SPOT.run(sample, self._context(PolicyError(str(error), transient=False)))
        file.append(found)
        region = spot.write_region(overview.from_source(found.region, spot.SYSTEM))
        return await SPOT.run(sample, self._context(region, sample.answers[0]))

    def _context(self, *lines: Line) -> Context:
        """Of a run that says these lines."""
        told = ScriptedPolicy(lines, name=f"{self.policy.name}, relevance", limits=self.policy.limits)
        return Context(told, self.environment, strategy="spot")

    async def _highlight(self, sample: Sample, overview: View) -> Highlight:
        from cof_agent.strategies.spot.relevance import relevance

        image = self.own.image(sample, overview)
        opening = protocol.opening(sample, overview, system=self.policy.coordinates)
        said = await self.policy.generate(opening, [image], Sampling(max_tokens=THOUGHT))
        thought = protocol.without_tags(protocol.thought(said.text))
        # Its own thought before the true answer: without one, a model that thinks first has not looked yet.
        reply = protocol.write_answer(thought, sample.answers[0])
        found = await asyncio.to_thread(relevance, self.policy, opening, [image], reply)
        return Highlight(sample.id, overview, tuple(tuple(round(cell, 6) for cell in row) for row in found.tolist()))

    def found(self, trajectories: Sequence[Trajectory]) -> list[tuple[Sample, Highlight]]:
        """The samples that have a region, each with its map."""
        maps = {found.id: found for found in read_jsonl(self.output / HIGHLIGHTS, Highlight)}
        return [(one.sample, maps[one.sample.id]) for one in trajectories if one.zooms]

    def draw(self, found: Highlight, sample: Sample) -> None:
        """`pictures/ID.png` in the output folder."""
        whole = replace(found.overview, shown_size=fitted(found.overview.source_size, PICTURE))
        buffer = io.BytesIO()
        draw(found, sample, self.own.image(sample, whole)).save(buffer, "PNG")
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample.id)
        write_atomic(self.output / "pictures" / f"{name}.png", buffer.getvalue())

    def summary(self, trajectories: Sequence[Trajectory], found: Sequence[tuple[Sample, Highlight]]) -> dict[str, Any]:
        """Counts, and the pointing figures of the samples with true boxes; `overview`: of those whose details the overview
        shows, where that is known."""
        legible = [
            (sample, highlight)
            for sample, highlight in found
            if "looks" in sample.metadata and not oracle.zooms_needed(sample, highlight.overview, self.own)
        ]
        figures = {"all": found, "overview": legible}
        errors = [one.error for one in trajectories if one.error]
        return {
            "n": len(trajectories),
            "annotated": len(found),
            "first_error": errors[0] if errors else None,
            "pointing": {name: pointing((h, s.boxes) for s, h in pairs) for name, pairs in figures.items()},
        }


def _boxed(sample: Sample, found: Highlight) -> Sample:
    """The sample with the region, not yet extended, in place of any boxes of its own."""
    return replace(sample, image=str(Path(sample.image).resolve()), boxes=(found.region,))


def _print(summary: dict[str, Any], output: Path) -> None:
    console = common.console()
    console.print(f"{summary['annotated']} of {summary['n']} samples have a region.")
    if summary["first_error"]:
        console.print(f"the first that has none: {summary['first_error']}")
    figures = {name: row for name, row in summary["pointing"].items() if row["n"]}
    if figures:
        table = Table(title="maps against true boxes", title_justify="left")
        for heading in ("samples", "n", "peak meets a box", "image centre", "overlap", "centre crop"):
            table.add_column(heading, justify="right")
        for name, row in figures.items():
            cells = (f"{row[key]:.3f}" for key in ("hit", "centre_hit", "overlap", "centre_overlap"))
            table.add_row(name, str(row["n"]), *cells)
        console.print(table)
    console.print(f"written: {output / 'samples.jsonl'}, {output / 'trajectories.jsonl'}", soft_wrap=True)
