"""Each dialect in one conversation of three turns (a zoom, a broken call, a zoom at the border), by the table beside this file;
where dialects come from, and how they are refused.

Every line of the table was compared with the rules of the dialect by hand; `tests/parity/test_published.py` compares four of them
with their authors' own code.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent import Agent, Sample, protocol, scoring
from cof_agent.config import AgentConfig
from cof_agent.environment import ZoomEnvironment
from cof_agent.errors import InputError
from cof_agent.geometry import Box, CoordinateSystem, PixelLimits
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol import dialects as shipped
from cof_agent.strategies.replay import messages_of
from cof_agent.trajectory import Answer, Malformed, StopReason, Trajectory, Zoom, from_json, to_json
from tests import dialects

TABLE = [json.loads(line) for line in Path(__file__).with_name("dialects.jsonl").open()]
OF_QWEN3 = ("qwen3-zoom", "native", "qwen3.5", "sensenova-mars")
CALL = '<think>t</think><tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}</tool_call>'


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.new("RGB", (1600, 900)).save(path)
    return path


def played(name: str, picture: Path, file: str, script: list[str] | None = None) -> Trajectory:
    spoken = dialects.spoken(name)
    grid, system = (32, CoordinateSystem.THOUSAND) if name in OF_QWEN3 else (28, CoordinateSystem.ABSOLUTE)
    config = AgentConfig(dialect=file)
    overview, zoom = config.areas
    limits = PixelLimits(grid, 4 * grid * grid, overview or 1280 * 28 * 28, zoom or 320 * 28 * 28)
    policy = ScriptedPolicy([], coordinates=system, limits=limits)
    settings = config.settings(policy)
    view = ZoomEnvironment(settings).reset(Sample("one", str(picture), "?"))
    policy.script = script or [
        dialects.zoom(spoken, (400, 300, 480, 345), view, settings.system),
        dialects.broken(spoken),
        dialects.zoom(spoken, (1500, 800, 1600, 900), view, settings.system),
        protocol.write_answer("I see.", "A", spoken),
    ]
    return Agent(policy=policy, dialect=file).ask(picture, "What is there?", choices=["red", "blue"])


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row["name"]))
def test_a_conversation(row: dict[str, Any], picture: Path, tmp_path: Path) -> None:
    trajectory = played(row["name"], picture, dialects.saved(row["name"], tmp_path))
    assert [[view.shown_size.width, view.shown_size.height] for view in trajectory.views] == row["shown"]
    assert [list(view.region) for view in trajectory.views[1:]] == row["regions"]
    said = [
        [message["role"], "".join(part.get("text", "[image]") for part in message["content"])]
        for message in messages_of(from_json(to_json(trajectory), Trajectory))[:-1]
    ]
    assert said == row["said"]
    assert trajectory.answer == "A" and trajectory.dialect == row["name"]
    spoken = dialects.spoken(row["name"])
    assert [protocol.well_formed(turn.text, dialect=spoken) for turn in trajectory.turns] == [True, False, True, True]
    kept = replace(trajectory, turns=(trajectory.turns[0], *trajectory.turns[2:]))
    assert scoring.well_formed(kept) and not scoring.well_formed(trajectory)


def test_all_dialects_are_in_the_table() -> None:
    assert [row["name"] for row in TABLE] == shipped.names()
    for name in shipped.names():
        assert shipped.from_plain(shipped.to_plain(shipped.described(name)), name) == shipped.described(name)


def test_the_limit_ends_some_dialects_at_once(picture: Path, tmp_path: Path) -> None:
    script = [CALL.replace("1, 2, 3, 4", "100, 100, 300, 300")] * 8
    trajectory = played("chain-of-focus", picture, dialects.saved("chain-of-focus", tmp_path), script)
    assert trajectory.stop is StopReason.MAX_ZOOMS and len(trajectory.turns) == 6 and trajectory.zooms == 5
    ours = played("ours", picture, "ours", script)
    assert ours.stop is StopReason.MAX_ZOOMS and len(ours.turns) == 8 and ours.zooms == 6


def test_what_counts_in_a_turn() -> None:
    both = f"{CALL}<answer>red</answer>"
    two = f"{CALL}{CALL.removeprefix('<think>t</think>').replace('1, 2', '0, 1')}"
    assert protocol.parse(both) == (Zoom((1, 2, 3, 4)),)
    assert protocol.parse(both, dialect=dialects.spoken("deepeyes")) == (Answer("red"),)
    assert protocol.parse(two, dialect=dialects.spoken("deepeyes")) == (Zoom((1, 2, 3, 4)),)
    assert protocol.parse("It is red.", dialect=dialects.spoken("native")) == (Answer("It is red."),)
    boxed = dialects.spoken("pixel-reasoner")
    assert protocol.parse(r"So \boxed{a {b}} it is", dialect=boxed) == (Answer("a {b}"),)
    assert protocol.parse("It is red.", dialect=boxed) == (Answer("It is red."),)
    assert not protocol.well_formed("It is red.", dialect=boxed) and protocol.well_formed(
        r"So \boxed{red}", dialect=boxed
    )
    (none,) = protocol.parse("<think>t</think>It is red.", dialect=dialects.spoken("mini-o3"))
    assert isinstance(none, Malformed)


REPEATED = {
    "a call that cannot be read": "<think>t</think>{open}oops{close}",
    "neither a call nor an answer": "<think>t</think>",
    "nothing": "",
    "a box without area": '<think>t</think>{open}{{"name": "{name}", "arguments": {{"bbox_2d": [1, 1, 1, 1]}}}}{close}',
    "a zoom": '<think>t</think>{open}{{"name": "{name}", "arguments": {{"bbox_2d": [0.1, 0.1, 0.9, 0.9]}}}}{close}',
}


@pytest.mark.parametrize("name", [*shipped.names(), "whole-images"])
@pytest.mark.parametrize("reply", REPEATED)
def test_a_reply_that_is_repeated_ends_the_run(name: str, reply: str, tmp_path: Path) -> None:
    picture = tmp_path / "small.png"
    Image.new("RGB", (160, 90)).save(picture)
    file = tmp_path / "own.yaml"
    file.write_text("name: own\ncrop: {bad_box: image}\n")  # which the limit does not end, but a sentence
    spoken = shipped.dialect(str(file)) if name == "whole-images" else dialects.spoken(name)
    if name != "whole-images":
        file = Path(dialects.saved(name, tmp_path))
    call = spoken.call
    text = REPEATED[reply].format(open=call.open, close=call.close, name=call.names[0])
    # More turns than any run may have would end in LangGraph's own error.
    found = played(name if name != "whole-images" else "ours", picture, str(file), [text] * 200)
    assert found.stop in (StopReason.MALFORMED, StopReason.MAX_ZOOMS)
    if reply in ("neither a call nor an answer", "nothing") and spoken.end.neither == "stop":
        assert len(found.turns) == 1


def test_what_ends_a_published_conversation() -> None:
    """Of chain-of-focus: six messages at most, and any call wherever it stands."""
    cof = dialects.spoken("chain-of-focus")
    call = '<tool_call>{"name": "look", "arguments": {"bbox_2d": [1, 2, 3, 4]}}</tool_call>'
    assert protocol.parse(f"<think>{call}</think>", dialect=cof) == (Zoom((1, 2, 3, 4)),)
    assert isinstance(protocol.parse(f"<think>t</think>{call}")[0], Malformed)
    for name, reply, answer in (
        ("sensenova-mars", r"<think>t</think>\boxed{B}", "B"),
        ("sensenova-mars", "<think>t</think>The answer is (B).", "The answer is (B)."),
        ("pixel-reasoner", "So <answer>A</answer>", "A"),
    ):
        assert protocol.parse(reply, dialect=dialects.spoken(name)) == (Answer(answer),)


def test_calls_without_tags() -> None:
    call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}'
    native = dialects.spoken("native")
    for text in (
        call,
        f"```json\n{call}\n```",
        f"<tools>\n{call}\n</tools>",
        f"{call}\n</tool_call>",
        f"I look closer: {call}",
    ):
        assert protocol.parse(text, dialect=native) == (Zoom((1, 2, 3, 4)),), text
        assert not protocol.well_formed(text, dialect=native)
        assert isinstance(protocol.parse(f"<think>t</think>{text}")[0], Malformed)
    (foreign,) = protocol.parse("<|tool_call_begin|>functions.zoom:0<|tool_call_argument_begin|>{}", dialect=native)
    assert isinstance(foreign, Malformed) and "<|tool_call_begin|>" in foreign.reason
    answer = '{"name": "STOP", "colour": "red"}'
    assert protocol.parse(answer, dialect=native) == (Answer(answer),)


@pytest.mark.parametrize(
    "call",
    [
        '{"arguments": {"bbox_2d": [1, 2, 3, 4]}, "name": "image_zoom_in_tool"}',
        '{"tool": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
        "<|tool_call>call:image_zoom_in_tool{bbox_2d:[1,2,3,4]}<tool_call|>",
        "call:image_zoom_in_tool{bbox_2d:[1,2,3,4]}",
        "```tool_code\nimage_zoom_in_tool(bbox_2d=[1, 2, 3, 4])\n```",
        "[image_zoom_in_tool(bbox_2d=[1, 2, 3, 4], image=0)]",
        "<|channel>thought\nimage_zoom_in_tool(bbox_2d=[5, 6, 7, 8])<channel|>call:image_zoom_in_tool{bbox_2d:[1,2,3,4]}",
    ],
)
def test_calls_as_other_families_write_them(call: str) -> None:
    """Gemma 4's on the wire and Gemma 3's in Python's words, and JSON with its keys in another order."""
    assert protocol.parse(call, dialect=dialects.spoken("native")) == (Zoom((1, 2, 3, 4)),)


