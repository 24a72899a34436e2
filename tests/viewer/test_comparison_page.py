"""The page that `cof compare` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from cof_agent.cli import main
from cof_agent.commands import compare as command
from cof_agent.evaluation.runs import Run
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, to_json
from cof_agent.viewer import gallery
from tests.viewer.drawn import NASTY
from tests.viewer.parsed_page import ParsedPage, digest

SETTINGS = {
    "limits": {"max_pixels": 123904, "zoom_pixels": 30976},
    "max_zooms": 6,
    "enlarge": 1.5,
    "crop": "real",
    "sampling": {"seed": None, "temperature": 0.0},
    "prompt": None,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A blue field with a yellow patch."""
    drawn = Image.new("RGB", (1000, 500), "#204060")
    ImageDraw.Draw(drawn).rectangle((700, 100, 799, 199), fill="#ffee00")
    drawn.save(path := tmp_path / "scene.png")
    return path


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)


def played(image: Path, right: Sequence[bool], **settings: Any) -> list[Trajectory]:
    """Answers to q0, q1, ... of two categories, after a zoom onto the yellow patch of the image."""
    size = Size(1000, 500)
    overview, crop = (
        View(size, Box(0, 0, 1000, 500), Size(448, 224)),
        View(size, Box(680, 80, 820, 220), Size(112, 112)),
    )
    found = []
    for k, good in enumerate(right):
        sample = Sample(
            f"q{k}", str(image), f"What is {k}?", (str(k),), ("no", str(k)), metadata={"category": "ab"[k % 2]}
        )
        answer = str(k) if good else "?"
        turns = (
            Turn("", (), (Observation(view=crop),)),
            Turn(f"<answer>{answer}</answer>", (), tokens=Tokens(100, 10)),
        )
        made_with = SETTINGS | settings
        found.append(Trajectory(sample, overview, turns, StopReason.ANSWERED, answer, "nano", settings=made_with))
    return found


def written(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    folder.mkdir()
    (folder / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in trajectories))
    return folder


def compared(tmp_path: Path, *folders: Path) -> ParsedPage:
    output = tmp_path / "out"
    assert main(["compare", *map(str, folders), "-o", str(output)]) == 0
    return ParsedPage.read(output / "report.html")


def test_the_page_says_what_was_run_measured_and_controlled(tmp_path: Path, image: Path) -> None:
    base = written(tmp_path / "base", played(image, [True] * 40))
    blank = written(tmp_path / "blank", played(image, [False] * 39 + [True], crop="blank"))
    summary = {"command": "cof eval --data d --model nano -o base", "versions": {"torch": "2.13"}}
    (base / "summary.json").write_text(json.dumps(summary))
    page = compared(tmp_path, base, blank)
    for words in (
        "blank against base",
        "cof eval --data d --model nano -o base",
        "torch 2.13",
        "123,904",
        "none, greedy",
        "There is no readable summary.json beside the trajectories of blank.",
        "0.912 to 1.000",
        "answered 40",
        "1.000 → 0.025",
        "On the 40 questions into which base zoomed, blank crops instead of real ones (blank) take accuracy from 1.000 to "
        "0.025",
        "Letters of base",
        "The page shows 12 of 39 wrong answers. Questions that base got right come first.",
        "The crops that the model saw were blank, not these",
    ):
        assert words in page.text, words
    rows = re.findall(r'<tr class="(\w+)"><th scope="row">([^<]*)', page.html)
    assert {name for kind, name in rows if kind == "differs"} == {"folder", "command", "crops", "versions"}
    output = tmp_path / "out"
    plots = [output / name for name in ("category.png", "tokens.png")]
    assert [picture.size for picture in page.images("png")] == [Image.open(path).size for path in plots]
    assert len(page.images("webp")) == 12


