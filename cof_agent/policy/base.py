"""The `Policy` protocol, what a policy is asked for and gives, how it fails, and one try of asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.protocol import Message
from cof_agent.trajectory import Tokens, Trajectory

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one assistant message is drawn. Temperature 0 is greedy; with a seed, sampling is reproducible. stop: a text that ends
    the message, and stays in it."""

    max_tokens: int = 512  # per turn, as in Chain-of-Focus
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: str = ""
    logprobs: bool = False  # whether `Completion.logprob` is asked for

    def to_dict(self) -> dict[str, Any]:
        """What decides which message is drawn, as plain values, for the record."""
        return {
            name: value for name, value in asdict(self).items() if name != "logprobs" and (name, value) != ("stop", "")
        }


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Completion:
    """One assistant message; `truncated` when it ran into `max_tokens`.

    logprob: the mean natural logarithm of its new tokens' probabilities, where it was asked for and is told.
    """

    text: str
    tokens: Tokens = field(default_factory=Tokens)
    truncated: bool = False
    logprob: float | None = None


def begun(messages: Sequence[Message]) -> str:
    """The text with which the next assistant message is to begin, empty where there is none."""
    last = messages[-1]
    return "".join(part["text"] for part in last["content"]) if last["role"] == "assistant" else ""


class Policy(Protocol):
    """A vision-language model as the agent sees it."""

    name: str
    coordinates: CoordinateSystem
    limits: PixelLimits

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next assistant message. `images[k]` are the pixels of `{"type": "image", "view": k}`, already resized.

        Where the last message is the assistant's own, it is a beginning: the text returned begins with it and goes on.
        """
        ...


def not_taken(policy: Policy) -> list[str]:
    """The parameters of sampling that a served policy's server has refused so far: the server's own values hold."""
    return sorted(getattr(policy, "not_taken", ()))


CONTEXT = "context length:"
"""What the text of a `PolicyError` begins with, where a conversation is longer than the model reads."""


class PolicyError(RuntimeError):
    """The policy could not answer (server gone, time-out): recorded on the trajectory.

    transient: whether asking again may help. outage: whether it fails for everybody, because it is overloaded or being
    restarted, so that waiting for minutes may help. after: seconds that the server asks to wait, where it says so. `Retries`
    does what these say.
    """

    def __init__(
        self, message: str, *, transient: bool = True, outage: bool = False, after: float | None = None
    ) -> None:
        super().__init__(message)
        self.transient, self.outage, self.after = transient or outage, outage, after


class NoRoom(PolicyError):
    """The conversation has grown longer than the model takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, transient=False)


class PolicyRefusal(InputError):
    """The policy refuses how it is used (a bad API key, no such model): most likely it would refuse every sample.

    `trajectory` is the record of the sample that was refused, where one was being made; `rollout.play_all` keeps it.
    """

    trajectory: Trajectory | None = None


async def reply(
    policy: Policy,
    messages: Sequence[Message],
    images: Sequence[Image] = (),
    sampling: Sampling = GREEDY,
    *,
    timeout: float,
) -> Completion:
    """A policy's reply within `timeout` seconds; one try.

    Raises:
        PolicyError: if it gave none.
        PolicyRefusal: if it refuses how it is used.
    """
    try:
        async with asyncio.timeout(timeout):
            return await policy.generate(messages, images, sampling)
    except InputError as error:
        raise PolicyRefusal(str(error)) from error
    except TimeoutError:
        raise PolicyError(f"{policy.name} gave no answer within {timeout:g} seconds.") from None
