"""What is known of a published benchmark: how it is scored, where it is, and how its files are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cof_agent.data.benchmarks.layout import Layout
from cof_agent.trajectory import Sample

Scoring = Literal["choice", "several", "exact", "yes_no", "anls", "vqa", "relaxed", "rounded", "contains", "located"]
"""The rule of `scoring.rules` that scores an answer. In a `choice` benchmark, a question without choices is scored by `exact`."""

RULES: Mapping[Scoring, str] = {
    "choice": "right option",
    "several": "all right options",
    "exact": "same answer",
    "yes_no": "yes or no",
    "anls": "ANLS",
    "vqa": "VQA accuracy",
    "relaxed": "relaxed accuracy",
    "rounded": "same answer, once rounded",
    "contains": "holds the answer",
    "located": "IoU from 0.5",
}
"""Each rule in a few words."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark. what: what its questions are about, in a few words. source: where the scoring is stated.

    hub: repositories of the hub with the files to fetch from each. questions: how many were published, by category where that
    is known; None where there is no such number. cycles: how often each question is asked, its options rotated; the score is the
    mean over all. averaged: what the authors average over, in words, where it is not the questions. judge: whether the
    authors let a language model judge answers. own: reads a copy whose layout is not ours to know.
    """

    title: str
    what: str
    scoring: Scoring
    source: str
    layouts: tuple[Layout, ...] = ()
    hub: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: int | Mapping[str, int] | None = None
    cycles: int = 1
    averaged: str = ""
    judge: bool = False
    own: Callable[[Path], Iterable[Sample]] | None = None

    @property
    def parts(self) -> Mapping[str, int]:
        """The published number of questions by category, empty where it is not known."""
        return self.questions if isinstance(self.questions, Mapping) else {}

    @property
    def remarks(self) -> str:
        """What else to know of the scoring, in a few words."""
        found = (
            f"{self.cycles} rotations of the options, their mean" if self.cycles > 1 else "",
            f"mean over {self.averaged}" if self.averaged else "",
            "needs --judge" if self.judge else "",
        )
        return "; ".join(part for part in found if part)

    @property
    def size(self) -> int | None:
        """The published number of questions."""
        return sum(self.questions.values()) if isinstance(self.questions, Mapping) else self.questions
