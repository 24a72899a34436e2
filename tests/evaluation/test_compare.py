"""Runs held against each other: paired differences, their intervals and tests, and what `cof compare` writes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from cof_agent.cli import main
from cof_agent.commands import compare as command
from cof_agent.episodes import QUESTION, RESOLUTION, episodes, question_of
from cof_agent.errors import InputError
from cof_agent.evaluation import compare as comparing
from cof_agent.evaluation.compare import compare, paired
from cof_agent.evaluation.metrics import figures
from cof_agent.evaluation.runs import Run, read_runs, remembered
from cof_agent.geometry import Box, Size, View
from cof_agent.image import open_source
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, to_json
from cof_agent.viewer import gallery
from cof_agent.viewer.markup import Markup, element
from cof_agent.viewer.picture import PALETTE, annotate, seen

OVERVIEW = View(Size(1000, 500), Box(0, 0, 1000, 500), Size(448, 224))
NASTY = "</style><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' <!-- %%script%% 图"


def questions(count: int) -> list[Sample]:
    return [
        Sample(f"q{k}", "a.png", f"What is {k}?", (str(k),), metadata={"category": "ab"[k % 2]}) for k in range(count)
    ]


def answered(samples: Sequence[Sample], right: Sequence[bool]) -> list[Trajectory]:
    return [
        Trajectory(
            sample,
            OVERVIEW,
            (Turn(f"<answer>{sample.answers[0] if good else '?'}</answer>", (), tokens=Tokens(100, 10)),),
            StopReason.ANSWERED,
            sample.answers[0] if good else "?",
        )
        for sample, good in zip(samples, right, strict=True)
    ]


def written(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    folder.mkdir()
    (folder / "trajectories.jsonl").write_text("".join(to_json(one) + "\n" for one in trajectories))
    return folder


def test_the_same_run_twice_differs_by_nothing() -> None:
    run = answered(questions(30), [k % 3 > 0 for k in range(30)])
    found = compare(run, run)
    assert found["accuracy"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    assert (found["n"], found["gained"], found["lost"]) == (30, 0, 0)


def test_the_interval_is_that_of_the_mean_difference() -> None:
    """Of many pairs, the normal approximation."""
    values = [(float(k % 2), float(k % 4 > 0)) for k in range(800)]
    differences = [after - before for before, after in values]
    mean = sum(differences) / len(differences)
    spread = 1.96 * math.sqrt(sum((one - mean) ** 2 for one in differences)) / len(differences)
    found = paired(values, [str(k) for k in range(800)])
    assert found["difference"] == pytest.approx(mean, abs=1e-4)
    assert found["ci95"] == pytest.approx([mean - spread, mean + spread], abs=0.004)
    assert found["p"] < 0.001


def test_p_is_the_share_of_permutations_at_least_as_far() -> None:
    values = [(0.0, 1.0)] * 5 + [(1.0, 0.0)] + [(1.0, 1.0)] * 4
    differences = [after - before for before, after in values]
    flips = list(itertools.product((-1, 1), repeat=len(values)))
    exact = sum(
        abs(sum(sign * one for sign, one in zip(signs, differences, strict=True))) >= 4 for signs in flips
    ) / len(flips)
    assert paired(values, [str(k) for k in range(10)])["p"] == pytest.approx(exact, abs=0.015)


def test_a_question_at_three_resolutions_is_no_more_evidence_than_at_one() -> None:
    once = [(0.0, 1.0)] * 12 + [(1.0, 0.0)] * 5 + [(1.0, 1.0)] * 13
    names = [str(k) for k in range(len(once))]
    assert paired(once * 3, names * 3) == paired(once, names)
    apart = paired(once * 3, [str(k) for k in range(3 * len(once))])
    assert apart["ci95"][0] > paired(once, names)["ci95"][0]


def test_a_question_that_is_asked_twice_is_one() -> None:
    def played() -> list[Trajectory]:
        return [
            Trajectory(
                one.sample,
                None,
                (),
                StopReason.ANSWERED,
                one.sample.answers[0],
                resolution=one.resolution,
                play=one.play,
            )
            for one in episodes(questions(3), resolutions=(224, 448), plays=2)
        ]

    pairs = comparing.pairs_of(played(), played())
    assert [pair.question for pair in pairs] == ["q0"] * 4 + ["q1"] * 4 + ["q2"] * 4
    assert [question_of(sample) for sample in drawn(questions(2), (224, 448))] == ["q0", "q0", "q1", "q1"]


def drawn(samples: Sequence[Sample], sides: Sequence[int]) -> list[Sample]:
    """The samples as `cof scenes --resolutions` writes them, each at each of these sizes."""
    return [
        replace(one, id=f"{one.id}@{side}", metadata=one.metadata | {RESOLUTION: side, QUESTION: one.id})
        for one in samples
        for side in sides
    ]


def test_kinds_of_questions_are_drawn_as_the_questions_would_be() -> None:
    """Means and spread of the bootstrap, against one that draws question by question."""
    random = np.random.default_rng(1)
    sums, counts = random.choice([-2.0, -1, 0, 0, 1], size=90), random.choice([1.0, 2, 3], size=90)
    means, extreme = comparing._draw(sums, counts)
    drawn = random.integers(90, size=(comparing.DRAWS, 90))
    plain = sums[drawn].sum(1) / counts[drawn].sum(1)
    flipped = abs((random.integers(2, size=(comparing.DRAWS, 90)) * 2 - 1) @ sums)
    assert means.mean() == pytest.approx(plain.mean(), abs=0.003)
    assert np.percentile(means, (2.5, 97.5)) == pytest.approx(np.percentile(plain, (2.5, 97.5)), abs=0.01)
    assert extreme / comparing.DRAWS == pytest.approx((flipped >= abs(sums.sum())).mean(), abs=0.02)


def test_options_in_another_order_are_the_same_question() -> None:
    samples = [replace(one, choices=("x", "y", one.answers[0])) for one in questions(4)]
    moved = [replace(one, choices=one.choices[::-1]) for one in samples]
    assert compare(answered(samples, [True] * 4), answered(moved, [False] * 4))["lost"] == 4
    changed = [replace(one, choices=("x", "z", one.answers[0])) for one in samples]
    with pytest.raises(InputError, match="different things"):
        compare(answered(samples, [True] * 4), answered(changed, [True] * 4))


def test_pairs_are_found_by_id_and_grouped() -> None:
    samples = questions(8)
    first, second = answered(samples, [False] * 8), answered(samples[::-1][:6], [True] * 6)
    found = compare(first, second)
    assert (found["n"], found["gained"]) == (6, 6)
    assert {row: part["n"] for row, part in found["by_category"].items()} == {"a": 3, "b": 3}
    with pytest.raises(InputError, match="share no question"):
        compare(first[:2], second)
    with pytest.raises(InputError, match="different things under the id 'q7'"):
        compare(first, [replace(second[0], sample=replace(samples[7], question="Why?")), *second[1:]])


def test_a_resolution_that_is_no_number_is_not_one() -> None:
    samples = [replace(one, metadata={"resolution": "4K"}) for one in questions(4)]
    run = answered(samples, [True] * 4)
    assert set(compare(run, run)["by_resolution"]) == {"1000"}


def test_the_command_writes_tables_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = drawn(questions(20), (224, 448))
    samples = [replace(one, metadata=one.metadata | {"category": "[/b]"[: 4 - k % 2]}) for k, one in enumerate(samples)]
    base = written(tmp_path / "ba|se", answered(samples, [k % 2 == 0 for k in range(40)]))
    other = written(tmp_path / "$other[red]", answered(samples, [k % 4 > 0 for k in range(40)]))
    output = tmp_path / "out"
    assert main(["compare", str(base), str(other), "-o", str(output)]) == 0
    assert "$other[red] against ba|se" in capsys.readouterr().out
    found = json.loads((output / "comparison.json").read_text())
    assert found["base"] == "ba|se"
    assert found["others"]["$other[red]"]["accuracy"]["difference"] == 0.25
    rows = list(csv.DictReader((output / "comparison.csv").open()))
    assert [row["rows"] for row in rows] == ["all", "category [/b", "category [/b]", "resolution 224", "resolution 448"]
    assert rows[0]["accuracy_base"] == "0.5" and rows[0]["accuracy"] == "0.75"
    assert (output / "comparison.md").read_text().count("\n|") == (2 + 2) + (2 + len(rows))
    for name in ("resolution.png", "category.png", "tokens.png"):
        with Image.open(output / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20


def test_a_category_without_a_right_answer_has_its_bar() -> None:
    from matplotlib.patches import Rectangle

    from cof_agent.viewer.plots import by_category

    figure = by_category(
        [Run("some", answered(questions(4), [True, False] * 2)), Run("none", answered(questions(4), [False] * 4))]
    )
    assert figure is not None
    heights = [bar.get_height() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert sorted(heights) == [0, 0, 0, 1]


def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run", answered(questions(3), [True] * 3))
    strange = written(
        tmp_path / "strange", answered([replace(one, id="x" + one.id) for one in questions(3)], [True] * 3)
    )
    output = tmp_path / "out"
    for others, sentence in (
        ([], "name at least two runs"),
        ([str(tmp_path)], "has no trajectories.jsonl"),
        ([str(run)], "is named twice"),
        ([str(strange)], "share no question"),
    ):
        assert main(["compare", str(run), *others, "-o", str(output)]) == 2
        assert sentence in capsys.readouterr().err
    assert not output.exists()


# --- figures, once


def test_figures_of_the_same_trajectories_are_computed_once() -> None:
    calls: list[int] = []

    def counting(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        calls.append(len(trajectories))
        return figures(trajectories)

    samples = questions(6)
    once = remembered(counting)
    base, other = (Run(str(k), answered(samples, [k > 0] * 6), figures_of=once) for k in range(2))
    compare(base.trajectories, other.trajectories, figures_of=once)
    found = [base.figures, other.figures, base.tables, other.tables]
    assert sorted(calls) == [3] * 4 + [6] * 2  # two runs, whole and by two categories; one resolution is the whole
    assert found[0]["accuracy"] == 0.0 and found[1]["accuracy"] == 1.0
    assert once([*base.trajectories]) is base.figures
    assert once(base.trajectories[::-1])["n"] == 6 and len(calls) == 7


def test_a_summary_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    run = answered(questions(2), [True] * 2)
    first, second, third = (written(tmp_path / name, run) for name in ("a", "b", "c"))
    (first / "summary.json").write_text(json.dumps({"command": "cof eval -o a", "seed": None}))
    (second / "summary.json").write_text("{")
    (third / "summary.json").write_text("[]")
    runs = read_runs([first, second / "trajectories.jsonl", third])
    assert [run.command for run in runs] == ["cof eval -o a", None, None]
    assert [run.summary is None for run in runs] == [False, True, True]
    assert [run.name for run in runs] == ["a", "trajectories.jsonl", "c"]
    assert runs[1].folder == second


# --- the page


class Page(HTMLParser):
    """A written page as a browser's parser sees it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def images(self, kind: str) -> list[Image.Image]:
        start = f"data:image/{kind};base64,"
        sources = [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(src[len(start) :]))) for src in sources if src.startswith(start)]


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
    drawn = Image.new("RGB", (1000, 500), "#204060")
    ImageDraw.Draw(drawn).rectangle((700, 100, 799, 199), fill="#ffee00")
    drawn.save(path := tmp_path / "scene.png")
    return path


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)