@pytest.mark.parametrize(
    "call",
    [
        '<invoke name="image_zoom_in_tool"><parameter name="bbox_2d">[1, 2, 3, 4]</parameter></invoke>',
        '<｜DSML｜invoke name="image_zoom_in_tool"></｜DSML｜invoke>',
        "image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]</arg_value>\n</tool_call>",
        '<image_zoom_in_tool>{"bbox_2d": [1, 2, 3, 4]}</image_zoom_in_tool>',
        '<|START_ACTION|>[{"tool_call_id": "0"}]<|END_ACTION|>',
        '{"action": "image_zoom_in_tool", "action_input": {"bbox_2d": [1, 2, 3, 4]}}',
        '{"recipient_name": "functions.image_zoom_in_tool", "arguments_of": {"bbox_2d": [1, 2, 3, 4]}}',
        '```json\n{"function_name": "image_zoom_in_tool", "input": {"bbox_2d": [1, 2, 3, 4]}}\n```',
        '{"image_zoom_in_tool": {"bbox_2d": [1, 2, 3, 4]}}',
        '[{"image_zoom_in_tool": {"bbox_2d": [1, 2, 3, 4]}}]',
        'Thought: I look closer.\n**Action:** image_zoom_in_tool\n**Action Input:** {"bbox_2d": [1, 2, 3, 4]}',
        'I look closer.\nAction: image_zoom_in_tool\nAction Input: {"bbox_2d": [1, 2, 3, 4]}',
    ],
)
def test_a_call_in_the_markup_of_another_family_is_no_answer(call: str) -> None:
    for text in (call, f"<think>Too small.</think>\n{call}"):
        (found,) = protocol.parse(text, dialect=dialects.spoken("native"))
        assert isinstance(found, Malformed) and '{"name": ..., "arguments"' in found.reason


