"""What is said of controls: the run each is held against, and sentences that follow the paired difference either way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cof_agent.evaluation import controls
from cof_agent.evaluation.compare import Pair, pairs_of
from cof_agent.evaluation.controls import Measured, differing, letters, letters_said
from cof_agent.evaluation.runs import Run
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Observation, Sample, StopReason, Trajectory, Turn

OVERVIEW = View(Size(1000, 500), Box(0, 0, 1000, 500), Size(448, 224))
CROP = Observation(view=View(Size(1000, 500), Box(0, 0, 100, 100), Size(112, 112)))
SETTINGS: dict[str, Any] = {"crop": "real", "max_zooms": 6, "sampling": {"seed": None}}
COUNT = 60

HALF = [k % 2 == 0 for k in range(COUNT)]
ALL, NONE = [True] * COUNT, [False] * COUNT


def run(
    name: str,
    right: Sequence[bool],
    *,
    policy: str = "nano",
    strategy: str = "focus",
    shuffle_seed: int | None = None,
    zoomed: Sequence[bool] = ALL,
    turned: int = 0,
    **settings: Any,
) -> Run:
    """A run that answers as many questions as `right` says. turned: places by which the options are moved on."""
    made = []
    for k, (good, close) in enumerate(zip(right, zoomed, strict=False)):
        options = ("red", "blue", "green")
        truth, other = options[k % 3], options[(k + 1) % 3]
        sample = Sample(f"q{k}", "a.png", f"Which {k}?", (truth,), options[turned:] + options[:turned])
        turns = (Turn("", (), (CROP,)),) if close else ()
        answer = truth if good else other
        made.append(
            Trajectory(
                sample,
                OVERVIEW,
                turns,
                StopReason.ANSWERED,
                answer,
                policy=policy,
                strategy=strategy,
                shuffle_seed=shuffle_seed,
                settings=SETTINGS | settings,
            )
        )
    return Run(name, made)


def findings(runs: Sequence[Run]) -> list[str]:
    return [found.sentence for found in controls.findings(runs)]


def pairs(first: Run, second: Run) -> list[Pair]:
    return pairs_of(first.trajectories, second.trajectories)


# --- the three controls


@pytest.mark.parametrize(
    ("reference", "control", "meaning"),
    [
        (ALL, NONE, "what is lost comes from what the crops show."),
        (HALF, HALF, "the crops are not what the answers come from."),
        (NONE, HALF, "the crops are not what the answers come from; it is better off without them."),
    ],
)
def test_blank_crops_should_cost_accuracy(reference: list[bool], control: list[bool], meaning: str) -> None:
    real, blank = run("real", reference), run("blank", control, crop="blank")
    [said] = findings([real, blank])
    assert said.endswith(meaning)
    assert said.startswith("On the 60 questions into which real zoomed, blank crops instead of real ones (blank) take")


def test_only_what_was_zoomed_into_can_suffer() -> None:
    """Forty questions answered from the overview must not water down the twenty that need a crop."""
    zoomed = [k < 20 for k in range(COUNT)]
    real = run("real", ALL, zoomed=zoomed)
    blank = run("blank", [not close for close in zoomed], zoomed=zoomed, crop="blank")
    said = controls.crops(blank, [real, blank])
    assert said is not None and said.pair == frozenset(("real", "blank"))
    assert "the 20 questions" in said.sentence
    assert "from 1.000 to 0.000 (-1.000, 95 % -1.000 to -1.000, rough with" in said.sentence
    unzoomed = run("real", ALL, zoomed=NONE)
    assert "zoomed into none of the 60 questions" in str(controls.crops(blank, [unzoomed, blank]))


def test_the_interval_in_the_sentence_is_that_of_the_paired_difference() -> None:
    real, blank = run("real", ALL), run("blank", HALF, crop="blank")
    found = Measured.of(pairs(real, blank))
    assert (found.first, found.second, found.difference, found.direction) == (1.0, 0.5, -0.5, -1)
    assert found.low == pytest.approx(-0.627, abs=0.02) and found.high == pytest.approx(-0.373, abs=0.02)
    assert f"({found.difference:+.3f}, 95 % {found.low:+.3f} to {found.high:+.3f})" in findings([real, blank])[0]


def test_a_handful_of_questions_proves_nothing() -> None:
    """Three of three lost: the bootstrap interval is one point, and chance does as much once in four."""
    real, blank = run("real", ALL[:3]), run("blank", NONE[:3], crop="blank")
    assert Measured.of(pairs(real, blank)).direction == 0
    assert "not what the answers come from" in findings([real, blank])[0]
    assert "rough with fewer than 30 questions" in findings([real, blank])[0]


@pytest.mark.parametrize(
    ("first", "second", "meaning"),
    [
        (ALL, HALF, "the order in real gives answers away."),
        (HALF, HALF, "nothing here shows that the order gives the answer away."),
        (HALF, ALL, "the order matters, and that in real is the harder one."),
    ],
)
def test_shuffled_options_should_cost_nothing(first: list[bool], second: list[bool], meaning: str) -> None:
    real, moved = run("real", first), run("moved", second, turned=1)
    [said] = findings([real, moved])
    assert said.endswith(meaning)
    assert said.startswith("On the 60 questions whose options stand in another order in moved than in real, that order")


def test_only_questions_with_another_order_count() -> None:
    real, moved = run("real", ALL), run("moved", NONE, turned=1)
    kept = [
        one if k < 12 else replace(one, sample=replace(one.sample, choices=real.trajectories[k].sample.choices))
        for k, one in enumerate(moved.trajectories)
    ]
    assert "On the 12 questions" in findings([real, Run("moved", kept)])[0]


def test_the_record_says_which_run_is_shuffled() -> None:
    shuffled, real = run("s", HALF, shuffle_seed=3), run("r", ALL, turned=1)
    [said] = findings([shuffled, real])  # the shuffled one is named first
    assert "in another order in s than in r" in said and said.endswith("the order in r gives answers away.")
    again = run("t", ALL, shuffle_seed=4, turned=1)
    assert "in another order in t than in s" in findings([shuffled, again])[-1]  # of two, the one named first
    alone = run("a", ALL, shuffle_seed=4, policy="other", turned=1)
    assert all("same in all else is not among" in said for said in findings([shuffled, alone]))
    assert len(findings([shuffled, alone])) == 2


@pytest.mark.parametrize(
    ("reference", "control", "meaning"),
    [
        (ALL, HALF, "what is lost comes from looking closer; the rest is answered without it."),
        (HALF, HALF, "nothing here shows that looking closer brings anything."),
        (NONE, HALF, "looking closer costs accuracy."),
    ],
)
def test_the_overview_alone_says_what_needs_no_zoom(reference: list[bool], control: list[bool], meaning: str) -> None:
    real = run("real", reference)
    for strategy in ("focus", "direct"):
        [said] = findings([real, run("over", control, strategy=strategy, max_zooms=0, zoomed=NONE)])
        assert said.endswith(meaning)
        assert said.startswith("On the 60 questions, the overview alone (over) instead of zooms (real) takes accuracy")


# --- which run a control is held against


def test_a_control_is_held_against_the_run_that_is_the_same_in_all_else() -> None:
    other = run("other", NONE, policy="bigger")
    seeded = run("seeded", NONE, sampling={"seed": 1})
    real, blank = run("real", ALL), run("blank", NONE, crop="blank")
    [said] = findings([other, seeded, real, blank])
    assert "into which real zoomed" in said
    [said] = findings([other, seeded, blank])
    assert said == (
        "blank has blank crops; the run with real crops that is the same in all else is not among those compared."
    )
    strangers = Run("real", [replace(one, sample=replace(one.sample, id="x")) for one in real.trajectories])
    assert "not among those compared" in findings([strangers, blank])[0]


def test_what_differs_is_named() -> None:
    real = run("real", ALL)
    assert differing(pairs(real, run("b", NONE, crop="blank"))) == {"crop"}
    assert differing(pairs(real, run("b", NONE, strategy="grid"))) == {"strategy"}
    assert differing(pairs(real, run("b", NONE, strategy="direct", max_zooms=0))) == {"max_zooms"}
    assert differing(pairs(real, run("b", NONE, policy="big", turned=1, enlarge=1.0))) == {
        "model",
        "options",
        "enlarge",
    }


def test_runs_that_are_no_controls_have_nothing_said_of_them() -> None:
    assert findings([run("a", ALL), run("b", HALF, policy="bigger"), run("c", HALF)]) == []
    assert findings([Run("none", []), Run("none", [])]) == []


# --- letters


def lettered_run(chosen: str) -> list[Trajectory]:
    """One question a letter, of which the right ones go A, B, C, A, B, C, ..."""
    real = run("real", [True] * len(chosen), zoomed=[False] * len(chosen)).trajectories
    return [replace(one, answer=letter) for one, letter in zip(real, chosen, strict=True)]


def test_letters_are_counted_by_what_answers_name() -> None:
    found = letters(lettered_run("ABCAAA"))
    assert found is not None and found.n == 6
    assert (found.right, found.chosen) == ({"A": 2, "B": 2, "C": 2}, {"A": 4, "B": 1, "C": 1})
    spelled = letters([replace(one, answer="blue") for one in lettered_run("AB")])
    assert spelled is not None and spelled.chosen == {"B": 2}
    assert letters([replace(one, sample=replace(one.sample, choices=())) for one in lettered_run("A")]) is None


def test_answers_that_name_no_option_speak_for_no_letter() -> None:
    """Else a run that answers little would seem to avoid every letter."""
    silent = [
        replace(one, answer=None if k % 2 else "purple") if k >= 20 else one
        for k, one in enumerate(lettered_run("ABC" * 40))
    ]
    found = letters(silent)
    assert found is not None and (found.n, found.others) == (20, 100)
    assert found.leaning == {} and "no letter is chosen" in letters_said("real", found)


def test_a_letter_that_draws_answers_is_named() -> None:
    found = letters(lettered_run("AAB" * 20 + "ABC" * 20))
    assert found is not None and set(found.leaning) == {"A", "C"}
    said = letters_said("real", found)
    assert "A is chosen in 0.500 and right in 0.333 (+0.167, 95 % " in said
    assert "C is chosen in 0.167 and right in 0.333 (-0.167, 95 % " in said


def test_silence_is_no_preference() -> None:
    found = letters([replace(one, answer=None) for one in lettered_run("ABC")])
    assert found is not None and (found.n, found.others, found.names) == (0, 3, [])
    assert letters_said("real", found) == "None of the 3 answers of real to questions with options names one."
