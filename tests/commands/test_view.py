"""`cof view`: on a file, on a folder, on what was rejected, and without the images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from cof_agent.cli import main
from cof_agent.geometry import Box
from cof_agent.teacher.accept import Refusal
from cof_agent.trajectory import Trajectory, to_json
from tests.viewer.drawn import crop, draw_field, trajectory, zoom
from tests.viewer.parsed_page import ParsedPage


@pytest.fixture
def played(tmp_path: Path) -> Trajectory:
    return trajectory(draw_field(tmp_path / "field.png"), zoom(crop(Box(500, 50, 780, 330))))


def written(path: Path, *trajectories: Trajectory) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(to_json(one) + "\n" for one in trajectories))
    return path


def viewed(*arguments: object) -> ParsedPage:
    output = Path(str(arguments[0])).parent / "page.html"
    assert main(["view", *map(str, arguments), "-o", str(output)]) == 0
    return ParsedPage.read(output)


def records(page: ParsedPage) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(page.blocks["records"])
    return found


@pytest.mark.parametrize("name", ["trajectories.jsonl", "trajectory.jsonl", "rejected.jsonl"])
def test_a_folder_stands_for_its_file(name: str, played: Trajectory, tmp_path: Path) -> None:
    folder = written(tmp_path / "run" / name, played).parent
    page = viewed(folder)
    assert [record["id"] for record in records(page)] == ["one"]
    assert page.blocks["title"] == "run"


def test_a_folder_without_trajectories_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "has none of trajectories.jsonl" in said and said.count("\n") == 1
    written(tmp_path / "trajectories.jsonl")
    assert main(["view", str(tmp_path)]) == 2
    assert "no trajectories are in" in capsys.readouterr().err


def test_a_folder_stands_for_all_files_below_it(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, refused = played, replace(played, error=f"{Refusal.WRONG.value}: sentence")
    folder = tmp_path / "runs"
    for name in ("a/trajectories.jsonl", "b/deep/trajectories.jsonl", "b/deep/rejected.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written(folder / name, refused if "rejected" in name else kept)
    written(folder / "b" / "trajectories-1-of-2.jsonl", kept)
    (tmp_path / "link").symlink_to(folder)
    page = viewed(folder, folder / "a", folder / "b" / ".." / "a", tmp_path / "link")  # each file once
    assert [(record["from"], record["reason"]) for record in records(page)] == [
        ("a/trajectories.jsonl", ""),
        ("b/deep/trajectories.jsonl", ""),
        ("b/deep/rejected.jsonl", "wrong answer"),
    ]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "cof view: 3 trajectories in 3 files:" and said[1].endswith("a/trajectories.jsonl")
    assert [record["from"] for record in records(viewed(folder / "a"))] == [""], "one file needs no name"


def test_what_was_rejected_says_why(played: Trajectory, tmp_path: Path) -> None:
    reasons = [Refusal.WRONG, Refusal.NO_ANSWER]
    rejected = [replace(played, error=f"{reason.value}: sentence") for reason in reasons]
    failed = replace(played, error="the server said: no")
    page = viewed(written(tmp_path / "rejected.jsonl", *rejected, failed))
    assert [record["reason"] for record in records(page)] == ["wrong answer", "no answer", ""]
    assert [record["error"] for record in records(page)] == [one.error for one in (*rejected, failed)]


def test_without_its_images_the_page_is_there_and_says_what_is_missing(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(played.sample.image, moved)
    path = written(tmp_path / "trajectories.jsonl", played)
    page = viewed(path)
    said = capsys.readouterr().err
    assert "an image is missing on the page (--images DIR" in said and "field.png" in said
    assert [problem for problem, _ in json.loads(page.blocks["data"])["problems"]]
    assert "i0" not in page.blocks
    found = viewed(path, "--images", moved)
    assert capsys.readouterr().err == ""
    assert json.loads(found.blocks["data"])["problems"] == [] and "i0" in found.blocks
    assert main(["view", str(path), "--images", str(tmp_path / "none")]) == 2


def test_what_is_missing_is_counted_and_named(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [replace(played, sample=replace(played.sample, image=f"gone-{k}.png")) for k in range(8)]
    viewed(written(tmp_path / "trajectories.jsonl", played, *gone, *gone))
    title, *lines = capsys.readouterr().err.splitlines()
    assert title == "cof view: 8 images are missing on the page (--images DIR says where the images are):"
    assert "gone-0.png" in lines[0] and lines[0].endswith("(trajectories: 2)")
    assert len(lines) == 6 and lines[-1] == "  and 3 more"


def test_images_that_moved_with_the_run_are_found(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "set" / "images").mkdir(parents=True)
    shutil.move(played.sample.image, tmp_path / "new" / "set" / "images" / "field.png")
    (tmp_path / "new" / "outputs" / "run").mkdir(parents=True)
    path = tmp_path / "new" / "outputs" / "run" / "trajectories.jsonl"
    for recorded in ("/old/set/images/field.png", "set/images/field.png"):
        page = viewed(written(path, replace(played, sample=replace(played.sample, image=recorded))))
        assert "i0" in page.blocks
        said = capsys.readouterr().err
        assert ("found in another place" in said) is recorded.startswith("/")
    written(path, replace(played, sample=replace(played.sample, image="/old/field.png")))
    assert "i0" not in viewed(path).blocks, "a name alone is no place"


def test_with_a_server_each_card_links_to_it(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(played, sample=replace(played.sample, id="a b&c"))
    path = written(tmp_path / "trajectories.jsonl", played, other)
    page = viewed(path, "--server", "http://127.0.0.1:8000/")
    start = f"http://127.0.0.1:8000/?run={quote_plus(str(path.resolve()))}"
    assert [record["address"] for record in records(page)] == [
        f"{start}&number=0&id=one",
        f"{start}&number=1&id=a+b%26c",
    ]
    assert [record["address"] for record in records(viewed(path))] == ["", ""]
    for wrong in (
        "javascript:alert(1)",
        "127.0.0.1:8000",
        "http://",
        "http://me:secret@host",
        "http://a:b",
        "http://h/#x",
    ):
        assert main(["view", str(path), "--server", wrong, "-o", str(tmp_path / "no.html")]) == 2
        assert "is no address of a server" in capsys.readouterr().err
    assert not (tmp_path / "no.html").exists()


def test_a_region_that_is_none_costs_its_own_image(played: Trajectory, tmp_path: Path) -> None:
    assert played.overview is not None
    region = played.overview.region
    turned = [replace(region, y1=-5.0), replace(region, x1=0.0), replace(region, x0=1e300, x1=-1e300)]
    hostile = [replace(played, overview=replace(played.overview, region=one)) for one in turned]
    page = viewed(written(tmp_path / "trajectories.jsonl", played, *hostile))
    assert len(records(page)) == 4 and "i0" in page.blocks


def test_a_relative_path_is_found_under_the_folder_of_images(played: Trajectory, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path / "a" / "deep", ignore=shutil.ignore_patterns("a"))
    shutil.move(played.sample.image, tmp_path / "gone.png")
    relative = replace(played, sample=replace(played.sample, image="deep/field.png"))
    path = written(tmp_path / "trajectories.jsonl", relative)
    assert "i0" in viewed(path, "--images", tmp_path / "a").blocks


def test_what_is_no_page_is_not_written_over(
    played: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "trajectories.jsonl", played)
    before = file.read_bytes()
    assert main(["view", str(file), "-o", str(file)]) == 2
    assert file.read_bytes() == before and "is no page, and would be overwritten" in capsys.readouterr().err
    for _ in range(2):  # a page may be
        viewed(file)
