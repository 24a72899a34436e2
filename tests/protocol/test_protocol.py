"""The wire format: whatever a model writes is parsed, nothing raises, and what we write comes back."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cof_agent import protocol
from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.protocol import parse, thought, well_formed, write_answer, write_zoom
from cof_agent.protocol.dialects import dialect, ours
from cof_agent.trajectory import Action, Answer, Malformed, Observation, Sample, StopReason, Trajectory, Turn, Zoom
from tests.computing import timed

CALL = '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
OTHER = CALL.replace("1, 2, 3, 4", "5, 6, 7, 8")
ZOOM, OTHER_ZOOM = Zoom((1, 2, 3, 4)), Zoom((5, 6, 7, 8))

pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<answer>",
        "</answer>",
        CALL,
        '{"name":',
        '"arguments": {',
        "}",
    ]
    + [
        '"bbox_2d": [',
        "1, 2, 3, 4",
        "]",
        ",",
        "'",
        '"',
        "\\",
        "//",
        "/*",
        "*/",
        "#",
        "\n",
        "NaN",
        "1e999",
        "\u2028",
        "\ud800",
    ]
)
anything = st.lists(st.one_of(pieces, st.text(max_size=20)), max_size=40).map("".join)
plain_text = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"])).map(str.strip)


GARBAGE = (
    *("<think>", "</think>", "<think></think>", "<think>a</think>" + CALL, "<tool_call>", "</tool_call>", "<answer>"),
    *(
        "</answer>",
        "<tool_call></tool_call>",
        "<answer></answer>",
        '<tool_call>{"a":',
        "<",
        "[",
        "{",
        '"',
        "'",
        "\\",
        " ",
    ),
    *("/*", "//", "\n", ",", ", ", "<tool_call>{" + "'\\" * 1980 + "}", "<tool_call>{" + "/*" * 1980 + "}"),
    *("<tool_call>{" + '"\\' * 1980 + "}", "<tool_call>{" + "," * 3900 + "}", "<tool_call>" + "{[" * 1900 + "}"),
    *("\u0130", "\0"),
)


def _read(text: str) -> tuple[tuple[Action, ...], bool, str]:
    return parse(text), well_formed(text), thought(text)


def call(arguments: str, name: str = '"image_zoom_in_tool"') -> str:
    return f'<tool_call>{{"name": {name}, "arguments": {arguments}}}</tool_call>'


SLIPS: list[tuple[str, Zoom]] = [
    ('{"bbox_2d": [[1, 2, 3, 4]]}', ZOOM),
    ('{"bbox_2d": [[1, 2], [3, 4]]}', ZOOM),
    ('{"bbox_2d": "[1, 2, 3, 4]"}', ZOOM),
    ('{"bbox_2d": "1, 2, 3, 4"}', ZOOM),
    ('{"bbox_2d": "1., 2.0, 3e0, 0.4E+1"}', ZOOM),
    ('{"bbox_2d": ".1, .2, .5, 6e-1"}', Zoom((0.1, 0.2, 0.5, 0.6))),
    ('{"bbox_2d": "<|box_start|>(1,2),(3,4)<|box_end|>"}', ZOOM),
    ('{"box_2d": [1, 2, 3, 4]}', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4], "image": null}', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4], "image": "1"}', Zoom((1, 2, 3, 4), 1)),
    ('{"bbox_2d": [1, 2, 3, 4], "img_idx": 1}', Zoom((1, 2, 3, 4), 1)),
    ('{"bbox_2d": [1, 2, 3, 4], "img_idx": 1.0}', Zoom((1, 2, 3, 4), 1)),
    ('{"bbox_2d": [1, 2, 3, 4], "target_image": 2}', Zoom((1, 2, 3, 4), 1)),
    ('{"bbox_2d": [1, 2, 3, 4], "label": None}', ZOOM),
    ('{"bbox_2d": (1, 2, 3, 4)}', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4], "label": "the\nsign"}', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4]', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4]}}', ZOOM),
    ('{"bbox_2d": [1, 2, 3, 4}', ZOOM),
    ("{bbox_2d: [1, 2, 3, 4], label: sign}", ZOOM),
    ('{"bbox_2d": <|box_start|>(1,2),(3,4)<|box_end|>}', ZOOM),
    ('"{\\"bbox_2d\\": [1, 2, 3, 4]}"', ZOOM),
]
"""Arguments with the slips that models make, where what is meant is plain."""

XML = "<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n[1, 2, 3, 4]\n</parameter>\n</function>"

ACTIONS: list[tuple[str, list[Action]]] = [
    # other ways of writing a call
    (f"<tool_call>\n{XML}\n</tool_call>", [ZOOM]),
    (XML, [ZOOM]),
    (f"<tool_call>{XML}{XML.replace('1, 2, 3, 4', '5, 6, 7, 8')}</tool_call>", [ZOOM, OTHER_ZOOM]),
    (
        f"<tool_call>{XML.replace('</parameter>', '</parameter><parameter=image>2</parameter>')}</tool_call>",
        [Zoom((1, 2, 3, 4), 2)],
    ),
    (
        "<tool_call>image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]</arg_value>\n</tool_call>",
        [ZOOM],
    ),
    (
        '<tool_call>{"type": "function", "function": '
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}}</tool_call>',
        [ZOOM],
    ),
    ('<tool_call>{"bbox_2d": [1, 2, 3, 4]}\n{"bbox_2d": [5, 6, 7, 8]}</tool_call>', [ZOOM, OTHER_ZOOM]),
    ('<tool_call>[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]</tool_call>', [ZOOM, OTHER_ZOOM]),
    (f"<think>look</think>\n{CALL}", [ZOOM]),
    ("<think>look</think>\n<answer>red</answer>", [Answer("red")]),
    (CALL, [ZOOM]),
    ("<answer> 7 </answer>", [Answer("7")]),
    ("<answer><|begin_of_box|>STOP<|end_of_box|></answer>", [Answer("STOP")]),
    # several calls
    (f"<think>a</think>{CALL}{OTHER}", [ZOOM, OTHER_ZOOM]),
    (f"<think>a</think>{CALL} and <think>b</think> {OTHER}", [ZOOM, OTHER_ZOOM]),
    (f"{CALL}<think>b</think>{OTHER}", [ZOOM, OTHER_ZOOM]),
    (f"{CALL}<answer>early</answer>", [ZOOM]),
    (f"<answer>early</answer>{CALL}", [ZOOM]),
    # missing and doubled tags
    (CALL.removesuffix("</tool_call>"), [ZOOM]),
    (CALL.removesuffix("</tool_call>") + OTHER, [ZOOM, OTHER_ZOOM]),
    (f"<think>look {CALL}", [ZOOM]),
    ("<think>look <answer>red", [Answer("red")]),
    ("<answer>red", [Answer("red")]),
    ("<think><think>a</think></think><answer>red</answer>", [Answer("red")]),
    ("<answer><answer>red</answer></answer>", [Answer("red")]),
    (f"<think>a</think></think>{CALL}", [ZOOM]),
    (f"{CALL}</think>", [ZOOM]),
    # a thought whose opening tag was part of the prompt
    ("is it <answer>blue</answer>? no</think><answer>red</answer>", [Answer("red")]),
    (f"I could write {CALL} but</think><answer>red</answer>", [Answer("red")]),
    # an answer inside a thought, a tag inside an answer
    ("<think><answer>blue</answer></think><answer>red</answer>", [Answer("red")]),
    (f"<think>maybe {CALL}</think><answer>red</answer>", [Answer("red")]),
    ("<answer>a <b>bold</b> one</answer>", [Answer("a <b>bold</b> one")]),
    ("<answer>re</think>d</answer>", [Answer("red")]),
    ("<answer>blue</answer><answer>red</answer>", [Answer("red")]),
    # JSON as models write it
    (call('{"bbox_2d": [1, 2, 3, 4,],}'), [ZOOM]),
    (call("{'bbox_2d': [1, 2, 3, 4]}", "'image_zoom_in_tool'"), [ZOOM]),
    (call('{"bbox_2d": [1, 2, 3, 4] // the sign\n}'), [ZOOM]),
    (call('{"bbox_2d": [1, 2, /* top */ 3, 4], # left\n}'), [ZOOM]),
    (call('{"bbox_2d": [1, 2, 3, 4], "label": "it\'s // no comment, }"}'), [ZOOM]),
    (call('{"bbox_2d": [1, 2, 3, 4], "label": "標識 \U0001f6d1"}'), [ZOOM]),
    (call('"{\\"bbox_2d\\": [1, 2, 3, 4]}"'), [ZOOM]),
    ('<tool_call>```json\n{"arguments": {"bbox_2d": [1, 2, 3, 4]}}\n```</tool_call>', [ZOOM]),
    ('<tool_call>{"bbox_2d": [1, 2, 3, 4]}</tool_call>', [ZOOM]),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": 2}'), [Zoom((1, 2, 3, 4), 2)]),
    # what is in the box is checked by the environment, and must fit into a record
    (call('{"bbox_2d": [1, "2", null, NaN]}'), [Zoom((1, "2", None, "nan"))]),
    (call('{"bbox_2d": []}'), [Zoom(())]),
    (call(f'{{"bbox_2d": {[1] * 100}}}'), [Zoom((1,) * 16)]),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": 9999}'), [Zoom((1, 2, 3, 4), 9999)]),
]
NO_ACTIONS = [
    ("", "There is neither a tool call nor an answer"),
    ("I do not know.", "There is neither a tool call nor an answer"),
    ("<think>I do not know.</think>", "There is neither a tool call nor an answer"),
    ("<think><answer>red</answer></think>", "There is neither a tool call nor an answer"),
    ("<answer>  </answer>", "The answer is empty."),
    ("<tool_call></tool_call>", "The tool call is not JSON"),
    ("<tool_call>zoom in on the sign</tool_call>", "The tool call is not JSON"),
    ("<tool_call>[1, 2, 3, 4]</tool_call>", "The tool call is not JSON"),
    ("<tool_call>{}</tool_call>", "The tool call has no bbox_2d"),
    (call("[1, 2, 3, 4]"), "The tool call has no arguments."),
    (call('{"bbox_2d": "the sign"}'), "The tool call has no bbox_2d"),
    (call('{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}'), "bbox_2d holds 2 boxes: write one call for each."),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": 1, "img_idx": 2}'), '"image" and "img_idx" name different images'),
    (call('{"bbox_2d": [1, 2, 3, 4], "target_image": 0}'), '"target_image" must be the number of an image in this'),
    ("<tool_call><function=></tool_call>", "The tool call is not of the form <function="),
    (
        call('{"bbox_2d": [1, 2, 3, 4]}', '"search"'),
        "There is no such tool; the only one is image_zoom_in_tool.",
    ),
    (call('{"bbox_2d": [1, 2, 3, 4]}', "[]"), "There is no such tool"),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": -1}'), '"image" must be the number'),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": 10000}'), '"image" must be the number'),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": "first"}'), '"image" must be the number'),
    (call('{"bbox_2d": [1, 2, 3, 4], "image": true}'), '"image" must be the number'),
]


class TestParse:
    def test_cases(self) -> None:
        for text, actions in ACTIONS:
            assert parse(text) == tuple(actions), text

    def test_a_broken_call_behind_a_good_one_is_not_dropped(self) -> None:
        for rest in ('{"bbox_2d": [[[[5, 6', "{what is that}", '{"bbox_2d": [5, 6, 7, 8] or so}'):
            first, second = parse(f'<tool_call>{{"bbox_2d": [1, 2, 3, 4]}}\n{rest}</tool_call>')
            assert first == ZOOM and isinstance(second, Malformed), rest

    def test_slips_are_forgiven(self) -> None:
        for arguments, zoom in SLIPS:
            assert parse(call(arguments)) == (zoom,), arguments

    def test_what_is_no_action_says_why(self) -> None:
        for text, reason in NO_ACTIONS:
            (action,) = parse(text)
            assert isinstance(action, Malformed) and action.reason.startswith(reason), text

    def test_a_call_in_a_list(self) -> None:
        call = '<tool_call>[{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}]</tool_call>'
        assert protocol.parse(call) == (Zoom((1, 2, 3, 4)),)

    def test_a_bad_call_keeps_its_place(self) -> None:
        first, second, third = parse(f"{CALL}<tool_call>?</tool_call>{OTHER}")
        assert (first, third) == (ZOOM, OTHER_ZOOM) and isinstance(second, Malformed)

    @given(anything)
    @settings(deadline=None, max_examples=80)
    def test_never_raises_and_is_never_empty(self, text: str) -> None:
        actions = parse(text)
        assert actions and all(isinstance(action, (Zoom, Answer, Malformed)) for action in actions)
        assert isinstance(thought(text), str) and isinstance(well_formed(text), bool)
        for action in actions:
            if isinstance(action, Zoom):
                json.dumps(action.box, allow_nan=False)

    @given(st.data())
    @settings(deadline=None, max_examples=60)
    def test_never_raises_on_damaged_well_formed_text(self, data: st.DataObject) -> None:
        text = data.draw(
            st.sampled_from([write_zoom("look", Box(1, 2, 3, 4), 1), write_answer("so", "red"), CALL + OTHER])
        )
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, min(len(text), start + 12)))
            text = text[:start] + data.draw(anything) + text[end:]
        assert parse(text)
        well_formed(text)

    def test_40_kb_of_garbage_takes_linear_time(self) -> None:
        for unit in GARBAGE:
            for before, after in (("", ""), ("<think></think>", "x"), ("<tool_call>{", "}</tool_call>")):
                text = before + (unit * (40_000 // len(unit) + 1))[:40_000] + after
                (parsed, *_), seconds = timed(partial(_read, text), limit=1.0)
                assert parsed and seconds <= 1, (before, unit[:40])


NOT_WELL_FORMED = (
    "",
    CALL,
    "<answer>red</answer>",
    "<think>a</think>",
    "<think>a<answer>red</answer>",
    "a</think><answer>red</answer>",
    "<think>a</think><answer>red",
    "<think>a</think>red</answer>",
    "so <think>a</think><answer>red</answer>",
    "<think>a</think><answer>red</answer> indeed",
    "<think>a</think> so <answer>red</answer>",
    f"<think>a</think>{CALL}<answer>red</answer>",
    f"<think>a</think><answer>red</answer>{CALL}",
    f"<think>a</think>{CALL} then {OTHER}",
    f"<think>a{CALL}</think><answer>red</answer>",
    "<think>a</think><think>b</think><answer>red</answer>",
    "<think>a</think></think><answer>red</answer>",
    "<think>a</think><answer><answer>red</answer>",
    "<think>a</think><answer>red</answer></answer>",
    "<think>a</think><answer>red</answer><answer>blue</answer>",
    "<think>a</think><answer></answer>",
    "<think>a</think><answer>",
    "<think>a</think><tool_call></tool_call>",
    f"<think>a</think><tool_call>{CALL}",
    f"<think>a</think>{CALL}</tool_call>",
    f"<think>a</think>{CALL}<tool_call>{{}}</tool_call>",
)


class TestWriting:
    @given(plain_text, st.lists(st.integers(0, 40_000), min_size=4, max_size=4), st.integers(0, 9_999))
    def test_a_zoom_round_trips(self, said: str, edges: list[int], image: int) -> None:
        text = write_zoom(said, Box(*edges), image)
        assert parse(text) == (Zoom(tuple(edges), image),)
        assert well_formed(text) is (edges[0] != edges[2] and edges[1] != edges[3])  # else the box is refused
        assert thought(text) == said

    @pytest.mark.parametrize(
        "box",
        ["[]", "[1, 2, 3]", '["a", "b", "c", "d"]', "[1, null, 3, 4]", "[1, 2, 3, 4, 5, 6, 7, 8]", "[1, 2, 1, 4]"],
    )
    def test_a_call_without_a_box_that_can_be_used_is_not_well_formed(self, box: str) -> None:
        assert not well_formed("<think>a</think>" + call('{"bbox_2d": ' + box + "}"))
        assert well_formed("<think>a</think>" + call('{"bbox_2d": [3, 4, 1, 2]}'))

    @given(plain_text, plain_text.filter(bool))
    def test_an_answer_round_trips(self, said: str, answer: str) -> None:
        text = write_answer(said, answer)
        assert parse(text) == (Answer(answer),)
        assert well_formed(text) and thought(text) == said

    def test_numbers_are_written_short(self) -> None:
        assert '"bbox_2d": [1, 2, 0.333, 4]' in write_zoom("", Box(1.0, 2, 1 / 3, 4.0))
        assert '"image"' not in write_zoom("", Box(1, 2, 3, 4))

    def test_a_turn_is_rewritten_only_if_it_is_one_thought_and_one_action(self) -> None:
        def rewritten(text: str) -> str:
            return protocol.rewrite(Turn(text, parse(text)), lambda box, image: Box(*(10 * edge for edge in box)))

        assert rewritten(write_zoom("look", Box(1, 2, 3, 4), 1)) == write_zoom("look", Box(10, 20, 30, 40), 1)
        assert rewritten(write_answer("so", "red")) == write_answer("so", "red")
        for text in (f"<think>a</think>{CALL}{OTHER}", CALL, "red"):
            with pytest.raises(ValueError, match="is not one thought and one action"):
                rewritten(text)

    def test_a_plain_answer_becomes_no_thought(self) -> None:
        native = dialect("native")

        def rewritten(text: str) -> str:
            turn = Turn(text, parse(text, dialect=native))
            return protocol.rewrite(turn, lambda box, image: Box(*box), native, ours())

        assert rewritten("Blue.") == write_answer("", "Blue.")
        assert rewritten("<think>A bag.</think>\nBlue.") == write_answer("A bag.", "Blue.")

    def test_well_formed(self) -> None:
        for text in (
            f"<think>a</think>\n{CALL}\n{OTHER}",
            "  <think>a</think>\n<answer>red</answer>\n",
            "<think></think><answer>red</answer>",
        ):
            assert well_formed(text), text

    def test_not_well_formed(self) -> None:
        for text in NOT_WELL_FORMED:
            assert not well_formed(text), text


class TestRender:
    overview = View(Size(2000, 1000), Box(0, 0, 2000, 1000), Size(560, 280))
    crop = View(Size(2000, 1000), Box(0, 0, 100, 100), Size(196, 196))
    sample = Sample("s", "scene.png", "Which colour is the sign?", ("red",), ("red", "blue"))

    def trajectory(self) -> Trajectory:
        observations = (Observation(self.crop, note="Note."), Observation(error="Error."), Observation(self.crop))
        turns = (
            Turn("<think>a</think>calls", (ZOOM, Malformed("Error."), ZOOM), observations),
            Turn(CALL, (ZOOM,), (Observation(self.crop),)),
            Turn("<answer>red</answer>", (Answer("red"),)),
        )
        return Trajectory(self.sample, self.overview, turns, StopReason.ANSWERED, "red")

    def test_images_are_numbered_as_the_views(self) -> None:
        trajectory = self.trajectory()
        messages = protocol.render(trajectory, system=CoordinateSystem.ABSOLUTE)
        assert [message["role"] for message in messages] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
            "user",
            "assistant",
        ]
        parts = [part for message in messages for part in message["content"]]
        assert (
            [part["view"] for part in parts if part["type"] == "image"]
            == list(range(len(trajectory.views)))
            == [0, 1, 2, 3]
        )
        assert messages[3]["content"] == [
            {"type": "image", "view": 1},
            {"type": "text", "text": "Image 1, 196 x 196 pixels. Note.\n"},
            {"type": "text", "text": "Error.\n"},
            {"type": "image", "view": 2},
            {"type": "text", "text": "Image 2, 196 x 196 pixels."},
        ]
        assert messages[2]["content"] == [{"type": "text", "text": "<think>a</think>calls"}]
        assert messages[1]["content"][1]["text"] == "Which colour is the sign?\nA. red\nB. blue"

    @pytest.mark.parametrize("system", CoordinateSystem)
    def test_the_schema_stands_in_the_system_message(self, system: CoordinateSystem) -> None:
        text = protocol.system_prompt(system)
        listed = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
        assert json.loads(listed) == protocol.tool_schema(system)

    def test_another_system_prompt_can_be_given(self) -> None:
        messages = protocol.render(self.trajectory(), system=CoordinateSystem.UNIT, prompt="Be brief.")
        assert messages[0]["content"] == [{"type": "text", "text": "Be brief."}]

    def test_letters_go_on_after_z(self) -> None:
        letters = [letter for letter, _ in protocol.lettered(["x"] * 53)]
        assert letters[0] == "A" and letters[25:28] == ["Z", "AA", "AB"] and letters[52] == "BA"

    def test_what_was_never_shown_is_refused(self) -> None:
        trajectory = Trajectory(self.sample, None, (), StopReason.ERROR)
        with pytest.raises(ValueError, match="sample s was never shown"):
            protocol.render(trajectory, system=CoordinateSystem.UNIT)


class TestBounds:
    """A turn of a megabyte is kept and read in part; the part says so."""

    def test_a_long_turn_keeps_its_beginning_and_its_end(self) -> None:
        text = "<think>" + "x" * 1_000_000 + "</think><answer>red</answer>"
        kept = protocol.bounded(text)
        assert len(kept) < 100_100 and kept.startswith("<think>xxx")
        assert "[... 900,035 characters left out ...]" in kept
        assert protocol.parse(kept) == (Answer("red"),)
        assert protocol.bounded(kept[:100_000]) == kept[:100_000]

    def test_of_many_calls_the_rest_is_counted(self) -> None:
        call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}</tool_call>'
        actions = protocol.parse(call * 100)
        assert len(actions) == 65 and all(isinstance(action, Zoom) for action in actions[:64])
        assert actions[64] == Malformed("36 more tool calls of this turn were not read.")
        assert len(protocol.parse(call * 64)) == 64


def test_a_box_is_found_however_it_is_written() -> None:
    for text in (
        '```json\n[{"bbox_2d": [10, 20, 300, 400], "label": "dog"}, {"bbox_2d": [5, 6, 7, 8]}]\n```',
        '{"bbox_2d": [[10, 20, 300, 400]]}',
        '{"bbox_2d": "[10, 20, 300, 400]"}',
        "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|>",
        "<think>[1, 2, 3, 4]</think>The dog is at [10, 20, 300, 400].",
        '```json\n[{"bbox_2d": [10, 20, 300, 400]},{"bbox_2d": [5, 6, 7',
        'As in [1], {"bbox": [10.0, 20, 300, 400]}',
        "[[10, 20], [300, 400]]",
    ):
        assert protocol.box_in(text) == (10, 20, 300, 400), text
    for text in ("", "nowhere", '{"bbox_2d": null}', '{"point_2d": [10, 20]}', "[1, 2, 3]", "[" * 10_000):
        assert protocol.box_in(text) is None


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("<think>see [1, 2, 3, 4]</think> [5, 6, 7, 8]", (5, 6, 7, 8)),
        ("◁think▷see [1, 2, 3, 4]◁/think▷ [5, 6, 7, 8]", (5, 6, 7, 8)),
        ("a</think>[1, 2, 3, 4]</think>[5, 6, 7, 8]", (5, 6, 7, 8)),
        ("<think>see [1, 2, 3, 4]", None),  # cut off
        ("[1, 2, 3, 4]", (1, 2, 3, 4)),
    ],
)
def test_a_box_is_named_behind_the_thought(text: str, box: tuple[float, ...] | None) -> None:
    assert protocol.box_in(text) == box
    held = protocol.json_in(text)
    assert held == (None if box is None else list(box))
