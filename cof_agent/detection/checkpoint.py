"""A detector of transformers, by the task of its pipeline; thread-safe."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

from cof_agent.backends.names import check_name
from cof_agent.errors import InputError, said
from cof_agent.geometry import Box, Size
from cof_agent.region_refs import Found

if TYPE_CHECKING:
    from PIL.Image import Image

Task = Literal["object-detection", "zero-shot-object-detection"]


class Checkpoint:
    """A pipeline of `task`. model: a folder or a hub id. device: by default transformers' choice.

    Raises:
        InputError: if there is no such checkpoint, it is of another kind, or a package is missing that it needs.
    """

    def __init__(self, task: Task, model: str, device: str | None = None) -> None:
        check_name(model)
        from transformers import AutoConfig, pipeline

        self.name = model
        self._lock = threading.Lock()
        try:
            fits = type(AutoConfig.from_pretrained(model, trust_remote_code=False)) in _models(task)
            self._detect: Any = pipeline(task, model=model, **({"device": device} if device else {})) if fits else None
        except Exception as error:  # what a missing or unfit checkpoint makes the loaders raise is not limited
            raise InputError(f"cannot load the detector {model}: {said(error)}") from None
        if not fits:  # the pipeline would load it all the same, and fail at each image
            raise InputError(f"{model} is no checkpoint for {task.replace('-', ' ')}.")

    def find(self, image: Image, least: float, **asked: Any) -> list[Found]:
        """What is found with a score of at least `least`, the surest first; boxes in pixels of `image`, cut off at its edges.

        Raises:
            InputError: if the detector fails.
        """
        try:
            with self._lock:
                found = self._detect(image, threshold=least, **asked)
        except Exception as error:  # nor is what models of others raise
            raise InputError(f"the detector {self.name} cannot read the image: {said(error)}") from None
        size = Size(*image.size)
        every = [_found(one, size) for one in sorted(found, key=lambda one: -float(one["score"]))]
        return [one for one in every if one.box.area]  # detectors point outside, too


def _models(task: Task) -> Any:
    """The configurations of transformers that the pipeline of `task` is for."""
    from transformers import MODEL_FOR_OBJECT_DETECTION_MAPPING, MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING

    return (
        MODEL_FOR_OBJECT_DETECTION_MAPPING
        if task == "object-detection"
        else MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING
    )


def _found(one: dict[str, Any], size: Size) -> Found:
    corners = (one["box"][name] for name in ("xmin", "ymin", "xmax", "ymax"))
    return Found(str(one["label"]), Box(*corners).clipped(size), float(one["score"]))
