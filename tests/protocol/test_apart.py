"""Turns in parts, as servers have them, and put together again."""

from __future__ import annotations

import itertools
import json

from cof_agent import protocol
from cof_agent.protocol.dialects import dialect
from cof_agent.trajectory import Answer, Malformed, Zoom

CALL = '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
OTHER = "<tool_call><function=rotate><parameter=degrees>90</parameter></function></tool_call>"
BROKEN = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d"</tool_call>'
ZOOM = ("image_zoom_in_tool", '{"bbox_2d": [1, 2, 3, 4]}')


def test_a_turn_comes_back_to_the_letter() -> None:
    for thought in ("", "I look."):
        for text in ("", "Closer.", "The sign says <b>7</b>."):
            for calls in ((), (ZOOM,), (ZOOM, ("rotate", '{"degrees": 90}'))):
                turn = protocol.put_together(thought, text, calls)
                parts = protocol.in_parts(turn, thought=True)
                assert (parts.thought, parts.text, parts.calls) == (thought, text, calls)
                assert protocol.put_together(parts.thought, parts.text, [c for c in parts.calls if c]) == turn


def test_a_server_gets_as_many_calls_as_a_turn_makes() -> None:
    """A tool's result is shown for each: one call more, in a thought, and a crop would answer the wrong one."""
    native = dialect("native")
    for pieces in itertools.product(("<think>", "</think>", CALL, OTHER, " so "), repeat=5):
        turn = "".join(pieces)
        made = [call for call in protocol.read(turn, native) if isinstance(call, protocol.Call)]
        for thought in (True, False):
            assert len(protocol.in_parts(turn, thought=thought).calls) == len(made), turn


def test_a_thought_of_a_server_ends_where_the_server_says() -> None:
    turn = protocol.put_together(f"Shall I?</think>{CALL}", "<answer>7</answer>", ())
    assert protocol.parse(turn) == (Answer("7"),)


def test_a_thought_that_is_no_field_stays_where_it_was() -> None:
    for turn, text in (
        (f"<think>a</think>\n\nb\n{CALL}", "<think>a</think>\n\nb"),
        (f"a</think>\n{CALL}", "a</think>"),
        ("<think>a</think>\n\nSTOP \n", "<think>a</think>\n\nSTOP \n"),
        (f"<think>cut {CALL}", "<think>cut"),
    ):
        parts = protocol.in_parts(turn, thought=False)
        assert (parts.thought, parts.text) == ("", text)


def test_calls_are_those_that_parse_reads_in_the_same_order() -> None:
    native = dialect("native")
    for turn in (
        CALL,
        f"a\n{CALL}\nb\n{CALL} c",
        f"{CALL}{BROKEN}{CALL}",
        f"<think>not {CALL} yet</think>{CALL}",
        f"not {CALL} yet</think>{CALL}",
        f"{OTHER}\n{CALL}",
        BROKEN,
        "STOP",
        "",
    ):
        for thought in (True, False):
            calls = protocol.in_parts(turn, thought=thought).calls
            actions = protocol.parse(turn, ("rotate",), dialect=native)
            read = [None if isinstance(one, Malformed) else type(one) for one in actions]
            if calls:
                assert [one is None for one in calls] == [one is None for one in read], turn
                assert all(json.loads(one[1]) for one in calls if one)
            else:
                assert len(actions) == 1 and not isinstance(actions[0], Zoom)


def test_a_call_that_nobody_can_read_stays_in_the_text() -> None:
    parts = protocol.in_parts(f"a\n{BROKEN}\n{CALL}", thought=True)
    assert (parts.text, parts.calls) == (f"a\n{BROKEN}", (None, ZOOM))
    odd = CALL.replace("image_zoom_in_tool", "a tool of mine")
    assert protocol.in_parts(odd, thought=True).calls == (None,)
