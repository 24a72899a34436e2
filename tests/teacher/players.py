"""A cast for the teacher's graph that needs no model: rules, and a describer that looks at the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cof_agent import protocol
from cof_agent.environment import ZoomSettings
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy import Completion, Sampling
from cof_agent.protocol import Message
from cof_agent.teacher.prompted import PolicyDescriber
from cof_agent.teacher.roles import Cast
from cof_agent.teacher.rules import AnnotatedBoxes, RulePlanner, RuleSummariser, RuleVerifier
from cof_agent.trajectory import Tokens

LIMITS = PixelLimits(grid=28, min_pixels=56 * 56, max_pixels=448 * 448, zoom_pixels=224 * 224)
SETTINGS = ZoomSettings(limits=LIMITS)


class Reader:
    """Says "red" once the last image it is shown has enough red pixels: a describer that really looks."""

    name, coordinates, limits = "reader", CoordinateSystem.ABSOLUTE, LIMITS

    def __init__(self, least: int = 900) -> None:
        self.least, self.calls = least, 0

    async def generate(
        self, messages: Sequence[Message], images: Sequence[Image.Image], sampling: Sampling
    ) -> Completion:
        self.calls += 1
        pixels = np.asarray(images[-1], float)
        red = int(((pixels[..., 0] > 150) & (pixels[..., 1] < 90)).sum())
        said = "red" if red >= self.least else "unclear"
        return Completion(protocol.write_answer("I look.", said), Tokens(100, 5))


def cast(describer: Any = None, **given: Any) -> Cast:
    parts: dict[str, Any] = {
        "planner": RulePlanner(),
        "locator": AnnotatedBoxes(),
        "describer": PolicyDescriber(describer or Reader()),
        "verifier": RuleVerifier(),
        "summariser": RuleSummariser(),
    }
    return Cast(**(parts | given))