def test_a_sentence_about_the_tool_is_no_call() -> None:
    native, call = dialects.spoken("native"), "image_zoom_in_tool(bbox_2d=[1, 2, 3, 4])"
    for text in (f"Using {call} I saw red.", "I did not need image_zoom_in_tool().", f"<think>I could use {call}"):
        assert isinstance(protocol.parse(text, dialect=native)[0], Answer), text
    for text in (
        "The action: image_zoom_in_tool was of no use.",
        '{"answer": "red", "bbox_2d": [1, 2, 3, 4]}',
        '{"answer": "red", "how": "image_zoom_in_tool"}',
        'I called "image_zoom_in_tool" with "bbox_2d" and saw red.',
    ):
        assert protocol.parse(text, dialect=native) == (Answer(text),)
    labelled = call.replace("])", '], label="the man (left)")')
    for text in (f"I look closer.\n{call}", labelled):
        assert protocol.parse(text, dialect=native) == (Zoom((1, 2, 3, 4)),)


def test_thoughts_within_thoughts() -> None:
    native = dialects.spoken("native")
    other = CALL.replace("[1, 2, 3, 4]", "[5, 6, 7, 8]")
    assert protocol.parse(f"<think>a <think>b</think> draft {other}</think>{CALL}") == (Zoom((1, 2, 3, 4)),)
    for text in (
        "<think>a <think>b</think> c</think>\nx",
        "<think>\n<think>b</think>x",
        "<think>a</think>x<think></think>",
    ):
        assert protocol.parse(text, dialect=native) == (Answer("x"),), text


