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
from cof_agent.geometry import CoordinateSystem, PixelLimits
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
    (none,) = protocol.parse("It is red.", dialect=boxed)
    assert isinstance(none, Malformed)


def test_images_are_named_in_the_words_of_the_dialect() -> None:
    spoken, call = dialects.spoken("mini-o3"), '<grounding>{{"bbox_2d": [0, 0, 0.5, 0.5], "source": "{}"}}</grounding>'
    for source, image in (("original_image", 0), ("observation_2", 2)):
        assert protocol.parse(call.format(source), dialect=spoken) == (Zoom((0, 0, 0.5, 0.5), image),)
    (wrong,) = protocol.parse(call.format("the crop"), dialect=spoken)
    assert isinstance(wrong, Malformed) and '"observation_1" for the first crop' in wrong.reason


class TestFiles:
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
        unknown = tmp_path / "unknown.yaml"
        unknown.write_text('name: x\nopening: {system: "{what}"}\n')
        for spec, reason in (
            ("nope", "there is no dialect nope"),
            ("thyme", "answers in Python programs"),
            ("deepeyes", "cof dialect import deepeyes --from DeepEyes"),
            (str(broken), "is no dialect: call.opne"),
            (str(unknown), "nothing stands for {what}"),
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
