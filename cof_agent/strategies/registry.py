"""Other ways to spend zooms, to hold the agent against: the same model, loop and record, so that gains can be told apart.

A strategy wraps the policy, changes the settings, or plays another graph; the record of a run names it in `policy`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cof_agent import protocol
from cof_agent.errors import InputError
from cof_agent.geometry import Box, Size
from cof_agent.policy import Completion, Policy, Sampling
from cof_agent.region_refs import mentions
from cof_agent.trajectory import Tokens, Zoom

if TYPE_CHECKING:
    from PIL.Image import Image

    from cof_agent.environment import ZoomSettings
    from cof_agent.graphs.steps import Graph


@dataclass(frozen=True, slots=True)
class Way:
    """How samples are played; `graph` is the agent's where none is named."""

    policy: Policy
    settings: ZoomSettings
    graph: Graph | None = None


Strategy = Callable[[Policy, "ZoomSettings"], Way]

GRID = 3  # tiles along each side
BOX_TOKENS = 48  # more than four numbers take

_NUMBERS = re.compile(r"\s*" + r"\s*,\s*".join([r"(-?\d{1,6}(?:\.\d{1,6})?)"] * 4))


def by_name(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        InputError: if there is none.
    """
    if name not in _STRATEGIES:
        raise InputError(f"there is no strategy {name!r}; the strategies are {', '.join(_STRATEGIES)}.")
    return _STRATEGIES[name]


def _focus(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(policy, settings)


def _direct(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(Named(policy, "direct"), replace(settings, max_zooms=0))


def _grid(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(_Grid(policy, f"grid {GRID} x {GRID}"), replace(settings, max_zooms=GRID * GRID, enlarge=1.0))


def _always_zoom(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(_AlwaysZoom(policy, "always-zoom"), settings)


def _tree(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.tree import EXPANSIONS, OVERLAP, TreeSearch

    return Way(TreeSearch(policy), replace(settings, max_zooms=4 * EXPANSIONS, enlarge=OVERLAP))


def _regions(policy: Policy, settings: ZoomSettings) -> Way:
    return Way(_Regions(policy, "region crops"), settings)


def _spot(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.spot.graph import SPOT, settings_for

    return Way(Named(policy, "spot"), settings_for(settings), SPOT)


def _coroi(policy: Policy, settings: ZoomSettings) -> Way:
    from cof_agent.strategies.coroi.chooser import RegionChooser
    from cof_agent.strategies.coroi.graph import COROI

    chooser = RegionChooser(policy)
    return Way(chooser, replace(settings, max_zooms=min(settings.max_zooms, chooser.regions)), COROI)


_STRATEGIES: dict[str, Strategy] = {
    "focus": _focus,
    "direct": _direct,
    "always-zoom": _always_zoom,
    "grid": _grid,
    "tree": _tree,
    "regions": _regions,
    "spot": _spot,
    "coroi": _coroi,
}


class Named:
    """The policy, under a name that says how it is used."""

    def __init__(self, policy: Policy, how: str) -> None:
        self._policy = policy
        self.name = f"{policy.name}, {how}"
        self.coordinates = policy.coordinates
        self.limits = policy.limits

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        """The policy's own next message."""
        return await self._policy.generate(messages, images, sampling)


class _AlwaysZoom(Named):
    """Looks closer before it answers, whether it would or not: where its first turn has no zoom, the turn is cut after its
    thought, and what the model then says to the beginning of a zoom is the box."""

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        own = await self._policy.generate(messages, images, sampling)
        if _said(messages) or any(isinstance(action, Zoom) for action in protocol.parse(own.text)):
            return own
        thought = protocol.without_tags(protocol.thought(own.text))
        start = protocol.begin_zoom(thought)
        short = replace(sampling, max_tokens=min(sampling.max_tokens, BOX_TOKENS))
        forced = await self._policy.generate([*messages, protocol.assistant(start)], images, short)
        numbers = _NUMBERS.match(forced.text, len(start))
        text = protocol.write_zoom(thought, Box(*map(float, numbers.groups()))) if numbers else forced.text
        return Completion(text, own.tokens + forced.tokens)


class _Grid(Named):
    """Looks at the tiles of a fixed grid, whatever the question, and lets the model answer from them."""

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        if _said(messages):
            return await self._policy.generate(messages, images, sampling)
        whole = self.coordinates.frame(Size(*images[0].size))
        width, height = whole.width / GRID, whole.height / GRID
        corners = [(whole.x0 + x * width, whole.y0 + y * height) for y in range(GRID) for x in range(GRID)]
        tiles = [Box(x, y, x + width, y + height) for x, y in corners]
        return Completion(protocol.write_zooms("I look at every part.", tiles), Tokens(0, 0))


class _Regions(Named):
    """Looks at each region that the question names, once, before it says anything of its own. They count as zooms, and what
    is cut is enlarged as for any of them; crop k is image k of the conversation, so that the model can zoom into it."""

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        named = {} if _said(messages) else {one.number: one.box for one in mentions(protocol.asked(messages))}
        if not named:
            return await self._policy.generate(messages, images, sampling)
        boxes = [named[number] for number in sorted(named)]
        return Completion(protocol.write_zooms("I look at each region.", boxes), Tokens(0, 0))


def _said(messages: Sequence[protocol.Message]) -> bool:
    return any(message["role"] == "assistant" for message in messages)
