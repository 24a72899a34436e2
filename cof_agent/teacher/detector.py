"""An open-vocabulary detector of transformers (OWLv2, Grounding DINO, ...) as locator."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from cof_agent.errors import InputError, said
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.teacher.roles import Errand

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_SCORE = 0.1


class DetectorLocator:
    """The box of the highest score, at least `LEAST_SCORE`.

    Raises:
        InputError: if there is no such detector.
    """

    def __init__(self, model: str) -> None:
        from transformers import pipeline

        self.name = model
        self._lock = threading.Lock()
        try:
            self._detect: Any = pipeline("zero-shot-object-detection", model=model)
        except Exception as error:  # what a missing or unfit checkpoint makes the loaders raise is not limited
            raise InputError(f"cannot load the detector {model}: {said(error)}") from None

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """See `Locator`."""
        (image,) = await errand.environment.images(errand.sample, [view])
        box = await asyncio.to_thread(self._best, image, what)
        return view.to_source(box, CoordinateSystem.ABSOLUTE) if box else None

    def _best(self, image: Image, what: str) -> Box | None:
        with self._lock:
            found = self._detect(image, candidate_labels=[what], threshold=LEAST_SCORE)
        if not found:
            return None
        best = max(found, key=lambda one: float(one["score"]))["box"]
        box = Box(best["xmin"], best["ymin"], best["xmax"], best["ymax"]).clipped(Size(*image.size))
        return box if box.area else None  # detectors point outside, too
