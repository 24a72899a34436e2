"""The agent as the doors use it: a question in, a trajectory out, in turn with all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.episodes import Episode
from cof_agent.errors import check_text
from cof_agent.geometry import Box, Size, View
from cof_agent.graphs.steps import Event
from cof_agent.image import open_source
from cof_agent.region_refs import check_inside, check_regions
from cof_agent.server.incoming import Incoming
from cof_agent.server.places import Places
from cof_agent.server.settings import ServerSettings
from cof_agent.strategies import registry
from cof_agent.trajectory import Sample, Trajectory

_MOST_AGENTS = 16  # of which settings are remembered; the model is the same


@dataclass(frozen=True)
class Question:
    """What is asked: images by their paths, the text, and what differs from the server's configuration."""

    images: tuple[str, ...]
    text: str
    choices: tuple[str, ...] = ()
    regions: tuple[Box, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def sample(self) -> Sample:
        """The task. Its id is the name of the image."""
        first, *others = self.images
        return Sample(
            Path(first).name, first, self.text, choices=self.choices, regions=self.regions, more_images=tuple(others)
        )


class Service:
    """One model, its agents, and the images of the clients. agent: by default it is made at the first question."""

    def __init__(self, config: AgentConfig, settings: ServerSettings, agent: Agent | None = None) -> None:
        self.config, self.settings = config, settings
        self.incoming = Incoming(settings)
        plain = ZoomEnvironment(ZoomSettings(max_source_pixels=config.max_source_pixels))
        self.environment = plain if agent is None else agent.environment
        self.places = Places(settings.concurrency, settings.waiting)
        self._agent, self._loading = agent, asyncio.Lock()
        self._other = lru_cache(_MOST_AGENTS)(self._changed)

    @property
    def name(self) -> str:
        """What clients call the model: as in the configuration, but of a folder only its name."""
        path = Path(self.config.model)
        return path.resolve().name if path.is_dir() else self.config.model

    async def agent(self) -> Agent:
        """The agent, its model loaded.

        Raises:
            InputError: as `Agent`.
        """
        async with self._loading:
            if self._agent is None:
                self._agent = await asyncio.to_thread(Agent, self.config, environment=self.environment)
            return self._agent

    async def check(self, question: Question) -> None:
        """What can be known without the model.

        Raises:
            InputError: if an image cannot be opened, or the question and its regions do not belong together.
        """
        check_text(question.text, "the question")
        sample = question.sample
        registry.check_images(self.config.strategy, self.config.spoken, [sample])
        check_regions(sample)
        first, *_ = [await self.size(path) for path in question.images]  # each is opened
        check_inside(sample, first)

    async def ask(self, question: Question, on_event: Callable[[Event], None] | None = None) -> Trajectory:
        """Plays one question, as soon as there is a place. The caller's task may be cancelled at any time.

        Raises:
            InputError: if the question makes no sense, or the model refuses how it is used.
            Refusal: if too many wait.
        """
        await self.check(question)
        async with self.places.place():
            agent = await self.agent()
            if question.changes:
                agent = self._other(tuple(sorted(question.changes.items())))
            return await agent.play(Episode(question.sample), on_event=on_event)

    def _changed(self, changes: tuple[tuple[str, Any], ...]) -> Agent:
        assert self._agent is not None
        return self._agent.changed(replace(self._agent.config, **dict(changes)))

    async def size(self, path: str) -> Size:
        """The size of an image in source pixels.

        Raises:
            InputError: if it cannot be opened.
        """
        most = self.config.max_source_pixels
        return (await asyncio.to_thread(open_source, path, max_source_pixels=most)).size

    async def pixels(self, path: str, views: Sequence[View]) -> list[Any]:
        """The pixels of views of an image, which is decoded once for all who look at it.

        Raises:
            InputError: if it cannot be opened.
        """
        return list(await self.environment.images(Sample(Path(path).name, path, ""), views))

    def close(self) -> None:
        """Removes the images that were sent."""
        self.incoming.pictures.close()
