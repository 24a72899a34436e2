"""What looks at images and writes text: the `Policy` protocol, and the policies that need no model.

A policy turns a conversation into the next assistant message. It knows nothing of zooming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image

from cof_agent.geometry import CoordinateSystem
from cof_agent.protocol import Message
from cof_agent.trajectory import Tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one assistant message is drawn. Temperature 0 is greedy; with a seed, sampling is reproducible."""

    max_tokens: int = 512  # per turn, as in Chain-of-Focus
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One assistant message; `truncated` when it ran into `max_tokens`."""

    text: str
    tokens: Tokens = Tokens()
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """The grid and area limits of the images a policy is shown, in shown pixels (see `geometry.smart_resize`)."""

    grid: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 1280 * 28 * 28  # overview
    zoom_pixels: int = 320 * 28 * 28  # each crop


class Policy(Protocol):
    """A vision-language model as the agent sees it."""

    name: str
    coordinates: CoordinateSystem
    limits: PixelLimits

    async def generate(
        self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        """The next assistant message. `images[k]` are the pixels of `{"type": "image", "view": k}`, already resized."""
        ...


class PolicyError(RuntimeError):
    """The policy could not answer (server gone, time-out): recorded on the trajectory, worth a retry."""
