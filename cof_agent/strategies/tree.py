"""Search over a quadtree of the image, without training: where the model is surest of an answer, it looks closer.

In the manner of ZoomEye (Shen et al. 2024, arXiv 2411.16044), which walks a tree of image parts best first by the model's
confidence. Here the confidence of a part is that of the answer the model gives when it is shown the overview and the part:
the geometric mean of its tokens' probabilities. The state of the search is what the conversation says, nothing else, so that
a run that was interrupted goes on, and the record shows every part with its confidence.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cof_agent import protocol
from cof_agent.environment import ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.policy import Completion, Policy, Sampling
from cof_agent.strategies.wrapper import Way, Wrapped
from cof_agent.trajectory import Answer, Observation, Tokens, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

SURE = 0.9
"""A part with an answer of at least this confidence ends the search."""
EXPANSIONS = 4
"""Parts that are divided into quarters, the whole image included."""
DEPTH = 3
"""How often a part may have been divided: the smallest are an eighth of the image along each side."""
OVERLAP = 1.2
"""Quarters are widened by this factor about their centre, so that what lies on a border is seen whole."""

_CONFIDENCE = re.compile(r"\d\.\d{4}")


def tree(policy: Policy, settings: ZoomSettings) -> Way:
    """Quarters of quarters, always of the part where the model is surest of its answer, up to 16 crops."""
    return Way(TreeSearch(policy), replace(settings, max_zooms=4 * EXPANSIONS, enlarge=OVERLAP))


class TreeSearch(Wrapped):
    """A policy that asks another for the answer in each part of the image, and divides the most promising part."""

    async def generate(
        self, messages: Sequence[protocol.Message], images: Sequence[Image], sampling: Sampling
    ) -> Completion:
        """Zooms into the quarters of one part, or the answer from the part that gave the surest one.

        Raises:
            InputError: if the policy tells no probabilities, or cannot go on from a beginning.
        """
        said = ["".join(part["text"] for part in m["content"]) for m in messages if m["role"] == "assistant"]
        known = [float(number) for text in said for number in _CONFIDENCE.findall(protocol.thought(text))]
        parts = [self.coordinates.frame(Size(*images[0].size)), *(box for text in said for box in _boxes(text))]
        sampling = replace(sampling, logprobs=True)

        async def ask(part: int) -> Completion:
            """The model's own thought about the part, and the answer to which it is then held."""
            asked = _asking(messages, parts[part], images[part] if part else None, images[0], self.coordinates)
            shown = [images[0], images[part]] if part else [images[0]]
            free = await self._policy.generate(asked, shown, sampling)
            start = protocol.begin_answer(protocol.without_tags(protocol.thought(free.text)))
            held = await self._policy.generate([*asked, protocol.assistant(start)], shown, sampling)
            return replace(held, tokens=free.tokens + held.tokens)

        new = range(len(known), len(images))
        replies = dict(zip(new, await asyncio.gather(*map(ask, new)), strict=True))
        told = [*known, *(self._confidence(reply) for reply in replies.values())]
        thought = "Confidence: " + ", ".join(f"{told[part]:.4f}" for part in new) + "."
        best = max(range(len(told)), key=told.__getitem__)
        divided = None if told[best] >= SURE or len(said) >= EXPANSIONS else _next(parts[: len(told)], told)
        if divided is None and best not in replies:
            replies[best] = await ask(best)
        text = (
            protocol.write_answer(thought, _answer(replies[best]))
            if divided is None
            else protocol.write_zooms(thought, quarters(parts[divided]))
        )
        return Completion(text, sum((reply.tokens for reply in replies.values()), Tokens(0, 0)))

    def _confidence(self, reply: Completion) -> float:
        if reply.logprob is None:
            raise InputError(
                f"{self._policy.name} does not tell its tokens' probabilities, which the tree search needs."
            )
        return math.exp(reply.logprob) if _answer(reply) else 0.0


def quarters(part: Box) -> list[Box]:
    """The four quarters of a box, row by row, to a thousandth as the wire format writes them."""
    x, y = part.center
    edges = [
        (part.x0, part.y0, x, y),
        (x, part.y0, part.x1, y),
        (part.x0, y, x, part.y1),
        (x, y, part.x1, part.y1),
    ]
    return [Box(*(round(edge, 3) for edge in four)) for four in edges]


def _next(parts: Sequence[Box], confidence: Sequence[float]) -> int | None:
    """The surest part that can still be divided; None if there is none."""
    smallest = parts[0].width / 2**DEPTH * 1.01
    still = [at for at, part in enumerate(parts) if part.width > smallest and quarters(part)[0] not in parts]
    return max(still, key=confidence.__getitem__, default=None)


def _boxes(text: str) -> list[Box]:
    return [Box(*map(float, box)) for box, _ in Turn(text, protocol.parse(text)).boxes]


def _asking(
    messages: Sequence[protocol.Message], part: Box, crop: Image | None, overview: Image, system: CoordinateSystem
) -> list[protocol.Message]:
    """The question, and the crop of one part if it is not the whole."""
    asked = list(messages[:2])
    if crop is not None:
        size = Size(*overview.size)
        seen = View(size, Box(0, 0, size.width, size.height), Size(*crop.size))  # of which only the size is told
        asked.append(protocol.assistant(protocol.write_zoom("I look closer.", part)))
        asked += protocol.observation_messages([Observation(view=seen)], 1, system=system)
    return asked


def _answer(reply: Completion) -> str:
    """What the reply answers, empty if nothing."""
    (first, *_) = protocol.parse(reply.text)
    return protocol.without_tags(first.text) if isinstance(first, Answer) else ""
