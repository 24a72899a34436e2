"""Finds the region that each known answer rests on (Chain-of-Spot's training set): relevance through the language model's
attention, from the words of the answer back to the overview."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cof_agent import protocol
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode, episodes
from cof_agent.errors import InputError
from cof_agent.geometry import View
from cof_agent.graphs.steps import Context
from cof_agent.output.files import write_atomic
from cof_agent.policy import Line, PolicyError, Sampling, ScriptedPolicy
from cof_agent.rollout import play_all
from cof_agent.scenes import oracle
from cof_agent.strategies.spot import protocol as spot
from cof_agent.strategies.spot.graph import SPOT, settings_for
from cof_agent.strategies.spot.highlight import Highlight, draw, pointing
from cof_agent.strategies.spot.relevance import relevance
from cof_agent.trajectory import JsonlAppender, Sample, Trajectory, failures, read_jsonl, to_json
from cof_agent.viewer.picture import fitted

PICTURE = 1280  # pixels of the long side
THOUGHT = 128  # tokens: of the thought, and of what follows it and is not read


class Annotator:
    """Annotates samples. maps: the file that gets a map (`Highlight`) for every trajectory."""

    def __init__(self, policy: LocalPolicy, settings: ZoomSettings, maps: Path) -> None:
        self.policy, self.maps = policy, maps
        self.own = ZoomEnvironment(settings)  # the conversation that the map is made of is in the model's own format
        self.environment = self.own.with_settings(settings_for(settings))

    async def annotate(self, samples: Sequence[Sample], output: Path, *, progress: bool = True) -> list[Trajectory]:
        """One trajectory for each sample, in their order; those that are in the file `output` already are kept, but for errors
        and for those whose map cannot be read any more, which are made again."""

        def made_with(episode: Episode) -> dict[str, Any]:
            return SPOT.made_with(self._context())

        with JsonlAppender(self.maps) as file:
            self._forget_without_map(output)

            async def one(episode: Episode) -> Trajectory:
                return await self._one(episode.sample, file)

            return await play_all(
                episodes(samples),
                one,
                output=output,
                concurrency=1,
                made_with=made_with,
                retry_errors=True,
                progress=progress,
            )

    def _forget_without_map(self, output: Path) -> None:
        """Takes out the trajectories with a region whose map is not there: a line of the file may have been broken."""
        if not output.exists():
            return
        earlier, maps = list(read_jsonl(output, Trajectory)), self._maps()
        kept = [one for one in earlier if not one.zooms or one.sample.id in maps]
        if len(kept) < len(earlier):
            write_atomic(output, "".join(to_json(one) + "\n" for one in kept))

    def _maps(self) -> dict[str, Highlight]:
        """The maps that are there, by the ids of their samples."""
        return {found.id: found for found in read_jsonl(self.maps, Highlight)}

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
        maps = self._maps()
        return [(one.sample, maps[one.sample.id]) for one in trajectories if one.zooms and one.sample.id in maps]

    def draw(self, found: Highlight, sample: Sample, folder: Path) -> None:
        """Writes `ID.png` into a folder."""
        whole = replace(found.overview, shown_size=fitted(found.overview.source_size, PICTURE))
        buffer = io.BytesIO()
        draw(found, sample, self.own.image(sample, whole)).save(buffer, "PNG")
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample.id)
        write_atomic(folder / f"{name}.png", buffer.getvalue())

    def summary(self, trajectories: Sequence[Trajectory], found: Sequence[tuple[Sample, Highlight]]) -> dict[str, Any]:
        """Counts, and the pointing figures of the samples with true boxes; `overview`: of those whose details the overview
        shows, where that is known."""
        legible = [
            (sample, highlight)
            for sample, highlight in found
            if "looks" in sample.metadata and not oracle.zooms_needed(sample, highlight.overview, self.own)
        ]
        figures = {"all": found, "overview": legible}
        return {
            "n": len(trajectories),
            "annotated": len(found),
            "errors": failures(trajectories),
            "pointing": {name: pointing((h, s.boxes) for s, h in pairs) for name, pairs in figures.items()},
        }


def boxed(sample: Sample, found: Highlight) -> Sample:
    """The sample with the region, not yet extended, in place of any boxes of its own."""
    return replace(sample, image=str(Path(sample.image).resolve()), boxes=(found.region,))
