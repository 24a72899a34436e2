"""How the controls among compared runs behaved, in sentences.

A control is a run that differs from another, its reference, in one thing alone: what the crops show, the order of the
options, or whether it may zoom. Each sentence says what a paired difference and its 95 % interval say, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent import scoring
from cof_agent.episodes import question_of
from cof_agent.evaluation.compare import Pair, paired, right_of, shared
from cof_agent.evaluation.runs import Run
from cof_agent.protocol import lettered
from cof_agent.trajectory import Sample, Trajectory

FEW = 30
"""With fewer questions a bootstrap interval is rough, and the sentence says so."""
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of a control. pair: the names of its reference and itself; None where the reference is not there."""

    sentence: str
    pair: frozenset[str] | None = None


def findings(runs: Sequence[Run]) -> list[Finding]:
    """One or more on each run that is a control."""
    rules = (crops, options, overview)
    return [found for run in runs for rule in rules if (found := rule(run, runs)) is not None]


# --- which run is a control of which


def crops(run: Run, runs: Sequence[Run]) -> Finding | None:
    """On a run whose crops are not the real ones, against the one with real crops; None for any other run."""
    shown = run.settings.get("crop", "real")
    if shown == "real" or run.settings.get("max_zooms") == 0:
        return None
    found = _reference(run, runs, "crop", lambda other: other.settings.get("crop", "real") == "real")
    if found is None:
        return _alone(run, f"has {shown} crops", "with real crops")
    return _of(found[0], run, crops_said(found[0].name, run.name, str(shown), found[1]))


def options(run: Run, runs: Sequence[Run]) -> Finding | None:
    """On a run whose options are in another order, against the one in the published order; None for any other run.

    Which of two is in the published order is recorded; where both are shuffled, the reference is the one named first.
    """
    order = [other.name for other in runs]

    def before(other: Run) -> bool:
        ranks = is_shuffled(other), is_shuffled(run)
        return ranks[0] < ranks[1] or (ranks[0] == ranks[1] and order.index(other.name) < order.index(run.name))

    if not any(trajectory.sample.choices for trajectory in run.trajectories):
        return None
    found = _reference(run, runs, "options", before)
    if found is None:
        return _alone(run, "has its options shuffled", "in the published order") if is_shuffled(run) else None
    moved = [pair for pair in found[1] if pair.first.sample.choices != pair.second.sample.choices]
    return _of(found[0], run, options_said(found[0].name, run.name, moved))


def overview(run: Run, runs: Sequence[Run]) -> Finding | None:
    """On a run that may not zoom, against the one that may; None for any other run."""
    if run.settings.get("max_zooms") != 0:
        return None
    found = _reference(run, runs, "max_zooms", lambda other: other.settings.get("max_zooms") != 0)
    if found is None:
        return _alone(run, "sees the overview only", "with zooms")
    return _of(found[0], run, overview_said(found[0].name, run.name, found[1]))


def is_shuffled(run: Run) -> bool:
    """Whether the options of its questions were put in an order drawn by a seed."""
    return any(trajectory.shuffle_seed is not None for trajectory in run.trajectories)


def _reference(
    run: Run, runs: Sequence[Run], change: str, wanted: Callable[[Run], bool]
) -> tuple[Run, list[Pair]] | None:
    """The first other run that is wanted and differs in `change` alone, with the pairs of the two."""
    for other in runs:
        if other is not run and wanted(other):
            pairs = shared(other.trajectories, run.trajectories)
            if pairs and differing(pairs) == {change}:
                return other, pairs
    return None


def differing(pairs: Sequence[Pair]) -> set[str]:
    """What differs between the two runs of the pairs: names of settings, "model", "strategy" and "options".

    A strategy that only takes the zooms away differs in `max_zooms`, and in nothing else.
    """
    found: set[str] = set()
    for first, second in ((pair.first, pair.second) for pair in pairs):
        names = first.settings.keys() | second.settings.keys()
        found |= {name for name in names if first.settings.get(name) != second.settings.get(name)}
        if first.policy != second.policy:
            found.add("model")
        budgets = (first.settings.get("max_zooms"), second.settings.get("max_zooms"))
        if first.strategy != second.strategy and 0 not in budgets:
            found.add("strategy")
        if first.sample.choices != second.sample.choices:
            found.add("options")
    return found


def _of(reference: Run, control: Run, sentence: str) -> Finding:
    return Finding(sentence, frozenset((reference.name, control.name)))


def _alone(run: Run, has: str, other: str) -> Finding:
    return Finding(f"{run.name} {has}; the run {other} that is the same in all else is not among those compared.")


# --- what is said of each


def crops_said(reference: str, control: str, shown: str, pairs: Sequence[Pair]) -> str:
    """Where the reference zoomed, accuracy should fall without the real crops. Questions into which it did not zoom are
    the same for both."""
    zoomed = [pair for pair in pairs if pair.first.zooms]
    if not zoomed:
        return f"{reference} zoomed into none of {_questions(pairs)}, so that crops, {shown} or real, play no part."
    found = Measured.of(zoomed)
    meaning = {
        -1: "what is lost comes from what the crops show.",
        0: "as far as this can tell, the crops are not what the answers come from.",
        1: "the crops are not what the answers come from; it is better off without them.",
    }
    where = f"On {_questions(zoomed)} into which {reference} zoomed"
    return f"{where}, {shown} crops instead of real ones ({control}) take {found.said}: {meaning[found.direction]}"


