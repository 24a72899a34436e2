"""No text of a model breaks its reading, takes more than linear time, or is lost in the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

import pytest

from cof_agent import protocol
from tests.computing import timed
from tests.faults import texts

MANY = 8_000  # a campaign reads 200,000
LINEAR = 1.0  # seconds of computing for a text of 100,000 characters
REPEATED = (
    *texts.TAGS,
    *(
        "<think>a",
        "<tool_call>{",
        "</tool_call>}",
        "<answer>",
        "<answer></answer>",
        "[",
        "{",
        '{"a":',
        "'",
        '"',
        "\\",
        "//",
    ),
    *(
        "/*",
        "# ",
        " ",
        "\n",
        ",",
        "1,",
        " 1 ,",
        "<|im_end|>",
        "9",
        "\u202e",
        "\ud800",
        "<think></think>",
        "}{",
        "</think>",
    ),
)
READERS: dict[str, Callable[[str], object]] = {
    "read": protocol.read,
    "parse": protocol.parse,
    "well_formed": protocol.well_formed,
    "thought": protocol.thought,
    "without_tags": protocol.without_tags,
    "json_in": protocol.json_in,
    "begins_anew": protocol.begins_anew,
    "box_after": lambda text: protocol.box_after(text, 0),
}


@pytest.mark.slow
def test_hostile_texts_are_read() -> None:
    found = [f"text {number}: {fault}\n{text!r}" for number, text, fault in islice(texts.faults(range(MANY)), 5)]
    assert not found, "\n".join(found)


def test_the_grammar_reaches_every_kind_of_action() -> None:
    """Else the texts would be hostile to the first lines of the parser only."""
    kinds = {
        (action.kind, protocol.well_formed(text))
        for text in (texts.text_of(0, number) for number in range(5_000))
        for action in protocol.parse(text, texts.TOOLS)
    }
    assert {
        ("zoom", True),
        ("answer", True),
        ("zoom", False),
        ("answer", False),
        ("use", False),
        ("malformed", False),
    } <= kinds


def test_a_fault_is_found() -> None:
    """The check itself can fail."""

    class Careless(texts.Reading):
        def _check(self, text: str) -> None:
            super()._check(text)
            assert "7K" not in text

    assert Careless().fault_of("<answer>7K</answer>") is not None
    assert Careless().fault_of("<answer>7L</answer>") is None


@pytest.mark.parametrize("part", REPEATED)
def test_time_is_linear(part: str) -> None:
    """A repetition of 100,000 characters is read at once; in quadratic time it would take ten seconds at least."""
    text = (part * 100_000)[:100_000]
    for before in ("", "<think>", "<tool_call>", "<think></think><tool_call>", "<answer>"):
        for name, reader in READERS.items():
            _, seconds = timed(partial(reader, before + text), LINEAR)
            assert seconds <= LINEAR, f"{name} took {seconds:.1f} s on {before}{part!r} repeated"