def played(image: Path, right: Sequence[bool], **settings: Any) -> list[Trajectory]:
    """Trajectories that zoom onto the yellow patch of the image."""
    view = View(Size(1000, 500), Box(680, 80, 820, 220), Size(112, 112))
    return [
        replace(
            one,
            sample=replace(one.sample, image=str(image), choices=("no", one.sample.answers[0])),
            turns=(Turn("", (), (Observation(view=view),)), *one.turns),
            policy="nano",
            settings=SETTINGS | settings,
        )
        for one in answered(questions(len(right)), right)
    ]


def compared(tmp_path: Path, *folders: Path) -> Page:
    output = tmp_path / "out"
    assert main(["compare", *map(str, folders), "-o", str(output)]) == 0
    return Page(output / "report.html")


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
        "Beside the trajectories of blank there is no summary.json that can be read",
        "0.912 to 1.000",
        "answered 40",
        "1.000 → 0.025",
        "On the 40 questions into which base zoomed, blank crops instead of real ones (blank) take accuracy from 1.000 to "
        "0.025",
        "Letters of base",
        "12 of 39 wrong answers; those that base got right come first.",
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
            answer=f"no {NASTY}\ud800",
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
    names = [tag for tag, _ in page.tags]
    assert "script" not in names and names.count("style") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    addresses = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if attributes.get(name)]
    assert addresses and all(str(address).startswith("data:image/") for address in addresses)
    [policy] = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = page.html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert NASTY in page.text


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
    samples = questions(8)
    base = Run("base", answered(samples[:6], [k % 2 == 0 for k in range(6)]))
    run = Run("other", answered(samples, [k == 2 for k in range(8)]))
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
    assert 'pip install "chain-of-focus[plot]"' in page.text
    assert page.images("png") == [] and "None of these runs is a control of another" in page.text


def test_a_picture_without_words_is_the_middle_of_the_one_with_them(image: Path) -> None:
    [done] = played(image, [False])
    bare, whole = seen(done, open_source(image), long_side=800), annotate(done, open_source(image), long_side=800)
    assert bare.getpixel((bare.width - 1, 0)) == ImageColor.getrgb(PALETTE[0]), "the crop's frame begins at the top"
    rows = whole.height - bare.height
    assert bare.tobytes() in {
        whole.crop((20, top, 20 + bare.width, top + bare.height)).tobytes() for top in range(rows)
    }


def test_what_is_put_into_an_element_is_escaped_once() -> None:
    inner = element("b", "a < b & c")
    assert inner == "<b>a &lt; b &amp; c</b>" and isinstance(inner, Markup)
    assert element("p", inner, None, "<", class_='x"y') == '<p class="x&quot;y"><b>a &lt; b &amp; c</b>&lt;</p>'
    assert element("img", alt="<") == '<img alt="&lt;">'
