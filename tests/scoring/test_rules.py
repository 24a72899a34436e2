"""What counts as right, and the figures of a run."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cof_agent import scoring
from cof_agent.evaluation import metrics as evaluate
from cof_agent.evaluation.metrics import figures, interval, summarise, wilson
from cof_agent.geometry import Box, Size, View
from cof_agent.protocol import write_zoom
from cof_agent.scoring.similarity import similarity
from cof_agent.trajectory import Answer, Malformed, Observation, Sample, StopReason, Tokens, Trajectory, Turn, Zoom

VIEW = View(Size(400, 300), Box(0, 0, 400, 300), Size(392, 308))


def run(answer: str | None, sample: Sample, *turns: Turn, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    return Trajectory(sample, VIEW, turns, stop, answer=answer)


MATCHING: dict[tuple[str, str, tuple[str, ...]], bool] = {
    ("Red", "red", ()): True,
    (" red. ", "red", ()): True,
    ("red", "blue", ()): False,
    ("07", "7", ()): False,  # a label, not a number
    ("1,000", "1000", ()): True,
    ("2.50", "2.5", ()): True,
    ("B", "red", ("blue", "red")): True,
    ("(b)", "red", ("blue", "red")): True,
    ("B. red", "red", ("blue", "red")): True,
    ("B. blue", "red", ("blue", "red")): False,  # letter and text disagree
    ("A", "red", ("blue", "red")): False,
    ("Z", "red", ("blue", "red")): False,
    ("A", "A", ("B", "A")): True,  # the text of a choice goes before its letter
    ("B", "A", ("B", "A")): False,
    ("A red one", "red", ("red", "blue")): True,
    ("red, blue", "red blue", ()): False,  # commas go from numbers only
    ("ＲＥＤ", "red", ()): True,
    ("", "red", ()): False,
}


def test_matching() -> None:
    def matches(answer: str, truth: str, choices: tuple[str, ...]) -> bool:
        return scoring.matches(answer, Sample("s", "i", "q", (truth,), choices))

    assert {case: matches(*case) for case in MATCHING} == MATCHING


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), max_size=5))
@example("0.\r[", [])
def test_any_answer_can_be_scored(answer: str, choices: list[str]) -> None:
    scoring.matches(answer, Sample("s", "i", "q", ("red",), tuple(choices)))
    assert scoring.normalise(scoring.normalise(answer)) == scoring.normalise(answer)


def test_no_answer_is_wrong_and_no_truth_is_not_scored() -> None:
    assert scoring.accuracy(run(None, Sample("s", "i", "q", ("red",)), stop=StopReason.MAX_ZOOMS)) is False
    assert scoring.accuracy(run("red", Sample("s", "i", "q"))) is None


NUMBERS: dict[tuple[str | None, str], bool | None] = {
    ("1,234", "1234"): True,
    ("1 234 567", "1,234,567"): True,
    ("3,5", "3.5"): False,  # a comma separates thousands, and nothing else
    ("2020", "2019"): False,  # whole numbers exactly
    ("101 cars", "100 cars"): False,
    ("12", "12 cars"): True,
    ("12 cars", "12"): True,
    ("10.4", "10.0"): True,
    ("10.5", "10.0"): True,  # 5 % are within
    ("10.51", "10.0"): False,
    ("10", "10.4"): True,  # it is the truth that must be met exactly, or need not
    ("12.2", "12"): False,
    ("-10.0", "10.0"): False,
    ("\N{MINUS SIGN}10.2", "-10.0"): True,
    ("0.1", "0.0"): False,
    ("59 %", "57%"): True,
    ("61%", "57%"): False,
    ("57", "57 percent"): True,
    ("0.57", "57%"): True,
    ("57%", "0.57"): True,
    ("2.0 m", "2.0 km"): False,
    ("$1.25 million", "$1,200,000.00"): True,
    ("1.9 million", "2 million"): True,
    ("3 or 4", "4"): False,
    ("not 4", "4"): False,
    ("no idea", "4"): False,
    ("9" * 5000, "4"): False,
    (None, "4"): False,
    ("a dozen", "12|a dozen"): True,
    ("red", "red"): None,  # nothing to compare
    ("7", "07"): None,  # a label
    ("12:30", "12:30"): None,
    ("2019-2020", "2019-2020"): None,
}


def test_numbers_within_a_tolerance() -> None:
    def number(answer: str | None, truths: str) -> bool | None:
        return scoring.number(run(answer, Sample("s", "i", "q", tuple(truths.split("|")))))

    assert {case: number(*case) for case in NUMBERS} == NUMBERS


NEARNESS: dict[tuple[str | None, tuple[str, ...]], float | None] = {
    ("Coca  COLA", ("coca cola",)): 1.0,
    ("coca col", ("coca cola",)): 8 / 9,
    ("abcd", ("abxx",)): 0.5,  # half of it is wrong, which published code still counts
    ("abcd", ("axxx",)): 0.0,
    ("abcde", ("abcxx",)): 0.6,
    ("hello", ("help", "helloo")): 5 / 6,  # the nearest
    ("kitten", ("sitting",)): 1 - 3 / 7,  # the example of every textbook
    ("", ("x",)): 0.0,
    ("x" * 100_000, ("red",)): 0.0,
    (None, ("red",)): 0.0,
    ("red", ()): None,
}


def test_anls() -> None:
    found = {case: scoring.anls(run(case[0], Sample("s", "i", "q", case[1]))) for case in NEARNESS}
    assert found == pytest.approx(NEARNESS)


@given(st.text(max_size=12), st.text(max_size=12))
def test_the_similarity_is_symmetric_and_a_share(first: str, second: str) -> None:
    assert similarity(first, second) == similarity(second, first)
    assert 0.5 <= similarity(first, second) <= 1 or similarity(first, second) == 0
    assert similarity(first, first) == 1


CHOSEN: dict[tuple[str | None, str], bool | None] = {
    ("B", "red"): True,
    ("red", "B"): True,  # the truth by its letter
    ("(b) red", "B. red"): True,
    ("A", "red"): False,
    ("green", "red"): False,
    (None, "red"): False,
    ("B", "green"): None,
    ("B", ""): None,
}


def test_choices() -> None:
    def choice(answer: str | None, truth: str) -> bool | None:
        return scoring.choice(run(answer, Sample("s", "i", "q", (truth,) if truth else (), ("blue", "red"))))

    assert {case: choice(*case) for case in CHOSEN} == CHOSEN


def test_a_letter_stands_for_its_choice_everywhere() -> None:
    sample = Sample("s", "i", "q", ("10.0",), ("9.8", "20.0"))
    assert scoring.choice(run("A", sample)) is None
    assert scoring.number(run("A", sample)) is True
    assert scoring.anls(run("B", sample)) == 0.75


def test_the_format_is_right_when_every_turn_is_and_the_last_one_answers() -> None:
    sample = Sample("s", "i", "q", ("red",))
    good, other = (Turn(text, ()) for text in ("<think>a</think><answer>red</answer>", "<answer>red</answer>"))
    zoom = Turn(write_zoom("a", Box(1, 2, 3, 4)), ())
    assert scoring.well_formed(run("red", sample, zoom, good))
    for answer, turns in (("red", (zoom, other)), ("red", (other, good)), (None, (zoom,)), ("red", ()), (None, ())):
        assert scoring.well_formed(run(answer, sample, *turns)) is False, (answer, turns)


def test_one_thing_that_is_no_action_makes_a_run_malformed() -> None:
    sample, bad, good = Sample("s", "i", "q"), Malformed("No."), Answer("red")
    assert scoring.malformed(run("red", sample, Turn("", (good, bad)), Turn("", (good,))))
    assert not scoring.malformed(run("red", sample, Turn("", (good,))))


def crop(x: float) -> Observation:
    return Observation(View(Size(400, 300), Box(x, 0, x + 100, 100), Size(112, 112)))


def test_targets_are_hit_when_crops_cover_half_of_each() -> None:
    sample = Sample("s", "i", "q", ("red",), boxes=(Box(0, 0, 100, 100), Box(200, 0, 300, 100)))
    zoom = Zoom((0, 0, 1, 1))
    assert scoring.target_hits(run("red", sample)) is None
    assert scoring.target_hits(run("red", sample, Turn("", (zoom,), (crop(0),)))) is False
    assert (
        scoring.target_hits(run("red", sample, Turn("", (zoom,), (crop(0),)), Turn("", (zoom,), (crop(240),)))) is True
    )
    assert scoring.target_hits(run("red", sample, Turn("", (zoom, zoom), (crop(0), crop(260))))) is False
    assert scoring.target_hits(run("red", sample, Turn("", (zoom, zoom), (crop(50), crop(250))))) is True


def test_figures_count_each_thing_once() -> None:
    known = Sample("a", "i", "q", ("red",), metadata={"category": "x"})
    bad = Turn("?", (Malformed("no"),), (Observation(error="no"),), Tokens(10, 2), 0.5)
    right = Turn("<think>a</think>\n<answer>red</answer>", (Answer("red"),), (), Tokens(20, 4), 0.25)
    rows = [
        run("red", known, right),
        run("red", known, bad, right),
        run("blue", known, right),
        run("x", Sample("b", "i", "q")),
    ]
    made = figures(rows)
    assert made["n"] == 4
    assert made["unscored"] == 1
    assert made["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert made["tokens_in"] == pytest.approx((20 + 30 + 20 + 0) / 4)
    assert made["malformed_rate"] == 0.25
    assert made["stop_reasons"] == {"answered": 4}
    summary = summarise(rows, tables={"by_answer": lambda one: str(one.answer)})
    assert summary["by_category"]["x"]["n"] == 3
    assert {row: found["n"] for row, found in summary["by_answer"].items()} == {"x": 1, "red": 2, "blue": 1}
    assert summary["by_resolution"]["to 512"]["n"] == 4


def test_image_tokens_are_counted_once_a_view_and_held_against_the_whole_picture() -> None:
    limits = {"grid": 28, "min_pixels": 56 * 56, "max_pixels": 448 * 448, "zoom_pixels": 112 * 112}
    turn = Turn("", (Zoom((0, 0, 1, 1)),), (crop(0),), Tokens(99, 2))
    played = replace(run("red", Sample("s", "i", "q", ("red",)), turn, turn), settings={"limits": limits})
    assert played.overview is not None
    overview = played.overview.shown_size.area / 28**2
    assert evaluate.image_tokens(played) == overview + 16 + 16
    assert evaluate.image_tokens_full(played) == 14 * 11  # 400 x 300 pixels become 392 x 308
    wide = replace(played, overview=View(Size(40_000, 3), Box(0, 0, 40_000, 3), Size(5600, 28)))
    assert evaluate.image_tokens_full(wide) == 1400 * 7  # shown distorted to a ratio of 200, as everywhere
    for unknown in (replace(played, settings={}), replace(played, settings={"limits": {"grid": "28"}})):
        assert (evaluate.image_tokens(unknown), figures([unknown, played])["image_tokens"]) == (None, overview + 32)
    unseen = replace(played, overview=None, turns=())
    assert figures([unseen])["image_tokens"] is None and figures([unseen])["image_tokens_full"] is None


def test_wilson() -> None:
    # Wilson 1927, computed by hand
    for right, n, bounds in ((0, 10, [0.0, 0.2775]), (10, 10, [0.7225, 1.0]), (50, 100, [0.4038, 0.5962])):
        assert wilson(right, n) == pytest.approx(bounds, abs=2e-4)
    assert wilson(0, 0) is None


def people(*answers: str) -> Sample:
    return Sample("v", "i.png", "?", answers, metadata={"scoring": "vqa"})


def test_vqa_accuracy_counts_the_people_who_agree() -> None:
    for answer, said, expected in (
        ("red", ["red"] * 10, 1.0),
        ("red", ["red"] * 3 + ["blue"] * 7, (3 * 2 / 3 + 7) / 10),
        ("red", ["red"] * 1 + ["blue"] * 9, 9 * (1 / 3) / 10),
        ("green", ["red"] * 10, 0.0),
        ("The two cats.", ["2 cats"] * 10, 1.0),
        ("don't", ["dont"] * 10, 1.0),
        ("U.S.A., 10 a.m.", ["usa 10 am"] * 10, 1.0),
        ("3,000 new_york", ["3000 new york"] * 10, 1.0),
        ("12-14", ["12 14"] * 10, 1.0),
        ("5", [".5"] * 10, 0.0),
        ("50", ["50%"] * 10, 0.0),
        ("rock roll", ["rock & roll"] * 10, 0.0),
        ("red", ["red"] * 5 + ["blue"] * 4 + [""], 1.0),
        ("35", ["3.5"] * 10, 0.0),
        (None, ["red"] * 10, 0.0),
        ("red", ["red"], 1.0),
    ):
        played = run(answer, people(*said))
        assert (scoring.vqa(played), scoring.score(played)) == pytest.approx((expected, expected)), (answer, said)


def test_a_benchmark_is_scored_by_its_own_rule() -> None:
    def scored(rule: str | None) -> float | None:
        return scoring.score(run("hallo", Sample("s", "i.png", "?", ("hello",), metadata={"scoring": rule})))

    assert (scored("anls"), scored("vqa"), scored("exact"), scored(None)) == (0.8, 0.0, 0.0, 0.0)
    assert scoring.score(run("red", people())) is None


def test_scores_between_right_and_wrong_have_an_interval_of_their_own() -> None:
    found = [run("red", people(*["red"] * k, *["blue"] * (10 - k))) for k in (1, 2, 3, 5)] * 10
    row = figures([replace(one, sample=replace(one.sample, id=str(n))) for n, one in enumerate(found)])
    low, high = row["accuracy_ci95"]
    assert row["accuracy"] == pytest.approx((0.3 + 0.6 + 0.9 + 1.0) / 4)
    assert 0.55 < low < 0.66 < 0.74 < high < 0.85
    assert interval([1, 0, 1, 1]) == wilson(3, 4)
    assert interval([]) is None


def test_plays_of_a_question_are_no_questions_of_their_own() -> None:
    """240 scores of 30 questions say as much as 30 do."""
    questions = [str(n) for n in range(30)] * 8
    low, high = interval([float(n % 2) for n in range(30)] * 8, questions) or (0, 0)
    assert 0.30 < low < 0.36 and 0.64 < high < 0.70
    assert interval([1.0] * 240, questions) == wilson(30, 30)


@pytest.mark.parametrize("reply", ["A", "A.", "(A)", "The answer is A.", "**A**", "\\boxed{A}"])
def test_a_letter_alone_is_that_of_an_option_in_benchmarks(reply: str) -> None:
    """Also where another option's text is that letter."""
    sample = Sample(
        "1", "a.png", "Which figure comes next?", ("C",), ("C", "B", "A", "none"), metadata={"scoring": "choice"}
    )
    assert scoring.score(run(reply, sample)) == 1.0
    assert scoring.score(run("C", sample)) == 0.0 and scoring.score(run("none", sample)) == 0.0
    assert scoring.score(run("It is none.", replace(sample, answers=("none",)))) == 1.0
