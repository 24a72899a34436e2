"""The conversations of published evaluations, built by their own code and by our dialects: same words, same sizes.

    COF_PUBLISHED=FOLDER python -m pytest tests/parity/test_published.py

FOLDER holds clones named Chain-of-Focus, DeepEyes, Mini-o3 and Qwen-Agent; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from cof_agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.geometry import CoordinateSystem, PixelLimits
from cof_agent.policy import ScriptedPolicy
from cof_agent.protocol.dialects import words
from cof_agent.protocol.dialects.read import described, to_plain
from cof_agent.strategies.replay import messages_of
from cof_agent.trajectory import StopReason, Trajectory
from tests import qwen_reference
from tests.parity import published
from tests.parity.published import Said, said

CLONES = Path(os.environ.get("COF_PUBLISHED", ""))
pytestmark = pytest.mark.skipif(not os.environ.get("COF_PUBLISHED"), reason="COF_PUBLISHED names no folder with clones")
QUESTION = "What is there?"
SIZES = [(640, 480), (3840, 2160), (1000, 700), (64, 48)]


@pytest.fixture(params=SIZES, ids=str)
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A picture with some content, as a JPEG without loss of size."""
    path = tmp_path / "picture.jpg"
    Image.linear_gradient("L").resize(request.param).convert("RGB").save(path)
    return path


def imported(name: str, clone: str, tmp_path: Path) -> str:
    """The file of a dialect with its authors' words, as `cof dialect import` writes it."""
    found = words.fetch(described(name), CLONES / clone, {})
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(to_plain(found)))
    return str(path)


def played(
    dialect: str,
    picture: Path,
    replies: list[str],
    choices: tuple[str, ...] = (),
    coordinates: CoordinateSystem = CoordinateSystem.ABSOLUTE,
    grid: int = 28,
) -> Trajectory:
    """The agent on scripted replies, with a model whose processor takes images of any area."""
    overview, zoom = AgentConfig(dialect=dialect).areas
    limits = PixelLimits(grid, 4 * grid**2, overview or 12845056, zoom or 12845056)
    policy = ScriptedPolicy(replies, coordinates=coordinates, limits=limits)
    return Agent(policy=policy, dialect=dialect).ask(picture, QUESTION, choices=choices)


def conversation(trajectory: Trajectory) -> list[Said]:
    """As `published.said`."""
    sizes = [(view.shown_size.width, view.shown_size.height) for view in trajectory.views]
    return said(messages_of(trajectory), sizes)


def call(box: Sequence[float], **others: object) -> str:
    arguments = json.dumps({"bbox_2d": box, **others})
    return f'<think>t</think>\n<tool_call>\n{{"name": "image_zoom_in_tool", "arguments": {arguments}}}\n</tool_call>'


def test_chain_of_focus(picture: Path, tmp_path: Path) -> None:
    dialect, resize = imported("chain-of-focus", "Chain-of-Focus", tmp_path), qwen_reference.load().smart_resize
    with Image.open(picture) as image:
        height, width = resize(image.height, image.width, 28, 112**2, 3840**2)
    boxes = [
        [width * 0.25, height * 0.5, width * 0.5, height * 0.75],
        [width - 20, height - 20, width, height],  # at the border
        [10, 10, width + 1, 20],  # beyond it
        [30, 30, 10, 40],  # exchanged edges
    ]
    for ending in (["<think>t</think>\n<answer>A</answer>"], [call([0, 0, 30, 30])] * 3):
        replies = [*map(call, boxes), *ending]
        theirs = published.chain_of_focus(
            CLONES / "Chain-of-Focus", picture, QUESTION, replies, qwen_reference.load().smart_resize
        )
        trajectory = played(dialect, picture, replies)
        assert conversation(trajectory)[:-1] == theirs  # the last message is the model's own
        assert trajectory.stop is (StopReason.ANSWERED if len(ending) == 1 else StopReason.MAX_ZOOMS)


def test_deepeyes(picture: Path, tmp_path: Path) -> None:
    dialect = imported("deepeyes", "DeepEyes", tmp_path)
    with Image.open(picture) as image:
        width, height = image.size
    choices = ("a red one", "a blue one")
    boxes = [
        [width // 4, height // 5, width // 4 + 33, height // 5 + 40],
        [width - 40, height - 45, width, height],
        [0, 0, width, height],
    ]
    replies = [*map(call, boxes), "<think>t</think>\n<answer>A</answer>"]
    theirs = published.deepeyes(CLONES / "DeepEyes", picture, QUESTION, choices, replies)
    trajectory = played(dialect, picture, replies, choices)
    ours = conversation(trajectory)
    first = (trajectory.views[0].shown_size.width, trajectory.views[0].shown_size.height)
    assert ours[:-1] == [Said(one.role, tuple(first if p == (0, 0) else p for p in one.parts)) for one in theirs]
    assert [tuple(view.region) for view in trajectory.views[1:]] == [
        (float(x0), float(y0), float(min(x1, width)), float(min(y1, height))) for x0, y0, x1, y1 in boxes
    ]


def test_mini_o3(picture: Path, tmp_path: Path) -> None:
    dialect = imported("mini-o3", "Mini-o3", tmp_path)
    calls = [
        ([0.21, 0.33, 0.5, 0.71], "original_image"),
        ([0.5, 0.25, 1.0, 1.0], "observation_1"),
        ([0.9, 0.95, 1.2, 1.0], "original_image"),  # beyond the border
        ([0.5, 0.5, 0.4, 0.6], "original_image"),  # exchanged edges
        ([0.0, 0.0, 0.5, 0.5], "observation_2"),
    ]
    with Image.open(picture) as image:
        theirs = published.mini_o3(CLONES / "Mini-o3", image.convert("RGB"), calls)
    replies = [
        f"<think>t</think><grounding>{json.dumps({'bbox_2d': box, 'source': source})}</grounding>"
        for box, source in calls
    ]
    trajectory = played(dialect, picture, [*replies, "<think>t</think><answer>A</answer>"])
    seen = [turn.observations[0] for turn in trajectory.turns[:-1]]
    parents = {"original_image": trajectory.views[0]}
    for (_, source), observation, (edges, _size) in zip(calls, seen, theirs, strict=True):
        assert (observation.view is None) == (edges is None)
        if observation.view is None:
            continue
        inside = parents[source].region
        left, top = inside.x0, inside.y0
        assert tuple(observation.view.region) == (edges[0] + left, edges[1] + top, edges[2] + left, edges[3] + top)
        parents[f"observation_{len(parents)}"] = observation.view
    first = conversation(trajectory)
    assert "Observation 1" in first[3].parts[0] and isinstance(first[3].parts[1], tuple)


def test_qwen3_zoom(picture: Path, tmp_path: Path) -> None:
    dialect = imported("qwen3-zoom", "Qwen-Agent", tmp_path)
    for box in ([100, 200, 300, 400], [990, 980, 1000, 1000], [0, 0, 1000, 1000], [5, 5, 7, 300], [-20, 10, 300, 1100]):
        theirs = published.qwen_agent(CLONES / "Qwen-Agent", tmp_path, picture, list(map(float, box)))
        trajectory = played(
            dialect,
            picture,
            [call(list(box), label="x", img_idx=0), "A"],
            coordinates=CoordinateSystem.THOUSAND,
            grid=32,
        )
        shown = trajectory.views[1].shown_size if trajectory.zooms else None
        if shown is None:  # they make a crop without a pixel, and stretch that
            assert "smaller than one pixel" in str(trajectory.turns[0].observations[0].error)
            continue
        assert (shown.width, shown.height) == theirs, box
        assert trajectory.answer == "A"
