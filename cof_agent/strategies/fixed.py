"""Strategies that decide the first turn by a rule, whatever the question: always a zoom, a fixed grid, the regions named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cof_agent import protocol
from cof_agent.environment import ZoomSettings
from cof_agent.geometry import Box, Size
from cof_agent.policy import Completion, Policy, Sampling
from cof_agent.region_refs import mentions
from cof_agent.strategies.wrapper import Way, Wrapped, is_first_turn
from cof_agent.tools import load_tool
from cof_agent.trajectory import Tokens, is_look

if TYPE_CHECKING:
    from PIL.Image import Image

GRID = 3  # tiles along each side
BOX_TOKENS = 48  # more than four numbers take


def direct(policy: Policy, settings: ZoomSettings) -> Way:
    """The overview alone."""
    return Way(policy, replace(settings, max_zooms=0))


def grid(policy: Policy, settings: ZoomSettings) -> Way:
    """Nine fixed tiles, then the answer."""
    return Way(Grid(policy), replace(settings, max_zooms=GRID * GRID, enlarge=1.0))


def always_zoom(policy: Policy, settings: ZoomSettings) -> Way:
    """A first turn that would answer becomes a zoom."""
    return Way(AlwaysZoom(policy, settings), settings)


def regions(policy: Policy, settings: ZoomSettings) -> Way:
    """Crops of the regions that the question names come first, as many as there may be zooms."""
    return Way(Regions(policy, settings.max_zooms), settings)


class AlwaysZoom(Wrapped):
    """Looks closer before it answers, whether it would or not: where its first turn has no zoom, the turn is cut after its
    thought, and what the model then says to the beginning of a zoom is the box."""

    def __init__(self, policy: Policy, settings: ZoomSettings) -> None:
        super().__init__(policy)
        self._tools = [load_tool(tool).name for tool in settings.tools]

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        own = await self._policy.generate(messages, images, sampling)
        if not is_first_turn(messages) or any(map(is_look, protocol.parse(own.text, self._tools))):
            return own
        thought = protocol.without_tags(protocol.thought(own.text))
        start = protocol.begin_zoom(thought)
        short = replace(sampling, max_tokens=min(sampling.max_tokens, BOX_TOKENS))
        forced = await self._policy.generate([*messages, protocol.assistant(start)], images, short)
        box = protocol.box_after(forced.text, len(start))
        text = protocol.write_zoom(thought, box) if box else forced.text
        return Completion(text, own.tokens + forced.tokens)


class Grid(Wrapped):
    """Looks at the tiles of a fixed grid, whatever the question, and lets the model answer from them."""

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        if not is_first_turn(messages):
            return await self._policy.generate(messages, images, sampling)
        system = self.coordinates
        whole = system.ordered(system.frame(Size(*images[0].size)))
        width, height = whole.width / GRID, whole.height / GRID
        corners = [(whole.x0 + x * width, whole.y0 + y * height) for y in range(GRID) for x in range(GRID)]
        tiles = [system.ordered(Box(x, y, x + width, y + height)) for x, y in corners]
        return Completion(protocol.write_zooms("I look at every part.", tiles), Tokens(0, 0))


class Regions(Wrapped):
    """Looks at each region that the question names, once, before it says anything of its own. They count as zooms, and what
    is cut is enlarged as for any of them; crop k is image k of the conversation, so that the model can zoom into it."""

    def __init__(self, policy: Policy, most: int) -> None:
        super().__init__(policy)
        self._most = most

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        named = {one.number: one.box for one in mentions(protocol.asked(messages))} if is_first_turn(messages) else {}
        if not named:
            return await self._policy.generate(messages, images, sampling)
        boxes = [named[number] for number in sorted(named)][: self._most]
        if not boxes:  # no zoom is allowed
            return await self._policy.generate(messages, images, sampling)
        return Completion(protocol.write_zooms("I look at each region.", boxes), Tokens(0, 0))
