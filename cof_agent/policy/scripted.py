"""A policy that needs no model: it plays a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy.base import Completion, Sampling
from cof_agent.protocol import Message

if TYPE_CHECKING:
    from PIL.Image import Image

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
