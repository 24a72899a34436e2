"""Trajectories about several images: every overview is shown, and boxes are drawn on the image that they were cut from."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box
from cof_agent.graphs.focus import run
from cof_agent.graphs.steps import Context
from cof_agent.image import open_source
from cof_agent.policy import ScriptedPolicy
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Sample, Trajectory
from cof_agent.viewer.located import located
from cof_agent.viewer.notebook import notebook_html
from cof_agent.viewer.picture import annotate, seen
from cof_agent.viewer.record import fitted_record
from cof_agent.viewer.report import write_page
from tests.pairs import pair

ANSWER = protocol.write_answer("I see.", "the first")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return pair(tmp_path_factory.mktemp("pair"))


def play(sample: Sample, *images: int) -> Trajectory:
    """A look at the same place of these images, one after the other."""
    script = [protocol.write_zoom("There.", Box(100, 100, 250, 250), image) for image in images]
    return asyncio.run(run(sample, Context(ScriptedPolicy([*script, ANSWER]), ZoomEnvironment())))


def drawn(trajectory: Trajectory) -> Image.Image:
    return seen(trajectory, *map(open_source, trajectory.sample.images), long_side=800)


def test_boxes_are_drawn_on_the_image_that_they_were_cut_from(sample: Sample) -> None:
    bare = drawn(play(sample))
    first = min(bare.height, 300)  # the first overview: 400 x 300 of 800 x 600, above the second
    for image, (above, below) in ((0, (True, False)), (1, (False, True))):
        looked = drawn(play(sample, image)).crop((0, 0, *bare.size))
        changed = ImageChops.difference(bare, looked).point(lambda level: 255 * (level > 0))
        assert (changed.crop((0, 0, bare.width, first)).getbbox() is not None) is above
        assert (changed.crop((0, first, *bare.size)).getbbox() is not None) is below
    assert annotate(play(sample, 1, 0), *map(open_source, sample.images)).mode == "RGB"


def test_a_page_holds_every_overview(sample: Sample, tmp_path: Path) -> None:
    played = play(sample, 1, 0)
    record = json.loads(fitted_record(played, True, [0, 1, 2, 3], {}, 100_000))
    assert record["overviews"] == 2 and record["file"] == "0.png, 1.png" and record["zooms"] == 2
    assert [view["source"] for view in record["views"]] == [0, 1, 1, 0]
    assert [step["view"] for turn in record["turns"] for step in turn["steps"] if "view" in step] == [2, 3]
    assert write_page([played], tmp_path / "page.html", title="two", score=accuracy) == []
    assert (tmp_path / "page.html").read_text().count('id="i') == 4
    gone = play(sample.with_images([sample.image, "gone.png"]))
    assert write_page([gone], tmp_path / "page.html", title="two", score=accuracy) == []  # it was never shown


def test_images_are_found_in_another_folder(sample: Sample, tmp_path: Path) -> None:
    played = play(sample, 1)
    for path in sample.images:
        (tmp_path / Path(path).name).write_bytes(b"")
    lost = Trajectory(**{name: getattr(played, name) for name in played.__slots__} | {"sample": _elsewhere(sample)})
    assert located(lost, tmp_path).sample.images == (str(tmp_path / "0.png"), str(tmp_path / "1.png"))


def _elsewhere(sample: Sample) -> Sample:
    return sample.with_images(Path(path).name for path in sample.images)


def test_a_notebook_numbers_crops_as_the_conversation_does(sample: Sample) -> None:
    html = notebook_html(play(sample, 1, 0))
    assert "Zoom 2: " in html and "source pixels of image 1" in html and "Zoom 3: " in html
