"""Trajectories as the data of a page: a record for each, the images that they share, and what is wrong with these."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cof_agent.trajectory import Trajectory
from cof_agent.viewer.images import PageImages, limit_of
from cof_agent.viewer.picture import PALETTE, ink_on
from cof_agent.viewer.record import MOST_VIEWS, NOWHERE, Origin, fitted_record
from cof_agent.viewer.templates import cut

MAX_TRAJECTORIES = 5_000
"""So many have a record on a page."""

_TEXT_BYTES = 14_000_000
_MOST_REWARDS = 24  # names of rewards; any more are left out


@dataclass(frozen=True, slots=True)
class Missing:
    """What is wrong with an image that the page has to do without, and how many trajectories need it."""

    sentence: str
    trajectories: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """What the templates put into data blocks: `head` for the page's script, JSON for each record, base64 for each image."""

    head: dict[str, Any]
    records: list[Markup]
    images: list[dict[str, Any]]
    missing: list[Missing]


def embed(
    trajectories: Sequence[Trajectory],
    score: Callable[[Trajectory], bool | None],
    *,
    origins: Sequence[Origin] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """The data of at most `MAX_TRAJECTORIES`. Each distinct image is embedded once, each source decoded once, a few at a time.

    score: right, wrong or (None) not scored. origins: of each trajectory, where the page shows several files or links to a
    server. progress: called with the number of source images that are done, and of all.
    """
    images = PageImages(limit_of(trajectories))
    rewards = {name: number for number, name in enumerate(_reward_names(trajectories))}
    numbers = [_numbers(one, images) for one in trajectories]
    most_bytes = _TEXT_BYTES // max(1, len(trajectories))
    records = [
        fitted_record(one, score(one), shown, rewards, most_bytes, origin)
        for one, shown, origin in zip(trajectories, numbers, origins or [NOWHERE] * len(trajectories), strict=True)
    ]
    encoded = images.encode(progress)
    head = {
        "palette": [(hue, ink_on(hue)) for hue in PALETTE],
        "rewards": [cut(name, 60) for name in rewards],
        "problems": list(images.problems.items()),
    }
    blocks = [{"number": number, "base64": base64.b64encode(image).decode()} for number, image in encoded.items()]
    return Embedded(head, records, blocks, _missing(images.problems, numbers))


def _reward_names(trajectories: Sequence[Trajectory]) -> list[str]:
    return list(dict.fromkeys(name for one in trajectories for name in one.rewards))[:_MOST_REWARDS]


def _numbers(trajectory: Trajectory, images: PageImages) -> list[int]:
    paths, opened = trajectory.sample.images, len(trajectory.overviews)
    views = enumerate(trajectory.views[:MOST_VIEWS])
    return [images.add(paths[view.source], view, overview=k < opened) for k, view in views]


def _missing(problems: dict[str, list[int]], numbers: Sequence[list[int]]) -> list[Missing]:
    found = [(sentence, set(wanting)) for sentence, wanting in problems.items()]
    return [Missing(sentence, sum(not wanting.isdisjoint(shown) for shown in numbers)) for sentence, wanting in found]
