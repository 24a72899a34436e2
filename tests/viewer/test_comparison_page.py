"""The page that `cof compare` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw

from cof_agent.cli import main
from cof_agent.commands import compare as command
from cof_agent.evaluation.runs import Run
from cof_agent.geometry import Box, Size, View
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, to_json
from cof_agent.viewer import questions
from cof_agent.viewer.comparison_page import write_comparison
from cof_agent.viewer.plots import DARK, LIGHT
from tests.viewer.drawn import NASTY
from tests.viewer.parsed_page import ParsedPage, decoded, digest

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


class Page(ParsedPage):
    """The page with the data in it."""

    def __init__(self, html: str) -> None:
        super().__init__(html)
        self.head = json.loads(self.blocks["data"])
        self.records = json.loads(self.blocks["records"])

    @property
    def links(self) -> list[str]:
        """The addresses of links to questions."""
        return [str(found["href"]) for tag, found in self.elements if tag == "a" and found.get("class") == "rows"]


def compared(tmp_path: Path, *arguments: object) -> Page:
    output = tmp_path / "out"
    assert main(["compare", *map(str, arguments), "-o", str(output)]) == 0
    return Page((output / "report.html").read_text("utf-8"))


@pytest.mark.usefixtures("without_matplotlib")
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
        "In the one answer of blank that names an option, no letter is chosen",
    ):
        assert words in page.text, words
    verdict, differences, settings = (page.text.index(words) for words in ("On the 40", "Differences", "Settings"))
    assert verdict < differences < settings, "the verdict stands first"
    rows = re.findall(r'<tr role="row" class="(\w*)"><th role="rowheader" scope="row" dir="auto">([^<]*)', page.html)
    assert {name for kind, name in rows if kind == "differs"} == {"folder", "command", "crops", "versions"}


def test_plots_are_there_for_light_and_dark(tmp_path: Path, image: Path) -> None:
    folders = [written(tmp_path / name, played(image, [k % 2 == 0, True])) for k, name in enumerate("ab")]
    page = compared(tmp_path, *folders)
    light = page.images("png")
    start = "data:image/png;base64,"
    dark = [decoded(str(found["srcset"])[len(start) :]) for tag, found in page.elements if tag == "source"]
    assert len(light) == len(dark) == 2 and {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "category.png",
        "tokens.png",
    }
    for one, other, theme in ((light, dark, LIGHT), (dark, light, DARK)):
        for picture, pair in zip(one, other, strict=True):
            assert picture.size == pair.size and picture.width < 800, "as narrow as one panel"
            assert picture.convert("RGB").getpixel((2, 2)) == ImageColor.getrgb(theme["figure.facecolor"])
    assert all(found["alt"] for tag, found in page.elements if tag == "img")


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
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    assert kinds == ["application/json"] * 2 + ["text/plain"] * 2 + [None]
    assert page.tags.count("style") == 1 and page.handlers == []
    assert page.addresses and all(address.startswith("#") for address in page.addresses)
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src '{digest(page.blocks['style'])}'; "
        f"script-src '{digest(page.blocks['script'])}'; base-uri 'none'; form-action 'none'"
    )
    assert NASTY.replace("\ud800", "?") in page.text
    assert not set("<>&") & set(page.blocks["data"] + page.blocks["records"])


@pytest.mark.usefixtures("without_matplotlib")
def test_a_card_has_the_play_of_each_run(tmp_path: Path, image: Path) -> None:
    base = written(tmp_path / "base", played(image, [True, True, False]))
    other = written(tmp_path / "other", played(image, [True, False])[::-1])
    page = compared(tmp_path, base, other)
    assert page.head["runs"] == ["base", "other"]
    assert [question["records"] for question in page.head["questions"]] == [[0, 1], [2, 3], [4, None]]
    assert [question["scores"] for question in page.head["questions"]] == [[1, 1], [1, 0], [0, None]]
    assert [question["category"] for question in page.head["questions"]] == ["a", "b", "a"]
    assert [record["id"] for record in page.records] == ["q0", "q0", "q1", "q1", "q2"]
    whole, cut = (decoded(page.blocks[f"i{view['image']}"]) for view in page.records[3]["views"])
    assert whole.width == 1000 and {name for name in page.blocks if name.startswith("i")} == {"i0", "i1"}
    red, green, blue = cut.convert("RGB").getpixel((50, 50))  # type: ignore[misc]
    assert red > 200 and green > 200 and blue < 80, "the crop shows the yellow patch"


def test_the_questions_on_which_runs_differ_come_first(tmp_path: Path, image: Path) -> None:
    runs = [Run("a", played(image, [True] * 6)), Run("b", played(image, [True, True, True, False, True, False]))]
    every = questions.questions_of(runs)
    for most, shown in ((0, []), (2, ["q3", "q5"]), (3, ["q0", "q3", "q5"]), (9, [f"q{k}" for k in range(6)])):
        assert [one.first.sample.id for one in questions.chosen(every, most)] == shown
    write_comparison(runs, {}, None, tmp_path / "page.html", cards=3)
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert (len(page.head["questions"]), page.head["total"]) == (3, 6)
    write_comparison(runs, {}, None, tmp_path / "page.html", cards=0)
    assert Page((tmp_path / "page.html").read_text("utf-8")).links == [], "without cards there is nothing to show"


def test_rows_link_to_what_they_count(image: Path) -> None:
    runs = [Run("a", played(image, [True, False, True])), Run("b", played(image, [True, True]))]
    links = questions.Links(runs, questions.questions_of(runs))
    assert links.of_run(0) == "#from=0" and links.of_run(1) == "#asked1=asked"
    assert links.of_pair(0, 1, "category a b&c") == "#from=0&to=1&compared=compared&category=a+b%26c"
    assert links.of_pair(0, 1, "all", verdict="mended") == "#from=0&to=1&verdict=mended"
    assert links.changes(0, 1, "resolution 448")[1] == "#from=0&to=1&resolution=448&verdict=broken"
    halves = [replace(one, sample=replace(one.sample, metadata={"scoring": "anls"})) for one in runs[0].trajectories]
    halves[1] = replace(halves[1], answer="xxxx1", sample=replace(halves[1].sample, answers=("xxxxx",)))
    partial = questions.Links(runs, questions.questions_of([Run("a", halves), Run("b", halves)]))
    assert partial.changes(0, 1, "all")[0] == "#from=0&to=1&change=better"


@pytest.mark.usefixtures("without_matplotlib")
def test_an_image_that_is_gone_is_said_on_the_page_and_the_terminal(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "run", played(Path("scene.png"), [False]))
    other = written(tmp_path / "other", played(tmp_path / "gone.png", [False]))
    (tmp_path / "moved").mkdir()
    image.rename(tmp_path / "moved" / "gone.png")
    page = compared(tmp_path, folder, other)
    assert len(page.head["problems"]) == 2 and "i0" not in page.blocks
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "cof compare: 2 images are missing on the page (--images DIR says where the images are):"
    assert len(compared(tmp_path, folder, other, "--images", tmp_path / "moved").head["problems"]) == 1
    (tmp_path / "moved" / "gone.png").rename(folder / "scene.png")
    assert len(compared(tmp_path, folder, other).head["problems"]) == 1, "found beside the trajectories"
    gone = written(tmp_path / "gone", played(Path("/elsewhere/run/scene.png"), [True]))
    capsys.readouterr()
    assert compared(tmp_path, folder, gone).head["problems"] == []
    assert capsys.readouterr().err.startswith("cof compare: an image is found in another place than the run recorded:")
    assert main(["compare", str(folder), str(other), "-o", str(tmp_path), "--images", str(tmp_path / "none")]) == 2


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_page_says_how_to_get_the_plots(tmp_path: Path, image: Path) -> None:
    run = played(image, [True])
    page = compared(tmp_path, written(tmp_path / "a", run), written(tmp_path / "b", run))
    assert "pip install 'matplotlib" in page.text
    assert page.images("png") == [] and "On the one question that both were asked, b instead of a takes" in page.text
