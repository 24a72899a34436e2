"""What stands after, under and beside a line, and what cannot be asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cof_agent.geometry import Box
from cof_agent.ocr.lines import Line, agreed
from cof_agent.ocr.questions import readable
from cof_agent.ocr.relations import Relation, asked, solve

HEIGHT = 20


def line(text: str, x: float = 0, y: float = 0, *, sure: bool = True) -> Line:
    """A line of `text` from the point (x, y) on, in letters of 10 x 20 pixels."""
    return Line(text, Box(x, y, x + 10 * len(text), y + HEIGHT), sure)


PAGE = [
    line("Opening hours of the museum in winter"),
    line("Tuesday until Sunday", y=24),
    line("Annual ticket", y=200),
    line("45.50", x=300, y=202),
    line("120", x=500, y=201),
]


@pytest.mark.parametrize(
    ("relation", "name", "answer"),
    [
        (Relation.AFTER, "Opening hours of the", "museum"),
        (Relation.AFTER, "opening hours", "of"),
        (Relation.UNDER, "Opening hours of the", "Tuesday"),
        (Relation.ROW, "Annual ticket", "45.50"),
        (Relation.AFTER, "in winter", None),  # the last words of their line
        (Relation.UNDER, "Tuesday until Sunday", None),  # the next line is far below
        (Relation.UNDER, "of the museum", None),  # does not begin its line
        (Relation.ROW, "Opening hours", None),
        (Relation.AFTER, "no such words", None),
        (Relation.WHOLE, "", None),  # too much for a sign
    ],
)
def test_the_answer_follows_from_where_the_lines_stand(relation: Relation, name: str, answer: str | None) -> None:
    found = solve(relation, name, PAGE)
    assert (found and found.answer) == answer


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\u00ad"])
def test_the_rest_of_a_word_is_no_word(hyphen: str) -> None:
    assert solve(Relation.UNDER, "A page of", [line(f"A page of instruc{hyphen}"), line("tions for use", y=24)]) is None


def test_a_name_of_two_lines_names_none() -> None:
    assert (
        solve(Relation.AFTER, "Annual ticket", [line("Annual ticket office"), line("Annual ticket price", y=50)])
        is None
    )


def test_all_that_is_asked_is_solved_alike() -> None:
    questions = list(asked(PAGE))
    assert {relation for relation, _, _ in questions} == {Relation.AFTER, Relation.UNDER, Relation.ROW}
    for relation, name, found in questions:
        assert solve(relation, name, PAGE) == found


@pytest.mark.parametrize("unsure", range(2))
def test_a_question_needs_both_engines_for_each_of_its_lines(unsure: int) -> None:
    lines = [replace(one, sure=number != unsure) for number, one in enumerate(PAGE[:2])]
    assert Relation.UNDER not in {relation for relation, _, _ in asked(lines)}


def test_the_whole_text_of_a_sign() -> None:
    sign = [line("MIND"), line("THE GAP", y=30)]
    assert next((relation, found.answer) for relation, _, found in asked(sign)) == (Relation.WHOLE, "MIND THE GAP")


@pytest.mark.parametrize(
    "text",
    [
        "Opening hours of the mu-",  # a word that goes on below
        "Opening hours of the *",
        'Opening "hours" of the museum',  # could not be quoted
        "Opening <b>hours of museum",
        "a b c d museum",  # says too little to be found by
    ],
)
def test_what_cannot_be_asked(text: str) -> None:
    assert not [found for relation, _, found in asked([line(text), *PAGE[2:]]) if relation is Relation.AFTER]


def test_two_engines_agree_by_words() -> None:
    words = [line("museum", x=200), line("Opening", x=0), line("hours", x=80), line("other", y=100)]
    same, other, apart = agreed([line("opening hours  museum"), line("another", y=100), line("none", y=300)], words)
    assert (same.sure, other.sure, apart.sure) == (False, False, False)  # `museum` stands beside the line
    wide = Line("opening hours  museum", Box(0, 0, 300, 20))
    assert agreed([wide], words)[0].sure


def test_an_answer_in_the_overview_is_readable() -> None:
    found = solve(Relation.ROW, "Annual ticket", PAGE)
    assert found is not None
    assert readable(found, [line("from 45.50", x=300, y=205)])
    assert not readable(found, [line("from 45.50", y=400)])  # the same number at another place
    assert not readable(found, [line("46.50", x=300, y=205)])
