"""Images as the vision tower takes them, and what it made of them, kept for later turns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cof_agent.backends import families
from cof_agent.backends.local.budget import FEATURES, Budget

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """One image as the vision tower takes it. `key` names its pixels; `grid` is in patches: time, height, width."""

    key: bytes
    grid: tuple[int, int, int]
    image: Image
    process: Callable[[], Tensor]

    @cached_property
    def patches(self) -> Tensor:
        """[patches, channels x time x height x width]; made when asked for, since features may be there already."""
        return self.process()


class FeatureCache:
    """What the vision tower makes of an image, kept for the later turns of a conversation, least recent out first.

    From any thread; while one computes, others that ask wait. budget: how much is kept.
    """

    def __init__(self, model: Any, budget: Budget) -> None:
        self._model, self._budget = model, budget
        self._half = _half_of(model)
        self._kept: OrderedDict[bytes, tuple[Tensor, list[Tensor]]] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def of(self, pictures: list[Picture]) -> Any:
        """In the form of `get_image_features`: a tensor [merged patches, width] for each image, and so for each
        DeepStack level."""
        with self._one_at_a_time:
            found = [self._one(picture) for picture in pictures]
        levels = [[deep[level] for _, deep in found] for level in range(len(found[0][1]))]
        return SimpleNamespace(pooler_output=[features for features, _ in found], deepstack_features=levels)

    def _one(self, picture: Picture) -> tuple[Tensor, list[Tensor]]:
        if picture.key in self._kept:
            self._kept.move_to_end(picture.key)
            return self._kept[picture.key]
        # Each image alone, so that its features do not depend on the others.
        with nullcontext() if self._half is None else torch.autocast(self._model.device.type, self._half):
            output = self._model.get_image_features(
                picture.patches.to(self._model.device), torch.tensor([picture.grid], device=self._model.device)
            )
        result = output.pooler_output[0], [level[0] for level in getattr(output, "deepstack_features", None) or []]
        self._kept[picture.key] = result
        for _ in range(self._budget.surplus([_size(entry) for entry in self._kept.values()], FEATURES)):
            self._kept.popitem(last=False)
        return result


def _half_of(model: Any) -> torch.dtype | None:
    """The short numbers of a tower of which some weights are trained, and so in float32; its forward pass runs under autocast
    then, as in the update. None for a tower in numbers of one kind."""
    tower = model.get_submodule(families.of(model.config).modules.tower)
    kinds = {parameter.dtype for parameter in tower.parameters() if parameter.is_floating_point()}
    return next((kind for kind in kinds if kind != torch.float32), None) if len(kinds) > 1 else None


def _size(entry: tuple[Tensor, list[Tensor]]) -> int:
    return sum(tensor.nbytes for tensor in (entry[0], *entry[1]))
