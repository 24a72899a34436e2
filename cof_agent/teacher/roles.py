"""What the roles of the teacher are given and say; `rules` plays them without a model, `asked` with any policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, PixelLimits, View, smart_resize
from cof_agent.policy import GREEDY, Completion, Policy, Retries, Sampling, reply
from cof_agent.protocol import Message
from cof_agent.trajectory import Sample


class Advice(StrEnum):
    """All that a verifier may say of a wrong answer. A closed list, so that it cannot give the truth away."""

    ENLARGE = "enlarge"
    TIGHTEN = "tighten"
    MOVE = "move"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Locate:
    """Where in the `image`-th view is `what`?"""

    what: str
    image: int = 0


@dataclass(frozen=True, slots=True)
class Adjust:
    """Change `box` (source pixels), found in the `image`-th view, as `instruction` says."""

    box: Box
    image: int
    instruction: str


@dataclass(frozen=True, slots=True)
class Describe:
    """Cut `box` (source pixels) out, pointing at it in the `image`-th view, and answer `question`, or the sample's."""

    box: Box
    image: int = 0
    question: str | None = None


@dataclass(frozen=True, slots=True)
class Propose:
    answer: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The planner's text was no move; `reason` is the sentence it reads."""

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Move = Locate | Adjust | Describe | Propose | Unreadable | GiveUp


@dataclass(frozen=True, slots=True)
class Step:
    """One move of the planner, and what came of it."""

    move: Move
    text: str = ""  # as the planner wrote it
    reply: str = ""  # the sentence it reads
    box: Box | None = None  # that was located or adjusted; source pixels
    view: int | None = None  # the number of the view that was cut out
    seen: str | None = None  # what was described; None if that was unclear
    advice: Advice | None = None  # on a wrong answer


@dataclass(frozen=True, slots=True)
class Link:
    """One zoom of the path to the answer: `box` (source pixels) was pointed at in view `parent` and shown as `view`."""

    box: Box
    parent: int
    view: View
    seen: str | None


@dataclass(slots=True)
class Spent:
    """What the policies were asked for one sample; a request that failed is not counted."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, completion: Completion) -> None:
        self.calls += 1
        self.prompt_tokens += completion.tokens.prompt or 0
        self.completion_tokens += completion.tokens.completion or 0


@dataclass(slots=True)
class Errand:
    """One sample on its way through the teacher: what every role is given."""

    sample: Sample
    environment: ZoomEnvironment
    timeout: float = 600.0  # seconds for one reply
    retries: Retries = field(default_factory=Retries)
    spent: Spent = field(default_factory=Spent)

    async def ask(
        self, policy: Policy, messages: Sequence[Message], views: Sequence[View], sampling: Sampling = GREEDY
    ) -> Completion:
        """A policy's reply; `views` are the images of the messages, in order.

        Raises:
            PolicyError: if it gave none in as many tries as `retries` allow, or says that more would not help.
            PolicyRefusal: if it refuses how it is used.
        """
        images = await self.environment.images(self.sample, views)

        async def once() -> Completion:
            return await reply(policy, messages, images, sampling, timeout=self.timeout)

        completion = await self.retries.run(once, policy.name)
        self.spent.add(completion)
        return completion


class Planner(Protocol):
    """Decides what to do next, from what came of all moves so far."""

    name: str

    async def next(self, errand: Errand, views: Sequence[View], steps: Sequence[Step]) -> tuple[Move, str]:
        """The next move, and the text it was written in. `views[0]` is the overview, each described box one more."""
        ...


class Locator(Protocol):
    """Finds things."""

    name: str

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """Where `what` is in `view`, in source pixels; None if it is not to be seen there."""
        ...


class Describer(Protocol):
    """Looks closely. `limits` are those of the images it can be shown."""

    name: str
    limits: PixelLimits

    async def describe(
        self, errand: Errand, views: Sequence[View], question: str | None, sampling: Sampling = GREEDY
    ) -> str | None:
        """The answer to `question`, or the sample's own, from `views` alone; None if it cannot be told from them."""
        ...


class Verifier(Protocol):
    """Knows the truth."""

    name: str

    async def judge(self, errand: Errand, answer: str, attempt: int) -> Advice | None:
        """None if `answer` is right, else what to try; `attempt` counts wrong answers before this one."""
        ...


class Summariser(Protocol):
    """Puts the path to the answer into words."""

    name: str

    async def thoughts(self, errand: Errand, links: Sequence[Link]) -> list[str] | None:
        """One thought before each zoom and one before the answer; None if it found no words."""
        ...


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays what."""

    planner: Planner
    locator: Locator
    describer: Describer
    verifier: Verifier
    summariser: Summariser

    @property
    def name(self) -> str:
        """For the record."""
        return ", ".join(f"{role} {getattr(self, role).name}" for role in self.__slots__)


def fitted(view: View, limits: PixelLimits, *, crop: bool = False) -> View:
    """The same region as a policy with `limits` can be shown it: as it is, or smaller."""
    most = limits.zoom_pixels if crop else limits.max_pixels
    if view.shown_size.area <= most:
        return view
    shown = smart_resize(view.shown_size, grid=limits.grid, min_pixels=limits.min_pixels, max_pixels=most)
    return replace(view, shown_size=shown)
