"""What looks at images and writes text: the `Policy` protocol, and the policies that need no model.

A policy turns a conversation into the next assistant message. It knows nothing of zooming.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.protocol import Message
from cof_agent.trajectory import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one assistant message is drawn. Temperature 0 is greedy; with a seed, sampling is reproducible."""

    max_tokens: int = 512  # per turn, as in Chain-of-Focus
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: bool = False  # whether `Completion.logprob` is asked for

    def to_dict(self) -> dict[str, Any]:
        """What decides which message is drawn, as plain values, for the record."""
        return {name: value for name, value in asdict(self).items() if name != "logprobs"}


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


class PolicyError(RuntimeError):
    """The policy could not answer (server gone, time-out): recorded on the trajectory.

    `transient` says whether asking again may help; only then it is asked again, as `Retries` says.
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True, slots=True)
class Retries:
    """When a policy that failed is asked again: after `wait` seconds, then each time after four times as long."""

    tries: int = 3
    wait: float = 0.3

    async def run(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """What `attempt` returns, which is called up to `tries` times.

        Raises:
            PolicyError: of the last try, or of one that says that more would not help.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

        async def once() -> Result:  # tenacity awaits only what is declared so
            return await attempt()

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, PolicyError) and error.transient),
            stop=stop_after_attempt(self.tries),
            wait=wait_exponential(self.wait, exp_base=4),
            reraise=True,
        )
        return await retrying(once)


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
    """
    try:
        async with asyncio.timeout(timeout):
            return await policy.generate(messages, images, sampling)
    except TimeoutError:
        raise PolicyError(f"{policy.name} gave no answer within {timeout:g} seconds.") from None


Line = str | Completion | Exception
"""One scripted assistant message; an exception is raised in its place."""


class ScriptedPolicy:
    """Plays given texts: assistant message `n` of a conversation is `script[n]`, or what `script(messages)` returns.

    It keeps no state, so one instance serves any number of conversations at once, and one that is resumed goes on
    with the line it had reached.

    Raises (from `generate`):
        ValueError: if the conversation has outrun the script.
    """

    def __init__(
        self,
        script: Sequence[Line] | Callable[[Sequence[Message]], Line],
        *,
        name: str = "scripted",
        coordinates: CoordinateSystem = CoordinateSystem.ABSOLUTE,
        limits: PixelLimits | None = None,
    ) -> None:
        self.script = script
        self.name = name
        self.coordinates = coordinates
        self.limits = limits or PixelLimits()

    async def generate(self, messages: Sequence[Message], images: Sequence[Image], sampling: Sampling) -> Completion:
        """The next line of the script; `images` and `sampling` change nothing."""
        line: Line = self.script(messages) if callable(self.script) else self._line(self.script, messages)
        if isinstance(line, Exception):
            raise line
        return Completion(line) if isinstance(line, str) else line

    @staticmethod
    def _line(script: Sequence[Line], messages: Sequence[Message]) -> Line:
        said = sum(message["role"] == "assistant" for message in messages)
        if said >= len(script):
            raise ValueError(f"the script has {len(script)} lines, but message {said + 1} was asked for")
        line: Line = script[said]
        return line