def options_said(reference: str, control: str, moved: Sequence[Pair]) -> str:
    """In another order of the options accuracy should stay."""
    found = Measured.of(moved)
    meaning = {
        -1: f"the order in {reference} gives answers away.",
        0: "nothing here shows that the order gives the answer away.",
        1: f"the order matters, and that in {reference} is the harder one.",
    }
    where = f"On {_questions(moved)} whose options stand in another order in {control} than in {reference}"
    return f"{where}, that order takes {found.said}: {meaning[found.direction]}"


def overview_said(reference: str, control: str, pairs: Sequence[Pair]) -> str:
    """What can be answered without zooms is no evidence of looking closer."""
    found = Measured.of(pairs)
    meaning = {
        -1: "what is lost comes from looking closer; the rest is answered without it.",
        0: "nothing here shows that looking closer brings anything.",
        1: "looking closer costs accuracy.",
    }
    where = f"On {_questions(pairs)}, the overview alone ({control}) instead of zooms ({reference})"
    return f"{where} takes {found.said}: {meaning[found.direction]}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracy of both runs over some pairs, and its paired difference. direction: -1 where it fell, 1 where it rose, 0
    where that cannot be told from chance: the interval holds 0, or p is not below 0.05, as with a handful of questions."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    direction: int
    questions: int

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Measured:
        right, names = right_of(pairs), [pair.question for pair in pairs]
        found = paired(right, names)
        first, second = (sum(side) / len(pairs) for side in zip(*right, strict=True))
        low, high = found["ci95"]
        return cls(first, second, found["difference"], low, high, found["p"], direction(found), len(set(names)))

    @property
    def said(self) -> str:
        """What a change takes: `accuracy from A to B (...)`."""
        few = f", rough with fewer than {FEW} questions" if self.questions < FEW else ""
        if not self.direction and not self.low <= 0 <= self.high:
            few += f"; by chance with p {self.p:.2f}"  # which is why it says nothing
        return (
            f"accuracy from {self.first:.3f} to {self.second:.3f} "
            f"({self.difference:+.3f}, 95 % {self.low:+.3f} to {self.high:+.3f}{few})"
        )


def direction(found: dict[str, Any], level: float = _LEVEL) -> int:
    """-1 for a fall, 1 for a rise, 0 where neither can be told from chance. level: what p must stay below."""
    low, high = found["ci95"]
    if found["p"] >= level or low <= 0 <= high:
        return 0
    return -1 if high < 0 else 1


def _questions(pairs: Sequence[Pair]) -> str:
    return "the one question" if len(pairs) == 1 else f"the {len(pairs):,} questions"


# --- letters


@dataclass(frozen=True, slots=True)
class Letters:
    """Of the questions with options whose answer names one, and of which one is known to be right: how often each letter
    was right, and how often it was chosen. others: questions with options whose answer names none.

    leaning: letters that were chosen more or less often than they are right, by more than chance, with the difference of
    the shares as `compare.paired` gives it.
    """

    n: int
    others: int
    right: Counter[str]
    chosen: Counter[str]
    leaning: dict[str, dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """All letters, in order."""
        return sorted(self.right.keys() | self.chosen.keys(), key=lambda one: (len(one), one))


def letters(trajectories: Sequence[Trajectory]) -> Letters | None:
    """The letters of a run's answers; None if no question has options."""
    asked = [(true, _letter(t.answer, t.sample), t) for t in trajectories if (true := _right_letter(t.sample))]
    if not asked:
        return None
    rows = [(true, said, question_of(t.sample)) for true, said, t in asked if said is not None]
    right, chosen = Counter(true for true, _, _ in rows), Counter(said for _, said, _ in rows)
    found = Letters(len(rows), len(asked) - len(rows), right, chosen, {})
    for letter in found.names:
        shares = paired([(true == letter, said == letter) for true, said, _ in rows], [name for _, _, name in rows])
        if direction(shares, _LEVEL / len(found.names)):  # as many letters are tested as there are
            found.leaning[letter] = shares
    return found


def letters_said(name: str, found: Letters) -> str:
    """Whether a run leans towards letters."""
    if not found.n:
        return f"None of the {found.others:,} answers of {name} to questions with options names one."
    several = f"the {found.n:,} answers of {name} that name an option"
    asked = several if found.n > 1 else f"the one answer of {name} that names an option"
    if not found.leaning:
        return f"In {asked}, no letter is chosen more or less often than it is right by more than chance."
    parts = [
        f"{letter} is chosen in {found.chosen[letter] / found.n:.3f} and right in {found.right[letter] / found.n:.3f} "
        f"({one['difference']:+.3f}, 95 % {one['ci95'][0]:+.3f} to {one['ci95'][1]:+.3f})"
        for letter, one in found.leaning.items()
    ]
    return f"In {asked}, {'; '.join(parts)}: the letter itself weighs in the choice."


def _right_letter(sample: Sample) -> str | None:
    found = [_letter(answer, sample) for answer in sample.answers] if sample.choices else []
    return next((letter for letter in found if letter), None)


def _letter(answer: str | None, sample: Sample) -> str | None:
    """The letter of the option that an answer names by letter or text; None if it names none."""
    text = None if answer is None else scoring.choice_of(answer, sample.choices)
    return next((letter for letter, option in lettered(sample.choices) if option == text), None)
