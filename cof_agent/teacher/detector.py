"""An open-vocabulary detector of transformers (OWLv2, Grounding DINO, ...) as locator."""

from __future__ import annotations

import asyncio

from cof_agent.detection.checkpoint import Checkpoint
from cof_agent.geometry import Box, CoordinateSystem, View
from cof_agent.teacher.roles import Errand

LEAST_SCORE = 0.1


class DetectorLocator:
    """The box of the highest score, at least `LEAST_SCORE`.

    Raises:
        InputError: if there is no such detector.
    """

    def __init__(self, model: str) -> None:
        self.name = model
        self._checkpoint = Checkpoint("zero-shot-object-detection", model)

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """See `Locator`."""
        (image,) = await errand.environment.images(errand.sample, [view])
        found = await asyncio.to_thread(self._checkpoint.find, image, LEAST_SCORE, candidate_labels=[what])
        return view.to_source(found[0].box, CoordinateSystem.ABSOLUTE) if found else None