def test_marks_of_other_families_around_a_thought() -> None:
    native = dialects.spoken("native")
    for text in ("◁think▷hm, 4?◁/think▷It is 5.", "<|channel>thought\nhm, 4?<channel|>It is 5."):
        assert protocol.parse(text, dialect=native) == (Answer("It is 5."),)
        assert protocol.thought(text) == "hm, 4?"


@pytest.mark.parametrize(
    ("name", "cut", "rest"),
    [
        (
            "qwen3.5",
            "<tool_call>\n<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n[1, 2, 3, 4]\n</parameter>\n<parameter=im",
            "age>\n1\n</parameter>\n</function>",
        ),
        (
            "native",
            "<tool_call>image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[1, 2, 3, 4]</arg_value>\n<arg_key>im",
            "age</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        ),
    ],
)
def test_a_call_that_is_cut_off_between_its_arguments(name: str, cut: str, rest: str) -> None:
    """Its box is whole, but the image that it belongs to is not said yet."""
    spoken = dialects.spoken(name)
    assert protocol.parse_cut(cut, dialect=spoken) == (Malformed("This call was cut off."),)
    assert not protocol.is_whole(cut, spoken)
    assert protocol.parse_cut(cut + rest, dialect=spoken) == (Zoom((1, 2, 3, 4), 1),)
    assert protocol.is_whole(cut + rest.partition("</tool_call>")[0], spoken)


def test_a_box_alone_in_its_tag(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("name: own\ncall: {open: <box>, close: </box>, bare: true}\n")
    spoken = shipped.dialect(str(file))
    assert protocol.parse("<think>t</think><box>[1, 2, 3, 4]</box>", dialect=spoken) == (Zoom((1, 2, 3, 4)),)
    assert isinstance(protocol.parse("<think>t</think><box>there</box>", dialect=spoken)[0], Malformed)


def test_the_size_and_the_question_again(picture: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: own\nopening: {user: ['{image}', '{question} {width}x{height}', ''], "
        "choosing: ['{image}{question}{options} {width}']}\n"
        "reply: {parts: ['{image}', 'Again: {question}{options}'], error: ['{error} {question}']}\n"
    )
    said = [
        "".join(part.get("text", "[image]") for part in message["content"])
        for message in messages_of(played("ours", picture, str(file)))
        if message["role"] == "user"
    ]
    assert said[0] == "[image]What is there?\nA. red\nB. blue 1316"
    assert said[1] == "[image]Again: What is there?\nA. red\nB. blue" and said[2].endswith(". What is there?")


def test_a_dialect_without_a_name_for_a_second_picture(picture: Path, tmp_path: Path) -> None:
    agent = Agent(policy=ScriptedPolicy([]), dialect=dialects.saved("mini-o3", tmp_path))
    with pytest.raises(InputError, match="has 2 images, but the dialect mini-o3 has no name for a second one"):
        agent.ask([picture, picture], "Which?")


def test_images_are_named_in_the_words_of_the_dialect() -> None:
    spoken, call = dialects.spoken("mini-o3"), '<grounding>{{"bbox_2d": [0, 0, 0.5, 0.5], "source": "{}"}}</grounding>'
    for source, image in (("original_image", 0), ("observation_2", 2)):
        assert protocol.parse(call.format(source), dialect=spoken) == (Zoom((0, 0, 0.5, 0.5), image),)
    (wrong,) = protocol.parse(call.format("the crop"), dialect=spoken)
    assert isinstance(wrong, Malformed) and '"observation_1" for the first crop' in wrong.reason
    call_from_one = replace(spoken.call, first_called="img_1", later_called="img_{n}", counts_from=1)
    from_one = replace(spoken, call=call_from_one)
    for source, image in (("img_1", 0), ("img_2", 1)):
        assert protocol.parse(call.format(source), dialect=from_one) == (Zoom((0, 0, 0.5, 0.5), image),)
        assert f'"{source}"' in protocol.write_zoom("t", Box(0, 0, 0.5, 0.5), image, from_one)


def test_an_image_under_another_name_is_refused() -> None:
    for key in (
        *("image_id", "img_id", "index", "source", "image_num", "imageNumber", "images", "image_ids", "image_ref"),
        *("image_path", "image_url", "image_name", "observation", "frame", "view", "picture", "crop"),
    ):
        (found,) = protocol.parse(CALL.replace('"bbox_2d"', f'"{key}": 1, "bbox_2d"'))
        assert (
            isinstance(found, Malformed)
            and found.reason == f'"{key}" is no argument of the tool: name the image as "image".'
        )
    assert protocol.parse(CALL.replace('"bbox_2d"', '"image_id": 0, "bbox_2d"')) == (Zoom((1, 2, 3, 4)),)


def test_an_image_in_another_spelling_or_beside_the_arguments() -> None:
    for key in ("Image", "imageIndex", "img_idx"):
        assert protocol.parse(CALL.replace('"bbox_2d"', f'"{key}": 1, "bbox_2d"')) == (Zoom((1, 2, 3, 4), 1),)
    assert protocol.parse(CALL.replace('"arguments"', '"image": 1, "arguments"')) == (Zoom((1, 2, 3, 4), 1),)
    for more in ('"image_resolution": "high", "bbox_2d"', '"image_description": "a cat", "bbox_2d"'):
        assert protocol.parse(CALL.replace('"bbox_2d"', more)) == (Zoom((1, 2, 3, 4)),)


class TestFiles:
    def test_a_file_that_is_called_ours_is_ours(self, tmp_path: Path) -> None:
        """Records hold the name alone, so that another dialect of this name would be read back as ours."""
        path = tmp_path / "mine.yaml"
        path.write_text(shipped.to_yaml(shipped.ours()))
        assert shipped.dialect(str(path)) == shipped.ours()
        path.write_text(shipped.to_yaml(replace(shipped.ours(), temperature=0.7)))
        with pytest.raises(InputError, match=r"mine\.yaml is called ours, but differs .* give it another name"):
            shipped.dialect(str(path))

    def test_words_are_read_from_a_clone_and_not_executed(self, tmp_path: Path) -> None:
        clone = tmp_path / "clone"
        place = clone / "eval/vstar"
        place.mkdir(parents=True)
        (place / "vllm_inference.py").write_text(
            'SYSTEM_PROMPT = "Look " "well."\nUSER_PROMPT = """\\nThink."""\nraise SystemExit("executed")\n'
        )
        found = shipped.words.fetch(shipped.described("chain-of-focus"), clone, {})
        assert found.words == {"system": "Look well.", "suffix": "\nThink."} and not found.missing

    def test_what_is_refused(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.yaml"
        broken.write_text("name: x\ncall: {opne: a}\n")
        unknown, misplaced, empty = (tmp_path / f"{name}.yaml" for name in ("unknown", "misplaced", "empty"))
        unknown.write_text('name: x\nopening: {system: "{what}"}\n')
        misplaced.write_text('name: x\nreply: {error: ["{error} {width}"]}\n')
        empty.write_text('name: x\ncall: {open: "<|python_tag|>", close: ""}\n')
        for spec, reason in (
            ("nope", "there is no dialect nope"),
            ("thyme", "answers in Python programs"),
            ("deepeyes", "cof dialect import deepeyes --from DeepEyes"),
            (str(broken), "is no dialect: call.opne"),
            (str(unknown), "opening.system: nothing stands for {what} there"),
            (str(misplaced), "reply.error: nothing stands for {width} there"),
            (str(empty), "call.open and call.close must not be empty"),
        ):
            with pytest.raises(InputError, match=reason.replace("{", r"\{").replace(".", r"\.")):
                shipped.dialect(spec)
        with pytest.raises(InputError, match="is it a clone"):
            shipped.words.fetch(shipped.described("deepeyes"), tmp_path, {})
        with pytest.raises(InputError, match="--word system=FILE"):
            shipped.words.fetch(shipped.described("sensenova-mars"), tmp_path, {})

    def test_a_value_is_never_read_as_a_template(self) -> None:
        assert shipped.filled("{question} {error}", {"question": "{error}", "error": "!"}) == "{error} !"

    def test_strategies_that_write_turns_speak_ours(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="writes turns in our own dialect"):
            Agent(policy=ScriptedPolicy([]), strategy="grid", dialect=dialects.saved("deepeyes", tmp_path))

    def test_a_checkpoint_says_its_dialect(self, tmp_path: Path) -> None:
        shipped.record(dialects.spoken("mini-o3"), tmp_path)
        assert AgentConfig(str(tmp_path)).spoken == dialects.spoken("mini-o3")
        assert AgentConfig(str(tmp_path), dialect="native").spoken.name == "native"
        assert AgentConfig().spoken.name == "ours"
