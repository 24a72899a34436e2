"""What an answer column can hold, and which choice it names."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cof_agent.data.answers import agreed, box_in, right_keys, understood, unwrapped
from cof_agent.data.choices import Choices, choice_columns, choices_of
from cof_agent.data.unusable import NOT_A_CHOICE, TWO_CHOICES, Unusable

CHOICES: Choices = {"A": "red", "B": "light blue", "C": "12", "D": "none of these"}


@pytest.mark.parametrize(
    ("wrapped", "text"),
    [
        ("red", "red"),
        ("<answer> red </answer>", "red"),
        ("<think>blue?</think>\n<answer>red</answer>", "red"),
        ("<think>blue?</think> red", "red"),
        ("<SUMMARY>x</SUMMARY>\n<CONCLUSION> red </CONCLUSION>", "red"),
        ("So it is \\boxed{red}.", "red"),
        ("\\boxed{\\text{red}}", "red"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("$\\boxed{12}$", "12"),
        ("$12$", "12"),
        ("**red**", "red"),
        ("Two and two.\n#### 4", "4"),
        ("Answer: red", "red"),
        ("The answer is red.", "red"),
        ("The correct answer is: (B)", "(B)"),
        ("a < b", "a < b"),
        ("answering machine", "answering machine"),
    ],
)
def test_an_answer_comes_out_of_its_wrapping(wrapped: str, text: str) -> None:
    assert unwrapped(wrapped) == text


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        ("EXIT", ("EXIT",)),
        (4, ("4",)),
        (4.0, ("4",)),
        (0.5, ("0.5",)),
        (True, ("yes", "true")),
        (False, ("no", "false")),
        ("TRUE", ("TRUE", "yes")),
        (["red", "RED", "red"], ("red", "RED")),
        ("['red', 'crimson']", ("red", "crimson")),
        ('["red"]', ("red",)),
        ("[1, 2]", ("[1, 2]",)),
        ("12 cm", ("12 cm",)),
        ({"text": ["red"], "answer_start": [3]}, ("red",)),
        ([{"answer": "red"}], ("red",)),
        (["\\boxed{3}"], ("3",)),
        (None, ()),
        (float("nan"), ()),
        ("  ", ()),
        ([None, "red"], ("red",)),
    ],
)
def test_accepted_texts(raw: Any, texts: tuple[str, ...]) -> None:
    assert understood(raw, {}).texts == texts


def test_the_answers_of_ten_people_are_kept_as_they_are() -> None:
    truth = understood([{"answer": "red", "answer_confidence": "yes"}] * 7 + [{"answer": "pink"}] * 3, {})
    assert truth.people and truth.texts == ("red",) * 7 + ("pink",) * 3


@pytest.mark.parametrize(
    ("raw", "keys"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("[B]", "B"),
        ("B.", "B"),
        ("Option B", "B"),
        ("B. light blue", "B"),
        ("(B) Light blue.", "B"),
        ("light blue", "B"),
        ("Light Blue!", "B"),
        ("<answer>B</answer>", "B"),
        ("\\boxed{B}", "B"),
        ("The answer is B.", "B"),
        ("A C", "AC"),
        ("A, C", "AC"),
        ("A and C", "AC"),
        ("C; A", "AC"),
        ("AC", "AC"),
        ("(A)(C)", "AC"),
        (["A", "C"], "AC"),
        (["red", "12"], "AC"),
        ("12", "C"),
        (12, "C"),
    ],
)
def test_a_choice_is_named(raw: Any, keys: str) -> None:
    truth = understood(raw, CHOICES)
    assert "".join(right_keys(truth, agreed([truth]))) == keys


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("E", NOT_A_CHOICE), ("green", NOT_A_CHOICE), ("AE", NOT_A_CHOICE), ("A. light blue", TWO_CHOICES)],
)
def test_an_answer_that_is_no_choice(raw: str, reason: str) -> None:
    with pytest.raises(Unusable) as found:
        understood(raw, CHOICES)
    assert found.value.reason == reason


def test_a_truth_value_among_choices() -> None:
    choices = {"A": "True", "B": "False"}
    truth = understood(False, choices)
    assert right_keys(truth, agreed([truth])) == ("B",)


@pytest.mark.parametrize(("numbers", "first"), [((0, 2, 1), "A"), ((3, 1, 2), "C"), ((1, 2, 1), "B")])
def test_where_a_set_counts_from_is_seen_from_all_its_numbers(numbers: tuple[int, ...], first: str) -> None:
    choices = {"A": "w", "B": "x", "C": "y"}
    truths = [understood(number, choices) for number in numbers]
    assert right_keys(truths[0], agreed(truths)) == (first,)


def test_choices_that_are_letters_themselves() -> None:
    crossed, plain = {"A": "B", "B": "A"}, {"A": "red", "B": "blue"}
    by_letter = [understood("A", crossed), understood("B", plain)]
    by_text = [understood("A", crossed), understood("red", plain)]
    assert right_keys(by_letter[0], agreed(by_letter)) == ("A",)
    assert right_keys(by_text[0], agreed(by_text)) == ("B",)


TEXTS = (
    st.text(string.ascii_lowercase + " -", min_size=2, max_size=12).map(str.strip).filter(lambda text: len(text) > 1)
)


@given(st.lists(TEXTS, min_size=2, max_size=6, unique=True), st.data())
def test_letter_text_and_both_name_the_same_choice(texts: list[str], data: st.DataObject) -> None:
    choices = choices_of(texts)
    place = data.draw(st.integers(0, len(texts) - 1))
    letter = string.ascii_uppercase[place]
    for written in (letter, f"({letter})", f"{letter}. {texts[place]}", f"<answer>{letter}</answer>"):
        truth = understood(written, choices)
        assert right_keys(truth, ("letter", "text")) == (letter,)


@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.text(max_size=8), max_size=4),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
    )
)
def test_anything_is_understood_or_refused(raw: Any) -> None:
    for choices in ({}, CHOICES):
        try:
            truth = understood(raw, choices)
        except Unusable:
            continue
        assert all(isinstance(text, str) for text in truth.texts)
        assert set(right_keys(truth, agreed([truth]))) <= set(choices)


@pytest.mark.parametrize(
    ("found", "choices"),
    [
        (["red", "blue"], ("red", "blue")),
        (["A. red", "B. blue"], ("red", "blue")),
        (["A. Smith", "Jones"], ("A. Smith", "Jones")),
        ([1, 2.0, 3.5], ("1", "2", "3.5")),
        ("A. red\nB. blue", ("red", "blue")),
        ("A. red; B. blue;", ("red", "blue")),
        ("['red', 'blue']", ("red", "blue")),
        ("red\nblue", ("red", "blue")),
        ({"A": "red", "B": "blue", "C": None}, ("red", "blue")),
        ({"text": ["red", "blue"], "label": ["A", "B"]}, ("red", "blue")),
        ([{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}], ("red", "blue")),
        ([{"A": "red"}, {"B": "blue"}], ("red", "blue")),
    ],
)
def test_choices_of_a_column(found: Any, choices: tuple[str, ...]) -> None:
    assert tuple(choices_of(found).values()) == choices


def test_choices_that_cannot_be_told_apart() -> None:
    for found in ("red", ["red"], [["red", "blue"]], 3):
        with pytest.raises(Unusable, match="choices"):
            choices_of(found)


def test_columns_of_one_choice_each() -> None:
    assert choice_columns(("question", "B", "A", "answer", "D")) == {"A": "A", "B": "B", "D": "D"}
    assert choice_columns(("option_1", "option_2")) == {"A": "option_1", "B": "option_2"}
    assert choice_columns(("Choice A", "Choice B")) == {"A": "Choice A", "B": "Choice B"}
    assert choice_columns(("Q", "A")) == {}


@pytest.mark.parametrize(
    ("raw", "asked", "box"),
    [
        ([1, 2, 3, 4], False, (1, 2, 3, 4)),
        ([[1, 2, 3, 4]], False, (1, 2, 3, 4)),
        ("[1, 2, 3, 4]", True, (1, 2, 3, 4)),
        ("[1, 2, 3, 4]", False, None),
        ("<box>(1,2),(3,4)</box>", True, (1, 2, 3, 4)),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "kite 7"}', True, (1, 2, 3, 4)),
        ("<answer>[{'Position': [1, 2, 3, 4]}]</answer>", True, (1, 2, 3, 4)),
        ([1, 2, 3], True, None),
        (["1", "2", "3", "4"], False, None),
        ("red", True, None),
    ],
)
def test_a_box_as_the_answer(raw: Any, asked: bool, box: tuple[float, ...] | None) -> None:
    assert box_in(raw, asked) == box


def test_several_boxes_as_the_answer() -> None:
    with pytest.raises(Unusable, match="answer cannot be read"):
        box_in("[1, 2, 3, 4] [5, 6, 7, 8]", True)
