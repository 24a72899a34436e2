"""The rules that score one trajectory, by the name that a sample gives in `metadata["scoring"]`.

Evaluation and rewards use the same functions. Each gives None where nothing can be scored, and never 0 for that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cof_agent.scoring.answer_match import matches, says_yes, says_yes_as_pope
from cof_agent.scoring.boxes import box_overlap
from cof_agent.scoring.choice import SEVERAL, choice_of, chosen_of, right_choices
from cof_agent.scoring.normalise import folded, unwrapped
from cof_agent.scoring.numbers import Quantity, close, close_as_written, quantity
from cof_agent.scoring.similarity import plain_words, similarity
from cof_agent.scoring.statement import number_said
from cof_agent.trajectory import Sample, StopReason, Trajectory

LEAST_OVERLAP = 0.5  # from which a box counts as right: RefCOCO's Acc@0.5 (Yu et al., arXiv 1608.00272)


def accuracy(trajectory: Trajectory) -> bool | None:
    """Whether the answer is right; None if the sample has no known answer. No answer is wrong.

    A sample whose own rule is one of right and wrong is judged by that rule, a box by `LEAST_OVERLAP`. An answer of VQA is right
    if at least two of the people gave it.
    """
    rule = _rule(trajectory)
    if rule.score is vqa:
        return exact(replace(trajectory, sample=replace(trajectory.sample, answers=agreed(trajectory.sample))))
    found = rule.score(trajectory) if rule.right_from is not None else exact(trajectory)
    return None if found is None else found >= (rule.right_from or 1.0)


def is_right(answer: str, sample: Sample) -> bool:
    """Whether an answer is right, as `accuracy` says of a trajectory that ends in it."""
    return bool(accuracy(Trajectory(sample, None, (), StopReason.ANSWERED, answer)))


def agreed(sample: Sample) -> tuple[str, ...]:
    """The accepted answers of a sample. Where they are several people's (the rule `vqa`), the ones that at least two of them
    gave, the most frequent first; all of them if no two agree."""
    if str(sample.metadata.get("scoring")) != "vqa":
        return sample.answers
    people = Counter(map(plain_words, sample.answers))
    first = {plain_words(text): text for text in reversed(sample.answers)}
    often = [first[text] for text, count in people.most_common() if count > 1]
    return tuple(often) or sample.answers


def score(trajectory: Trajectory) -> float | None:
    """What an evaluation counts, 0 to 1: by the rule of the sample, else whether the answer is right; None if the sample has no
    known answer."""
    found = _rule(trajectory).score(trajectory)
    return None if found is None else float(found)


def exact(trajectory: Trajectory) -> bool | None:
    """Whether the answer means an accepted one, in whatever words (see `answer_match.matches`)."""
    if not trajectory.sample.answers:
        return None
    return trajectory.answer is not None and matches(trajectory.answer, trajectory.sample)


def number(trajectory: Trajectory) -> bool | None:
    """Whether the answer is a number near enough to an accepted one; None if no accepted answer is a number.

    Near enough is within 5 %, the relaxed accuracy of ChartQA (arXiv 2203.10244), which the paper allows for values read
    off a chart. A whole number that is no percentage is no such value: counts, years and what a sign says must be met
    exactly. See `numbers.quantity` for what a number is.
    """
    return _near(trajectory)


def relaxed(trajectory: Trajectory) -> bool | None:
    """Relaxed accuracy as ChartQA is scored (Masry et al., arXiv 2203.10244): a number within 5 % of the true one, whole numbers
    too, of which 57 % is 0.57 and nothing else; any other answer must be met exactly. None if the sample has no known answer."""
    true, said = _quantities(trajectory), _quantity_said(trajectory)
    if not true or said is None:
        return exact(trajectory)
    return any(close_as_written(said, one) for one in true)


def rounded(trajectory: Trajectory) -> bool | None:
    """Whether the answer is a number that is the true one once it is rounded to as many decimal places, or cut to a whole one:
    how MathVista is scored (Lu et al., arXiv 2310.02255). Else as `exact`; None if the sample has no known answer."""
    said = _quantity_said(trajectory)
    if said is not None and any(said.rounds_to(true) for true in _quantities(trajectory)):
        return True
    return exact(trajectory)


def yes_no(trajectory: Trajectory) -> bool | None:
    """Whether the answer says yes or no rightly, as POPE reads it (see `says_yes_as_pope`); of a truth that is neither as
    `exact`. None if the sample has no known answer. No answer is wrong."""
    truths = {says_yes(text) for text in trajectory.sample.answers}
    if len(truths) != 1 or None in truths or trajectory.sample.choices:
        return exact(trajectory)
    return trajectory.answer is not None and says_yes_as_pope(trajectory.answer) in truths


def _near(trajectory: Trajectory) -> bool | None:
    true = _quantities(trajectory)
    if not true:
        return None
    if exact(trajectory):
        return True
    said = _quantity_said(trajectory)
    return said is not None and any(close(said, one) for one in true)


def _quantities(trajectory: Trajectory) -> list[Quantity]:
    return [found for text in trajectory.sample.answers if (found := quantity(text))]


def _quantity_said(trajectory: Trajectory) -> Quantity | None:
    said = _said(trajectory)
    if said is None:
        return None
    return quantity(unwrapped(folded(said))) or quantity(number_said(said, trajectory.sample.question))


def anls(trajectory: Trajectory) -> float | None:
    """How near the answer's text comes to the nearest accepted one, 0 to 1; None if the sample has no known answer.

    One summand of ANLS, the average normalised Levenshtein similarity of ST-VQA (Biten et al., arXiv 1905.13648), with
    its threshold of 0.5 as `similarity.similarity` has it. No answer is 0.
    """
    if not trajectory.sample.answers:
        return None
    said = _said(trajectory)
    return 0.0 if said is None else max(similarity(said, true) for true in trajectory.sample.answers)


def vqa(trajectory: Trajectory) -> float | None:
    """VQA accuracy (Antol et al., arXiv 1505.00468), 0 to 1: over each of the people left out, a third for each of the others
    who gave this answer, at most 1, and the mean of that; None if the sample has no known answer. No answer is 0.

    Texts are compared as in `similarity.plain_words`.
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


