"""The agent of inference, played in tokens: the same graph, whose policy keeps what was generated as it was generated.

A text that is tokenised again need not give the tokens that were sampled. So each conversation grows at its end only: the
prompt, what the model wrote, what it was shown, what it wrote; and a mask says which of these it wrote itself.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL.Image import Image

from cof_agent.agent import Agent
from cof_agent.backends.families import Family
from cof_agent.backends.local.decode import Generated, Prompt
from cof_agent.backends.local.memory import Picture
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment
from cof_agent.episodes import Episode
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy import Completion, NoRoom, Sampling
from cof_agent.protocol import Message
from cof_agent.trajectory import Sample, StopReason, Tokens, Trajectory


class TokenPolicy(Protocol):
    """What a transcript needs of a model: a `Reader`, and what follows a prompt."""

    name: str
    family: Family
    coordinates: CoordinateSystem
    limits: PixelLimits

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """The text of a conversation."""

    def read(self, text: str, images: Sequence[Image]) -> tuple[list[int], list[Picture]]:
        """Its token ids and images."""

    def turn(self, messages: Sequence[Message], ids: Sequence[int]) -> str:
        """The words of the model's next turn, of which it wrote `ids`."""

    async def complete(self, prompt: Prompt) -> Generated:
        """The model's next turn."""


class Transcript:
    """A policy for one conversation: that of a model, whose tokens it remembers.

    prompt: ids up to the first turn. completion: ids from there on; mask: 1 where the model wrote, 0 where it was shown
    something. logprobs: of `completion`, None where the engine does not tell, 0 where the model was shown something.
    images: the overviews and the crops. budget: most ids of `completion`; a crop for which there is no room ends the
    conversation, as do a turn that is cut off by it and one for which the model has no room (`exhausted`).
    """

    def __init__(self, policy: TokenPolicy, budget: int) -> None:
        self.name, self.coordinates, self.limits = policy.name, policy.coordinates, policy.limits
        self._policy, self._budget = policy, budget
        self.prompt: list[int] = []
        self.completion: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float | None] = []
        self.images: list[Image] = []
        self.exhausted = False
        self._pictures: list[Picture] = []

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message; see `Policy`."""
        shown: list[int] = []
        if not self.prompt:
            prompt, pictures = await asyncio.to_thread(lambda: self._policy.read(self._policy.render(messages), images))
        else:
            shown, new = await asyncio.to_thread(self._shown, messages, images[len(self.images) :])
            if len(self.completion) + len(shown) >= self._budget:
                return self._without_room()
            prompt, pictures = self.prompt, self._pictures + new
        told = prompt + self.completion + shown
        left = self._budget - len(self.completion) - len(shown)
        allowed = replace(sampling, max_tokens=min(sampling.max_tokens, left))
        try:
            generated = await self._policy.complete(Prompt(told, pictures, allowed))
        except NoRoom:
            if not self.prompt:
                raise
            return self._without_room()
        # Only now, so that a turn that failed can be asked for again.
        self.prompt, self._pictures, self.images = prompt, pictures, list(images)
        self.completion += shown + generated.ids
        self.mask += [0] * len(shown) + [1] * len(generated.ids)
        self.logprobs += [0.0] * len(shown) + (generated.logprobs or [None] * len(generated.ids))
        self.exhausted = not generated.stopped and len(self.completion) >= self._budget
        spoken = self._policy.turn(messages, generated.ids)
        return Completion(spoken, Tokens(len(told), len(generated.ids)), truncated=not generated.stopped)

    def _without_room(self) -> Completion:
        """Ends the conversation, for which there is no room."""
        self.exhausted = True
        return Completion("", Tokens(len(self.prompt) + len(self.completion), 0), truncated=True)

    def _shown(self, messages: Sequence[Message], images: Sequence[Image]) -> tuple[list[int], list[Picture]]:
        """The ids between the model's last token and its next turn: the rest of its own turn, and what it is shown."""
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        spoken = self._policy.render(messages[: last + 1], answering=False)
        whole = self._policy.render(messages)
        if not whole.startswith(spoken):
            raise ValueError("the chat template changes earlier turns once another one follows")
        rest = whole[spoken.rindex(self._policy.family.markers.end_of_turn) :]
        ids, pictures = self._policy.read(rest, images)
        # The end of its turn is the model's own token, unless it was cut off before writing it.
        return (ids[1:] if self.completion[-1] == ids[0] else ids), pictures


@dataclass(frozen=True)
class Rollout:
    """One played conversation: the record, and its tokens as training needs them (see `Transcript`)."""

    trajectory: Trajectory
    prompt: list[int]
    completion: list[int]
    mask: list[int]
    logprobs: list[float | None]
    images: list[Image]
    exhausted: bool

    @property
    def failure(self) -> str | None:
        """Why it says nothing of the model: its image or the model could not be used."""
        error = self.trajectory.error if self.trajectory.stop is StopReason.ERROR else None
        return error or (None if self.completion else "nothing was generated.")


def cannot_be_played(sample: Sample, why: str) -> str:
    """A sentence about a rollout's `failure`."""
    return f"sample {sample.id} cannot be played: {why}"


async def roll_out(
    wanted: Sequence[Episode],
    policy: TokenPolicy,
    config: AgentConfig,
    environment: ZoomEnvironment,
    *,
    budget: int,
    seeds: Sequence[int],
    on_end: Callable[[], None] = lambda: None,
) -> list[Rollout]:
    """One rollout for each of the episodes, all at once; `seeds` are those of their random numbers. Some may be failures
    (`Rollout.failure`).

    config: how the agent runs; `policy` stands for its model. environment: whose decoded images are shared.
    on_end: called as each conversation ends.

    Raises:
        InputError: if the strategy writes turns that the model did not write.
    """

    async def one(episode: Episode, seed: int) -> Rollout:
        transcript = Transcript(policy, budget)
        # However long a large batch takes, a turn that had to wait for it is none that failed.
        how = replace(config, seed=seed, timeout=math.inf)
        agent = Agent(how, policy=transcript, environment=environment)
        if agent.context(episode).policy is not transcript:
            raise InputError(
                f"the strategy {config.strategy} writes turns of its own, so that it cannot be trained by RL."
            )
        try:
            trajectory = await agent.play(episode)
        finally:
            on_end()
        found = transcript
        return Rollout(
            trajectory, found.prompt, found.completion, found.mask, found.logprobs, found.images, found.exhausted
        )

    return list(await asyncio.gather(*(one(*pair) for pair in zip(wanted, seeds, strict=True))))
