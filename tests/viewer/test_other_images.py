"""What a run could open, its picture, its page and its exports can: a file above the limit by tiles, a page of a PDF file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from cof_agent import protocol
from cof_agent.agent import Agent
from cof_agent.config import AgentConfig
from cof_agent.data.export import to_parquet
from cof_agent.evaluation.runs import Run
from cof_agent.geometry import Box
from cof_agent.policy import ScriptedPolicy
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Trajectory
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.located import located
from cof_agent.viewer.notebook import notebook_html
from cof_agent.viewer.report import write_page

pytest.importorskip("pyvips")
pytest.importorskip("pypdfium2")

SCRIPT = [protocol.write_zoom("There.", Box(40, 40, 120, 100), 0), protocol.write_answer("I see.", "red")]


@pytest.fixture
def played(tmp_path: Path) -> list[Trajectory]:
    """Runs that may decode 1,000 pixels, on a TIFF file that is read by tiles, and on a page."""
    picture = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
    picture.save(tmp_path / "a.tif")
    picture.save(tmp_path / "b.pdf", save_all=True, append_images=[picture])
    agent = Agent(AgentConfig(max_source_pixels=1000), policy=ScriptedPolicy(SCRIPT * 2))
    names = ("a.tif", "b.pdf#page=2")
    return [agent.ask(str(tmp_path / name), f"Which colour has {name}?") for name in names]


def test_pictures_pages_and_exports(played: list[Trajectory], tmp_path: Path) -> None:
    assert [len(one.crops) for one in played] == [1, 1]
    assert write_page(played, tmp_path / "page.html", title="Two", score=accuracy) == []
    assert write_comparison([Run("one", played)], {}, None, tmp_path / "compared.html") == []
    assert "data:image/webp" in notebook_html(played[1])
    assert to_parquet(played, tmp_path / "rows.parquet") == 2
    rows = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [len(row["images"]) for row in rows] == [2, 2]


def test_a_page_of_a_file_is_found_beside_the_trajectories(played: list[Trajectory], tmp_path: Path) -> None:
    moved = replace(played[1], sample=replace(played[1].sample, image="b.pdf#page=2"))
    assert located(moved, tmp_path).sample.image == str(tmp_path / "b.pdf#page=2")
    assert located(moved, tmp_path / "elsewhere", tmp_path).sample.image == str(tmp_path / "b.pdf#page=2")


def test_a_file_of_the_same_name_in_the_current_folder_is_another_picture(
    played: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (400, 300), "blue").save(elsewhere / "a.tif")
    recorded = replace(played[0], sample=replace(played[0].sample, image="a.tif"))
    monkeypatch.chdir(elsewhere)
    assert located(recorded, tmp_path / "out").sample.image == str(tmp_path / "a.tif")
    assert located(recorded, tmp_path / "out", elsewhere).sample.image == str(elsewhere / "a.tif")
