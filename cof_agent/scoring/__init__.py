"""Accuracy, format and pointing of one trajectory. Evaluation and reward share these functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cof_agent import protocol
from cof_agent.geometry import Box
from cof_agent.scoring.answer_match import close, plain_words, quantity, similarity
from cof_agent.trajectory import Malformed, Sample, Trajectory, Turn, Use

HIT_COVERAGE = 0.5  # of the target's area that a crop must take in


def accuracy(trajectory: Trajectory) -> bool | None:
    """Whether the answer is right; None if the sample has no known answer. No answer is wrong."""
    sample = trajectory.sample
    if not sample.answers:
        return None
    if trajectory.answer is None:
        return False
    return matches(trajectory.answer, sample)


def matches(answer: str, sample: Sample) -> bool:
    """Whether `answer` is one of the accepted answers, up to case, spacing, punctuation around it and number format.

    With choices, the letter of a choice ("B", "(B)", "B. red") stands for its text.
    """
    accepted = {normalise(text) for text in sample.answers}
    if normalise(answer) in accepted:
        return True
    chosen = choice_of(answer, sample.choices)
    return chosen is not None and normalise(chosen) in accepted


def number(trajectory: Trajectory) -> bool | None:
    """Whether the answer is a number near enough to an accepted one; None if no accepted answer is a number.

    Near enough is within 5 %, the relaxed accuracy of ChartQA (arXiv 2203.10244), which the paper allows for values read
    off a chart. A whole number that is no percentage is no such value: counts, years and what a sign says must be met
    exactly. See `answer_match.quantity` for what a number is.
    """
    true = [found for text in trajectory.sample.answers if (found := quantity(text))]
    if not true:
        return None
    if accuracy(trajectory):
        return True
    said = quantity(_said(trajectory) or "")
    return said is not None and any(close(said, one) for one in true)


def anls(trajectory: Trajectory) -> float | None:
    """How near the answer's text comes to the nearest accepted one, 0 to 1; None if the sample has no known answer.

    One summand of ANLS, the average normalised Levenshtein similarity of ST-VQA (Biten et al., arXiv 1905.13648), with
    its threshold of 0.5. No answer is 0.
    """
    if not trajectory.sample.answers:
        return None
    said = _said(trajectory)
    return 0.0 if said is None else max(similarity(said, true) for true in trajectory.sample.answers)


def vqa(trajectory: Trajectory) -> float | None:
    """VQA accuracy (Antol et al., arXiv 1505.00468), 0 to 1: over each of the people left out, a third for each of the others
    who gave this answer, at most 1, and the mean of that; None if the sample has no known answer. No answer is 0.

    Texts are compared as in `answer_match.plain_words`.
    """
    people = [plain_words(text) for text in trajectory.sample.answers]
    if not people:
        return None
    said = _said(trajectory)
    if said is None:
        return 0.0
    same = [text == plain_words(said) for text in people]
    if len(people) == 1:
        return float(same[0])
    return sum(min(1.0, (sum(same) - left_out) / 3) for left_out in same) / len(people)


def score(trajectory: Trajectory) -> float | None:
    """What an evaluation counts, 0 to 1: by the rule that the sample's benchmark is scored by, else `accuracy`; None if the
    sample has no known answer."""
    rule = {"anls": anls, "vqa": vqa}.get(str(trajectory.sample.metadata.get("scoring")), accuracy)
    found = rule(trajectory)
    return None if found is None else float(found)


def choice(trajectory: Trajectory) -> bool | None:
    """Whether the answer names a right choice by its letter or text, in which the truth may be given, too; None if the
    sample has no choices, or the known answers are none of them."""
    choices = trajectory.sample.choices
    right = {named for text in trajectory.sample.answers if (named := choice_of(text, choices)) is not None}
    if not right:
        return None
    return trajectory.answer is not None and choice_of(trajectory.answer, choices) in right


def _said(trajectory: Trajectory) -> str | None:
    """The answer, a letter replaced by the text of its choice."""
    if trajectory.answer is None:
        return None
    return choice_of(trajectory.answer, trajectory.sample.choices) or trajectory.answer


_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:]|\s*$)\s*(.*)", re.DOTALL)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The choice an answer names by its text or its letter; None if it names none, or two different ones."""
    for text in choices:
        if normalise(answer) == normalise(text):
            return text
    found = _LETTER.match(answer.strip())
    if found is None:
        return None
    by_letter = dict(protocol.lettered(choices)).get(found[1].upper())
    if by_letter is None or (found[2].strip() and normalise(found[2]) != normalise(by_letter)):
        return None
    return by_letter


def normalise(text: str) -> str:
    """Unicode-folded lower case without surrounding punctuation, inner spaces single, numbers in one form."""
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip(" .,;:!?\"'`()[]")
    plain = text.replace(",", "")
    # Leading zeros are kept apart: a label "07" is not the number 7.
    if re.fullmatch(r"[+-]?(?:0|[1-9]\d*)\.\d+", plain):
        return plain.rstrip("0").rstrip(".").lstrip("+")
    return plain if re.fullmatch(r"[+-]?[1-9]\d*", plain) else text


def well_formed(trajectory: Trajectory) -> bool:
    """The format reward's condition: every turn has exactly the wire format, and the last one answers."""
    if not trajectory.turns or trajectory.answer is None:
        return False
    return all(protocol.well_formed(turn.text, _tools(turn)) for turn in trajectory.turns)


def _tools(turn: Turn) -> set[str]:
    """The tools beside the zoom that a turn uses; a call of one that is not there was recorded as malformed."""
    return {action.tool for action in turn.actions if isinstance(action, Use)}


def malformed(trajectory: Trajectory) -> bool:
    """Whether any turn held something that is no action."""
    return any(isinstance(action, Malformed) for turn in trajectory.turns for action in turn.actions)


def target_hits(trajectory: Trajectory) -> bool | None:
    """Whether the crops take in every target box; None where there is no target or no zoom was made.

    A target counts as taken in when one crop covers at least half of its area.
    """
    targets = trajectory.sample.boxes
    crops = [view.region for view in trajectory.views[1:]]
    if not targets or not crops:
        return None
    return all(_covered(target, crops) for target in targets)


def _covered(target: Box, crops: Sequence[Box]) -> bool:
    return any(crop.coverage(target) >= HIT_COVERAGE for crop in crops)
