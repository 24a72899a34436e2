"""Trajectories for pages, and what a browser shows of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cof_agent.trajectory import Trajectory

if TYPE_CHECKING:
    from playwright.sync_api import Page

STEPS, PLAYS = 3, 2


def run_of(played: Sequence[Trajectory]) -> list[Trajectory]:
    """Three steps of three groups of two plays. Format is 0 or 1, length grows, accuracy is not scored in the last step,
    and the last step has no advantages."""
    made = []
    for number in range(STEPS * len(played) * PLAYS):
        step, place = divmod(number, len(played) * PLAYS)
        rewards = {"accuracy": None if step == 2 else 1.0, "format": float(number % 2), "length": number / 10}
        made.append(
            replace(
                played[place // PLAYS],
                step=step,
                group=f"{step}.{place // PLAYS}",
                play=1 + place % PLAYS,
                rewards=rewards,
                advantage=None if step == 2 else (-1.0) ** number * number / 4,
            )
        )
    return made


def answered(played: Sequence[Trajectory], right: Sequence[bool], **settings: Any) -> list[Trajectory]:
    """Questions with options of two categories, answered right or wrong."""
    made = []
    for k, good in enumerate(right):
        one = played[k % len(played)]
        sample = replace(
            one.sample,
            id=f"q{k}",
            answers=("red",),
            choices=("red", "blue"),
            metadata={"category": ("a b", "c&d")[k % 2]},
        )
        made.append(replace(one, sample=sample, answer="A" if good else "blue", settings=one.settings | settings))
    return made


def fetches(url: str) -> bool:
    """Whether a request is for anything but the page itself and the images that stand in it."""
    return not (re.fullmatch(r"file://.*\.html(#.*)?", url) or url.startswith("data:image/"))


def shown(page: Page) -> list[int]:
    """The numbers of the cards that are shown, from 0, in their order."""
    found: list[int] = page.eval_on_selector_all(
        "#cards .card:not([hidden])", "cards => cards.map((card) => Number(card.dataset.index))"
    )
    return found


def figures(page: Page) -> dict[str, str]:
    names, values = page.locator("#figures dt").all_inner_texts(), page.locator("#figures dd").all_inner_texts()
    return dict(zip(names, values, strict=True))
