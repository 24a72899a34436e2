"""What every strategy is made of: `Way`, how samples are played, and `Wrapped`, a policy that speaks for another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cof_agent import protocol
from cof_agent.environment import ZoomSettings
from cof_agent.graphs.focus import FOCUS
from cof_agent.graphs.steps import Graph
from cof_agent.policy import Completion, Policy, Sampling, not_taken

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Way:
    """How samples are played: by whom, what it is shown, by which graph. details: recorded among the settings."""

    policy: Policy
    settings: ZoomSettings
    graph: Graph = FOCUS
    details: Mapping[str, Any] = field(default_factory=dict)


Strategy = Callable[[Policy, ZoomSettings], Way]
"""Makes a way out of a model and what it would be shown."""


class Wrapped:
    """The policy, which subclasses speak for."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.name, self.coordinates, self.limits = policy.name, policy.coordinates, policy.limits

    @property
    def not_taken(self) -> list[str]:
        """The parameters of sampling that the policy's server has refused so far."""
        return not_taken(self._policy)

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        """The policy's own next message."""
        return await self._policy.generate(messages, images, sampling)


def is_first_turn(messages: Sequence[protocol.Message]) -> bool:
    """Whether the model has said nothing yet."""
    return all(message["role"] != "assistant" for message in messages)
