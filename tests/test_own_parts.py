"""Parts of the user's own, as the guides show them: each example is taken from its README and run."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.cli import main
from cof_agent.config import AgentConfig
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Sample, StopReason, Trajectory
from tests.scenes.shared import Scenes

ROOT = Path(__file__).parents[1]
CALL = (
    '<think>It stands on its side.</think>\n<tool_call>\n{"name": "rotate", "arguments": {"degrees": 90}}\n</tool_call>'
)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the modules of all the guides' examples in it."""
    for guide in ROOT.glob("**/README.md"):
        for name, code in re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", guide.read_text("utf-8"), re.DOTALL):
            assert code.count("\n") <= 20, f"{guide} shows a longer example than a reader wants"
            (tmp_path / name).write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_tool(example: Path, picture: Path) -> None:
    policy = ScriptedPolicy([CALL, protocol.write_answer("I see.", "red")])
    agent = Agent(AgentConfig(tools=("my_tools:rotate",)), policy=policy)
    trajectory = asyncio.run(agent.aask(picture, "What is it?"))
    _, turned = trajectory.views
    assert trajectory.answer == "red"
    assert turned.tool == "rotate"
    assert turned.shown_size.height > turned.shown_size.width  # of a picture that is wider than high
    upright = agent.environment.image(trajectory.sample, turned)
    with Image.open(picture) as source:
        expected = source.convert("RGB").rotate(90, expand=True).resize(upright.size, Image.Resampling.LANCZOS)
    assert upright.tobytes() == expected.tobytes()


def test_a_reward(example: Path) -> None:
    from rl import rewards

    def said(answer: str | None) -> Trajectory:
        return Trajectory(Sample("a", "i", "q"), None, (), StopReason.ANSWERED, answer)

    reward = rewards.by_name("my_rewards:short", group=3)
    assert reward(trajectory=[said("red"), said("a red sign that says stop"), said(None)]) == [1.0, 0.0, None]
    assert reward.__name__ == "my_rewards:short"


def test_a_strategy_and_a_scoring_rule(drawn: Scenes, example: Path) -> None:
    drawn(3, into=Path("scenes"))
    made = ["--strategy", "my_strategies:wide", "--scoring", "my_scoring:within_one"]
    assert main(["eval", "--data", "scenes", "-o", "out", *made]) == 0
    records = [json.loads(line) for line in Path("out/trajectories.jsonl").read_text("utf-8").splitlines()]
    assert {record["strategy"] for record in records} == {"my_strategies:wide"}
    assert {record["settings"]["enlarge"] for record in records} == {3.0}
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    digits = sum(record["sample"]["answers"][0].isdigit() for record in records)
    assert summary["unscored"] == 3 - digits
    assert summary["scoring"] == "my_scoring:within_one"


def test_a_benchmark(example: Path, picture: Path) -> None:
    from cof_agent.data.benchmarks import load

    with open("signs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "file", "text"), ("7", picture, "STOP")])
    (sample,) = load("my_benchmark:signs", ".")
    assert (sample.answers, Path(sample.image)) == (("STOP",), picture)
    assert sample.metadata["benchmark"] == "my_benchmark:signs"


def test_what_cannot_be_found_is_said_at_once(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, spec, reason in (
        ("--strategy", "my_strategies:missing", "has no function missing"),
        ("--scoring", "nowhere:rule", "cannot import the module nowhere"),
        ("--tool", "my_tools:Image", "cannot be called by a model"),
    ):
        assert main(["eval", "--data", ".", "-o", "out", option, spec]) == 2
        assert reason in capsys.readouterr().err
