"""What stands first on the page of a comparison."""

from __future__ import annotations

from cof_agent.evaluation.controls import letters, letters_said
from cof_agent.evaluation.runs import Run
from cof_agent.evaluation.verdict import verdict
from tests.evaluation.test_controls import ALL, HALF, NONE, lettered_run, run


def test_each_other_run_and_each_control_has_a_sentence() -> None:
    real, better, same = run("real", HALF), run("better", ALL, policy="big"), run("same", HALF, policy="other")
    said = verdict([real, better, same, run("blank", NONE, crop="blank")])
    assert len(said) == 3, "what is said of a control is not said twice"
    start = (
        "On the 60 questions that both were asked, better instead of real takes accuracy from 0.500 to 1.000 (+0.500"
    )
    assert said[0].startswith(start) and said[0].endswith("better is better than real.")
    assert said[1].endswith("this difference may be chance.")
    assert said[2].startswith("On the 60 questions into which real zoomed, blank crops")
    assert verdict([better, real])[0].endswith("real is worse than better.")


def test_a_run_alone_says_its_accuracy() -> None:
    assert verdict([run("one", ALL)]) == ["one has an accuracy of 1.000 on 60 questions (95 % 0.940 to 1.000)."]


def test_letters_are_named_where_a_run_leans_towards_some() -> None:
    leaning, even = Run("leaning", lettered_run("AAB" * 20 + "ABC" * 20)), Run("even", lettered_run("ABC" * 40))
    assert [sentence for sentence in verdict([even, leaning]) if "letter" in sentence] == [
        letters_said("leaning", found) for found in [letters(leaning.trajectories)] if found
    ]