def contains(trajectory: Trajectory) -> bool | None:
    """Whether the answer holds an accepted text, whatever else it says: how OCRBench is scored (Liu et al., arXiv 2305.07895).

    Case and the width of spaces do not matter; in handwritten formulas case does, and no space. None if the sample has no known
    answer.
    """
    sample = trajectory.sample
    if not sample.answers:
        return None
    formula = "mathematical expression" in str(sample.metadata.get("category", "")).casefold()
    texts = (trajectory.answer or "", *sample.answers)
    said, *true = ("".join(text.split()) if formula else " ".join(text.casefold().split()) for text in texts)
    return any(text and text in said for text in true)


def located(trajectory: Trajectory) -> bool | None:
    """Whether the box in the answer overlaps that of the sample by at least `LEAST_OVERLAP`; None as `box_overlap`."""
    overlap = box_overlap(trajectory)
    return None if overlap is None else overlap >= LEAST_OVERLAP


def choice(trajectory: Trajectory) -> bool | None:
    """Whether the answer names a right choice by its letter or text, in which the truth may be given, too; None if the
    sample has no choices, or the known answers are none of them."""
    right = right_choices(trajectory.sample)
    if not right:
        return None
    if trajectory.sample.metadata.get("scoring") == SEVERAL:
        return exact(trajectory)
    chosen = chosen_of(trajectory.answer or "", trajectory.sample.choices, trajectory.sample.question)
    return bool(chosen) and chosen <= right


def lettered(trajectory: Trajectory) -> bool | None:
    """As `exact`, but a letter alone is that of an option, also where it is the text of another one: how benchmarks with options
    are scored by their authors."""
    right, said = right_choices(trajectory.sample), _ALONE.fullmatch(unwrapped(folded(trajectory.answer or "")))
    place = ord(said[1]) - ord("a") if said and right else len(trajectory.sample.choices)
    return place in right if place < len(trajectory.sample.choices) else exact(trajectory)


_ALONE = re.compile(
    r"(?:(?:the )?(?:correct |final )?(?:answer|option|choice)(?: is|:)*:?)?[\s(\[*]*([a-z])[\s)\].:*]*"
)


def _said(trajectory: Trajectory) -> str | None:
    """The answer without what wraps it, a letter replaced by the text of its choice."""
    if trajectory.answer is None:
        return None
    sample = trajectory.sample
    return choice_of(trajectory.answer, sample.choices, sample.question) or _without_wrapping(trajectory.answer)


def _without_wrapping(answer: str) -> str:
    """An answer as it was written, unless a box or a tag wraps it."""
    plain = folded(answer).strip()
    inner = unwrapped(plain)
    return answer if inner == plain else inner


@dataclass(frozen=True, slots=True)
class Rule:
    """How a sample is scored. right_from: the score from which an answer counts as right; None if `exact` says what is right."""

    score: Callable[[Trajectory], float | None]
    right_from: float | None = None


EXACT = Rule(exact)
RULES: Mapping[str, Rule] = {
    "exact": EXACT,
    "choice": Rule(lettered, 1.0),
    "yes_no": Rule(yes_no, 1.0),
    SEVERAL: EXACT,
    "anls": Rule(anls),
    "vqa": Rule(vqa),
    "relaxed": Rule(relaxed, 1.0),
    "rounded": Rule(rounded, 1.0),
    "contains": Rule(contains, 1.0),
    "iou": Rule(box_overlap, LEAST_OVERLAP),
    "located": Rule(located, 1.0),
}
"""Every rule that `metadata["scoring"]` can name; without one, a sample is scored by `exact`."""


BOX_RULES = ("iou", "located")
"""Rules of samples whose answer is a box, in source pixels."""


def _rule(trajectory: Trajectory) -> Rule:
    return RULES.get(str(trajectory.sample.metadata.get("scoring")), EXACT)
