"""What holds for every set of options, every phrasing and every text."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cof_agent import protocol, scoring
from cof_agent.scoring.boxes import written_boxes
from cof_agent.scoring.normalise import number_form
from cof_agent.trajectory import Sample
from tests.computing import timed

LINEAR = 1.5  # seconds of computing for a reply of 30,000 characters

PHRASES = (
    *(
        "{}",
        " {} ",
        "{}.",
        "{}!",
        "**{}**",
        "*{}*",
        "`{}`",
        '"{}"',
        "\u201c{}\u201d",
        "'{}'",
        "\\boxed{{{}}}",
        "\\text{{{}}}",
        "{}\u3002",
    ),
    *(
        "<answer>{}</answer>",
        "<|begin_of_box|>{}<|end_of_box|>",
        "<b>{}</b>",
        "> {}",
        "- {}",
        "# {}",
        "({})",
        "[{}]",
        "{}\n",
    ),
    *(
        "The answer is {}.",
        "The answer is: {}",
        "Answer: {}",
        "answer: {}.",
        "**Answer:** {}",
        "Final answer: {}",
        "ANSWER IS {}",
    ),
    *(
        "The correct answer is {}.",
        "I think it is {}.",
        "I would say {}.",
        "I choose {}",
        "It is {}",
        "It's {}.",
        "So, {}.",
    ),
    *("It must be {}.", "Probably {}.", "Sure! The answer is {}.", "Therefore, the answer is {}.", "It seems to be {}"),
    *(
        "{}, I think",
        "{} is correct",
        "{} is the correct answer.",
        "My answer is {}",
        "{} because it is so",
        "I am sure: {}",
    ),
)
LETTER_PHRASES = (
    "Option {}",
    "option ({})",
    "Choice {}.",
    "Letter {}",
    "The correct option is {}.",
    "{})",
    "${}$",
    "\\({}\\)",
)
DENIALS = (
    *(
        "not {}",
        "It is not {}.",
        "The answer is not {}",
        "{} is wrong",
        "{} is not correct",
        "It isn't {}",
        "never {}",
        "Not {}.",
    ),
    *(
        "anything but {}",
        "neither {}",
        "everything except {}",
        "other than {}",
        "{} or something else",
        "no, not {}",
        "non-{}",
    ),
    *("I don't think it is {}", "It could be anything, {} too", "if it were {}"),
)
WORDS = (
    "red",
    "dark red",
    "blue",
    "light blue",
    "7",
    "70",
    "7.5",
    "a dog",
    "dogs",
    "left",
    "on the left",
    "Exit 4",
    "3 m",
    "30 m",
    "2019",
)
QUESTION = "What is shown?"

options = st.lists(st.sampled_from(WORDS), min_size=2, max_size=6, unique=True).map(tuple)


def credited(reply: str, choices: tuple[str, ...]) -> set[str]:
    """The options for which a reply is right."""
    return {truth for truth in choices if scoring.matches(reply, Sample("s", "i", QUESTION, (truth,), choices))}


@pytest.mark.parametrize("phrase", PHRASES)
@settings(max_examples=8)
@given(options)
def test_an_option_by_letter_text_or_both_matches_itself_and_no_other(phrase: str, choices: tuple[str, ...]) -> None:
    for letter, text in protocol.lettered(choices):
        for said in (letter, text, f"{letter}. {text}", f"({letter}) {text}", f"{letter}: {text}", text.upper()):
            assert credited(phrase.format(said), choices) == {text}, phrase.format(said)


@pytest.mark.parametrize("phrase", LETTER_PHRASES)
@settings(max_examples=8)
@given(options)
def test_a_letter_as_that_of_an_option_matches_itself_and_no_other(phrase: str, choices: tuple[str, ...]) -> None:
    for letter, text in protocol.lettered(choices):
        for said in (letter, letter.lower()):
            assert credited(phrase.format(said), choices) == {text}, phrase.format(said)


@pytest.mark.parametrize("phrase", DENIALS)
@settings(max_examples=8)
@given(options)
def test_what_is_denied_or_left_open_is_never_credited(phrase: str, choices: tuple[str, ...]) -> None:
    for letter, text in protocol.lettered(choices):
        for said in (letter, text, f"{letter}. {text}"):
            assert text not in credited(phrase.format(said), choices), phrase.format(said)
    for text in choices:
        assert not scoring.matches(phrase.format(text), Sample("s", "i", QUESTION, (text,)))


@pytest.mark.parametrize(
    "phrase", ["{} or {}", "{} and {}", "{}, {}", "{}/{}", "{}\n{}", "Either {} or {}.", "{}. {}.", "{} or maybe {}"]
)
@settings(max_examples=8)
@given(options)
def test_two_options_are_none(phrase: str, choices: tuple[str, ...]) -> None:
    lettered = protocol.lettered(choices)
    for (first, text), (second, other) in permutations(lettered, 2):
        for said in ((first, second), (text, other), (f"({first}) {text}", f"({second}) {other}"), (first, other)):
            assert credited(phrase.format(*said), choices) == set(), phrase.format(*said)


@given(options, st.sampled_from(PHRASES), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_options_does_not_matter(
    choices: tuple[str, ...], phrase: str, at: int, random: object
) -> None:
    reply = phrase.format(choices[at % len(choices)])
    assert credited(reply, choices) == credited(reply, choices[::-1]) == credited(reply, (*choices[1:], choices[0]))


@given(options, st.text(max_size=60))
def test_no_text_is_right_for_two_options(choices: tuple[str, ...], reply: str) -> None:
    assert len(credited(reply, choices)) <= 1


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_any_text_can_be_scored(reply: str, choices: list[str]) -> None:
    scoring.matches(reply, Sample("s", "i", reply, ("red",), tuple(choices)))
    assert scoring.normalise(scoring.normalise(reply)) == scoring.normalise(reply)
    assert scoring.matches(reply, Sample("s", "i", "q", (reply,)))


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_match_in_every_form_and_no_other_number(number: int, other: int) -> None:
    sample = Sample("s", "i", "How many are there?", (str(number),))
    for form in (
        f"{number}",
        f"{number:,}",
        f"{number}.0",
        f"There are {number:,}.",
        f"\\boxed{{{number}}}",
        f"**{number}**",
    ):
        assert scoring.matches(form.replace("-", "\N{MINUS SIGN}"), sample)
    for wrong in (number + 1, number * 10 + 1, -number if number else 1, other if other != number else number - 1):
        assert not scoring.matches(str(wrong), sample)
        assert not scoring.matches(f"{wrong:,}", sample)


@given(st.lists(st.integers(0, 9999), min_size=2, max_size=4))
def test_a_comma_makes_a_number_only_where_it_separates_thousands(parts: list[int]) -> None:
    text = ",".join(map(str, parts))
    joined = text.replace(",", "")
    separates = f"{int(joined):,}" == text
    assert (number_form(text) == joined) is separates
    assert scoring.matches(text, Sample("s", "i", "q", (joined,))) is separates


LONG = (
    *(
        "a" * 100_000,
        "1," * 50_000,
        "(" * 100_000,
        "**" * 50_000,
        "$ " * 50_000,
        "$a" * 50_000,
        "\\boxed{" * 15_000,
        "{" * 100_000,
    ),
    *(
        "B or " * 20_000,
        "not " * 25_000,
        "<answer>" * 12_000,
        "</think>" * 12_000,
        "<" * 100_000,
        "<b" * 50_000,
        "1.1." * 25_000,
    ),
    *(
        "\n" * 100_000,
        "# " * 50_000,
        " " * 100_000,
        "[1," * 30_000,
        "1 " * 50_000,
        "than " * 20_000,
        "答案" * 50_000,
        "-" * 100_000,
    ),
    *(
        "\\text{" * 16_000,
        "'s" * 50_000,
        "because " * 12_000,
        "A. red " * 15_000,
        "_" * 100_000,
        '{"a":' * 20_000,
        "\u0301" * 100_000,
    ),
)


@pytest.mark.parametrize("reply", LONG, ids=lambda reply: repr(reply[:8]))
def test_a_long_reply_takes_no_long_time(reply: str) -> None:
    reply = reply[:15_000]  # what took quadratic time would take minutes

    def read() -> None:
        for choices in ((), ("red", "blue", "green")):
            scoring.matches(reply, Sample("s", "i", "Is it red or blue?", ("red",), choices))
        scoring.matches(reply, Sample("s", "i", "Is it red?", ("yes",)))
        written_boxes(reply)

    _, seconds = timed(read, LINEAR)
    assert seconds <= LINEAR
