"""A local model with the region scorer of its checkpoint: it chooses regions (see `graphs.coroi`), and answers itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cof_agent.backends.fingerprint import fingerprint
from cof_agent.backends.local.policy import LocalPolicy
from cof_agent.environment import ZoomSettings
from cof_agent.errors import InputError
from cof_agent.geometry import Box, View
from cof_agent.policy import Policy
from cof_agent.strategies.coroi.graph import COROI
from cof_agent.strategies.coroi.scorer import FOLDER, Query, Seen, load_scorer, score_maps
from cof_agent.strategies.coroi.windows import best_window, box_of
from cof_agent.strategies.wrapper import Way, Wrapped

if TYPE_CHECKING:
    from PIL.Image import Image


def coroi(policy: Policy, settings: ZoomSettings) -> Way:
    """CoRoI: a small scorer chooses regions, and the model answers in one pass.

    Raises:
        InputError: as `RegionChooser`.
    """
    chooser = RegionChooser(policy)
    limited = replace(settings, max_zooms=min(settings.max_zooms, chooser.regions))
    return Way(chooser, limited, COROI, {"scorer": chooser.scorer})


class RegionChooser(Wrapped):
    """The policy, with the regions that the scorer of its checkpoint chooses.

    regions: how many are chosen for a question, at most. scorer: fingerprint of the scorer's weights.

    Raises:
        InputError: if it is no local model, or its folder holds no scorer that fits it.
    """

    def __init__(self, policy: Policy) -> None:
        if not isinstance(policy, LocalPolicy) or policy.folder is None:
            raise InputError(
                f"{policy.name} is no model in a folder of this machine, and CoRoI needs the region scorer that lies in one; "
                "name a folder that sft.papers.coroi wrote."
            )
        self._local, self._scorer = policy, load_scorer(policy.folder)
        super().__init__(policy)
        self.scorer = fingerprint(str(policy.folder / FOLDER))
        self.regions = self._scorer.config.regions
        wanted, has = self._scorer.config.features, policy.model.config.get_text_config().hidden_size
        merge = policy.model.config.vision_config.spatial_merge_size
        if (wanted, self._scorer.config.merge) != (has, merge):
            raise InputError(
                f"the region scorer in {policy.folder} is for features {wanted} wide of {self._scorer.config.merge} x "
                f"{self._scorer.config.merge} patches, the model's are {has} wide of {merge} x {merge}; train one for it "
                "with sft.papers.coroi."
            )

    async def region(self, question: str, views: Sequence[View], images: Sequence[Image]) -> Box | None:
        """The next region for a question, in source pixels; None if the scorer finds that none is needed.

        Raises:
            PolicyError: if the device has not enough memory for the images.
        """
        return await asyncio.to_thread(self._region, question, views, images)

    @torch.inference_mode()
    def _region(self, question: str, views: Sequence[View], images: Sequence[Image]) -> Box | None:
        features, config = self._local.features(images), self._scorer.config
        seen = [Seen(view, one, self.limits.grid) for view, one in zip(views, features, strict=True)]
        query = Query(self._local.embeddings(question), tuple(range(len(seen))))
        (scores,), need = score_maps(self._scorer, seen, [query])
        if float(need.sigmoid()) < config.needed:
            return None
        chances = scores.flatten().softmax(0).view_as(scores).double().numpy()
        return box_of(best_window(chances, config.factors), views[0], *chances.shape)
