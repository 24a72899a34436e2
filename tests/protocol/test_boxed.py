"""What a box of TeX holds: the same for the agent, for scoring and for data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cof_agent import protocol
from cof_agent.data.answers import unwrapped as of_data
from cof_agent.protocol.boxed import last_boxed
from cof_agent.protocol.dialects import End, ours
from cof_agent.scoring.normalise import unwrapped as of_scoring
from cof_agent.trajectory import Answer

BOXED = replace(ours(), end=End(answer=("boxed",)))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (r"So \boxed{7}.", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7", "7"),
        (r"\boxed{x{1}y}", "x{1}y"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"\boxed{7} is what I put into \boxed.", "7"),
        (r"\boxed{cut off", "cut off"),
    ],
)
def test_all_read_the_same(text: str, held: str) -> None:
    assert last_boxed(text) == of_data(text) == of_scoring(text) == held
    assert protocol.parse(text, dialect=BOXED) == (Answer(held),)


def test_none_and_nothing() -> None:
    assert last_boxed("no box") is None
    assert last_boxed(r"in \boxed.") is None
    assert last_boxed(r"\boxed{}") == ""