@pytest.mark.usefixtures("without_matplotlib")
def test_the_page_needs_nothing_and_lets_nothing_in(tmp_path: Path, image: Path) -> None:
    made = [
        replace(
            one,
            sample=replace(
                one.sample, question=NASTY, answers=(NASTY,), choices=(NASTY, "b"), metadata={"category": NASTY}
            ),
            answer=f"no {NASTY}",
            policy=NASTY,
            error=NASTY,
            settings=SETTINGS | {"prompt": NASTY},
        )
        for one in played(image, [False] * 3)
    ]
    base, other = written(tmp_path / "<base>", made), written(tmp_path / "other<script>", made)
    for folder in (base, other):
        (folder / "summary.json").write_text(json.dumps({"command": NASTY, "versions": {NASTY: NASTY}}))
    page = compared(tmp_path, base, other)
    assert "script" not in page.tags and page.tags.count("style") == 1 and page.handlers == []
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src '{digest(page.blocks['style'])}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert NASTY.replace("\ud800", "?") in page.text


@pytest.mark.usefixtures("without_matplotlib")
def test_a_failure_shows_picture_question_truth_answer_and_end_in_this_order(tmp_path: Path, image: Path) -> None:
    base = written(tmp_path / "base", played(image, [True, True]))
    other = written(tmp_path / "other", played(image, [True, False]))
    page = compared(tmp_path, base, other)
    card = page.html.partition("<article>")[2].partition("</article>")[0]
    places = [
        card.index(part) for part in ("<img", "What is 1?", "A. no   B. 1", ">B. 1<", ">?<", ">answered<", "q1 ·")
    ]
    assert places == sorted(places)
    [picture] = page.images("webp")
    assert picture.width > 900, "the crop stands beside the overview"
    red, green, blue = picture.convert("RGB").getpixel((picture.width - 100, 100))  # type: ignore[misc]
    assert red > 200 and green > 200 and blue < 80, "the crop shows the yellow patch"


def test_what_the_base_got_right_comes_first() -> None:
    base = Run("base", played(Path("a.png"), [k % 2 == 0 for k in range(6)]))
    run = Run("other", played(Path("a.png"), [k == 2 for k in range(8)]))
    assert [one.sample.id for one in gallery.failures(run, base)] == ["q0", "q4", "q1", "q3", "q5", "q6", "q7"]
    unknown = Run("x", [replace(one, sample=replace(one.sample, answers=())) for one in run.trajectories])
    assert gallery.failures(unknown, base) == []


@pytest.mark.usefixtures("without_matplotlib")
def test_an_image_that_is_gone_is_said_in_its_place(tmp_path: Path, image: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(image.read_bytes()[:150])
    Image.new("RGB", (70, 30)).save(other := tmp_path / "other.png")
    paths = [tmp_path / "gone.png", broken, other, image]
    made = [one for path in paths for one in played(path, [False])]
    gone, cut, small, fine = gallery.pictures(made)
    assert "there is no such file" in str(gone) and "damaged" in str(cut) and "70 x 30" in str(small)
    assert isinstance(fine, bytes)
    run = [replace(one, sample=replace(one.sample, id=f"q{k}")) for k, one in enumerate(made)]
    page = compared(tmp_path, written(tmp_path / "a", run), written(tmp_path / "b", run))
    assert len(page.images("webp")) == 2 and page.text.count("there is no such file") == 2


@pytest.mark.usefixtures("without_matplotlib")
def test_an_image_beside_the_trajectories_is_found(tmp_path: Path, image: Path) -> None:
    folder = written(tmp_path / "run", played(Path("scene.png"), [False]))
    image.rename(folder / "scene.png")
    other = written(tmp_path / "other", played(Path("scene.png"), [False]))
    page = compared(tmp_path, folder, other)
    assert len(page.images("webp")) == 1 and "there is no such file" in page.text


def test_pictures_keep_to_their_bytes(tmp_path: Path) -> None:
    Image.effect_noise((1000, 500), 90).convert("RGB").save(path := tmp_path / "noise.png")
    found = gallery.pictures(played(path, [False] * 2), most_bytes=20_000)
    assert all(isinstance(one, bytes) for one in found)
    assert 8_000 < sum(len(one) for one in found) <= 20_000
    assert gallery.BYTES * 4 / 3 < 12_000_000


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_page_says_how_to_get_the_plots(tmp_path: Path, image: Path) -> None:
    run = played(image, [True])
    page = compared(tmp_path, written(tmp_path / "a", run), written(tmp_path / "b", run))
    assert "pip install 'matplotlib" in page.text
    assert page.images("png") == [] and "None of these runs is a control of another" in page.text
