"""The annotated picture and the HTML page, from drawn images and real trajectories."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw

from cof_agent.geometry import Box, CoordinateSystem, Size, View
from cof_agent.image import open_source
from cof_agent.protocol import parse, write_answer, write_zoom
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn
from cof_agent.viewer import report
from cof_agent.viewer.picture import PALETTE
from cof_agent.viewer.report import MAX_PAGE_BYTES, annotate, write_page

SIZE = Size(800, 400)
TARGET = Box(600, 100, 660, 160)
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 \u2029 <!-- \ud800 %%script%% 图"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    drawn = Image.new("RGB", (SIZE.width, SIZE.height), "#204060")
    ImageDraw.Draw(drawn).rectangle(TARGET.pixels(), fill="#ffee00")
    drawn.save(path := tmp_path / "scene.png")
    return path


def overview(size: Size = SIZE) -> View:
    return View(size, Box(0, 0, size.width, size.height), Size(224, 112))


def crop(region: Box, size: Size = SIZE) -> View:
    return View(size, region, Size(112, 112))


def turn(text: str, *observations: Observation) -> Turn:
    return Turn(text, parse(text), observations, Tokens(100, 10), 0.5)


def zoom(view: View, thought: str = "Closer.", *, of: int = 0) -> Turn:
    box = overview().from_source(view.region, CoordinateSystem.ABSOLUTE)
    return turn(write_zoom(thought, box, of), Observation(view=view))


def trajectory(image: Path, *turns: Turn, answer: str | None = "7K", **sample: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "id": "one",
        "question": "What is on it?",
        "answers": ("7K",),
        "boxes": (TARGET,),
    } | sample
    last = (turn(write_answer("Clear now.", answer)),) if answer else ()
    stop = StopReason.ANSWERED if answer else StopReason.MAX_ZOOMS
    task = Sample(image=str(image), **fields)
    return Trajectory(task, overview(), (*turns, *last), stop, answer or None, "nano", "1")


def page(trajectories: list[Trajectory], tmp_path: Path, title: str = "Page") -> Page:
    write_page(trajectories, tmp_path / "page.html", title=title, score=accuracy)
    return Page((tmp_path / "page.html").read_text("utf-8"))


class Page(HTMLParser):
    """A written page as a browser's parser sees it: its elements, the data block, the images."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.attributes = html, list[str](), list[dict[str, str | None]]()
        self.blocks: dict[str, str] = {}
        self.feed(html)
        self.close()
        self.data = json.loads(self.blocks["data"])
        self.records = self.data["records"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("script", "style", "title"):
            name = self.attributes[-1].get("id") or self.tags[-1]
            self.blocks[name] = self.blocks.get(name, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.tags.append("/" + tag)
        self.attributes.append({})

    def image(self, number: int) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.blocks[f"i{number}"])))


# --- the page


def test_a_card_has_what_was_asked_shown_and_answered(image: Path, tmp_path: Path) -> None:
    near, nearer = crop(Box(500, 50, 780, 330)), crop(Box(580, 80, 680, 180))
    sample = {"choices": ("9Z", "7K"), "metadata": {"category": "nested"}}
    done = trajectory(image, zoom(near, "First."), zoom(nearer, "Again.", of=1), answer="B", **sample)
    [record] = page([done], tmp_path).records
    assert record["right"] is True
    assert record["answer"] == ["B", 1] and record["truth"] == [["7K", 1]]
    assert record["choices"] == [["A", "9Z"], ["B", "7K"]]
    assert (record["category"], record["zooms"], record["stop"], record["policy"]) == ("nested", 2, "answered", "nano")
    assert record["tokens"] == [300, 30] and record["seconds"] == 1.5
    assert [view["region"] for view in record["views"][1:]] == [[500, 50, 780, 330], [580, 80, 680, 180]]
    assert [item["thought"] for item in record["turns"]] == ["First.", "Again.", "Clear now."]
    assert [item["steps"][0].get("view") for item in record["turns"]] == [1, 2, None]
    assert record["turns"][1]["steps"][0]["of"] == 1


def test_embedded_images_show_their_regions(image: Path, tmp_path: Path) -> None:
    written = page([trajectory(image, zoom(crop(TARGET)))], tmp_path)
    whole, cut = (written.image(view["image"]) for view in written.records[0]["views"])
    assert whole.size == (800, 400) and cut.size == (112, 112)
    assert _close(whole.convert("RGB").getpixel((10, 10)), "#204060")
    assert all(_close(cut.convert("RGB").getpixel(at), "#ffee00") for at in ((8, 8), (56, 56), (104, 104)))


def test_errors_and_malformed_turns_are_shown_in_their_place(image: Path, tmp_path: Path) -> None:
    refused = turn(write_zoom("Out.", Box(900, 0, 950, 50)), Observation(error="It lies outside."))
    mixed = turn(
        write_zoom("Two.", Box(0, 0, 20, 20)) + "<tool_call>{</tool_call>",
        Observation(view=crop(TARGET)),
        Observation(error="The tool call is not JSON."),
    )
    chatter = turn("I do not know")
    [record] = page([trajectory(image, refused, mixed, chatter, answer=None)], tmp_path).records
    first, second, third = record["turns"]
    assert first["steps"] == [
        {"kind": "zoom", "asked": "[900, 0, 950, 50]", "of": 0, "error": "It lies outside.", "note": None}
    ]
    assert second["steps"][0]["view"] == 1
    assert second["steps"][1]["kind"] == "malformed" and second["steps"][1]["error"] == "The tool call is not JSON."
    assert third["steps"][0]["kind"] == "malformed" and third["text"] == "I do not know"
    assert record["answer"] is None and record["right"] is False and record["stop"] == "max_zooms"


def test_each_action_stands_with_its_own_observation(image: Path, tmp_path: Path) -> None:
    calls = write_zoom("", Box(0, 0, 9, 9)).partition("</think>")[2]
    text = f"<think>x</think><tool_call>{{</tool_call>{calls}{calls}"
    done = trajectory(image, turn(text, Observation(error="no JSON"), Observation(view=crop(TARGET))))
    [record] = page([done], tmp_path).records
    steps = record["turns"][0]["steps"]
    assert [(step["kind"], step.get("error"), step.get("view")) for step in steps] == [
        ("malformed", "no JSON", None),
        ("zoom", None, 1),
        ("zoom", None, None),
    ]


def test_an_ablated_run_says_that_the_model_saw_other_crops(image: Path, tmp_path: Path) -> None:
    done = replace(trajectory(image, zoom(crop(TARGET))), settings={"crop": "blank"})
    assert page([done], tmp_path).records[0]["altered"] == "blank"
    assert page([trajectory(image)], tmp_path).records[0]["altered"] == ""


def test_text_of_models_and_data_is_never_markup(image: Path, tmp_path: Path) -> None:
    done = trajectory(
        image,
        zoom(crop(TARGET), NASTY),
        turn(NASTY, Observation(error=NASTY)),
        answer=NASTY,
        id=NASTY,
        question=NASTY,
        answers=(NASTY,),
        choices=(NASTY, "b"),
        metadata={"category": NASTY},
    )
    written = page([done], tmp_path, title=NASTY)
    scripts = [attributes for tag, attributes in zip(written.tags, written.attributes, strict=True) if tag == "script"]
    assert [script.get("type") for script in scripts] == ["application/json", "text/plain", "text/plain", None]
    assert "img" not in written.tags
    assert not any(name.startswith("on") for attributes in written.attributes for name in attributes)
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', written.html, re.DOTALL)
    assert raw is not None and not re.search("[<>&\u2028\u2029]", raw[1])
    safe = NASTY.replace("\ud800", "?")
    assert written.records[0]["question"] == safe and written.records[0]["id"] == safe


def test_the_policy_allows_exactly_the_page_s_own_style_and_script(image: Path, tmp_path: Path) -> None:
    written = page([trajectory(image)], tmp_path)
    [policy] = [str(a["content"]) for a in written.attributes if a.get("http-equiv") == "Content-Security-Policy"]

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy == (
        f"default-src 'none'; img-src data:; style-src '{digest(written.blocks['style'])}'; "
        f"script-src '{digest(written.blocks['script'])}'; base-uri 'none'; form-action 'none'"
    )
    links = [a[name] for a in written.attributes for name in ("src", "href") if a.get(name)]
    assert links == [] and "innerHTML" not in written.html


def test_a_missing_broken_or_changed_image_stops_nothing(image: Path, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(image.read_bytes()[:200])
    changed = trajectory(image, zoom(crop(TARGET)))
    Image.new("RGB", (70, 30)).save(other := tmp_path / "other.png")
    made = [
        trajectory(tmp_path / "gone.png", zoom(crop(TARGET))),
        trajectory(broken),
        trajectory(other),
        changed,
        Trajectory(Sample("dead", "nowhere.png", "?"), None, (), StopReason.ERROR, error="the server is gone"),
    ]
    written = page(made, tmp_path)
    problems = {number: text for text, numbers in written.data["problems"] for number in numbers}
    gone, cut, small, fine, dead = written.records
    assert all("there is no such file" in problems[view["image"]] for view in gone["views"])
    assert "damaged" in problems[cut["views"][0]["image"]] and "70 x 30" in problems[small["views"][0]["image"]]
    assert all(f"i{view['image']}" in written.blocks for view in fine["views"])
    assert dead["views"] == [] and dead["error"] == "the server is gone" and dead["right"] is None


def test_an_image_asked_for_twice_is_embedded_and_decoded_once(image: Path, tmp_path: Path) -> None:
    done = trajectory(image, zoom(crop(TARGET)), zoom(crop(TARGET)))
    told: list[tuple[int, int]] = []
    write_page([done, done], tmp_path / "page.html", title="", score=accuracy, progress=lambda *at: told.append(at))
    assert sum(name.startswith("i") for name in Page((tmp_path / "page.html").read_text()).blocks) == 2
    assert told == [(1, 1)]


def test_an_empty_file_still_makes_a_page(tmp_path: Path) -> None:
    assert page([], tmp_path).records == []


def test_values_json_does_not_know_do_not_break_the_page(image: Path, tmp_path: Path) -> None:
    nan = float("nan")
    odd = Turn("x", parse(write_zoom("", Box(0, 0, 1, 1))), (), Tokens(None, None), nan)
    [record] = page([trajectory(image, odd, boxes=(Box(nan, 0, 1, 1), TARGET))], tmp_path).records
    assert record["seconds"] is None and record["boxes"] == [[600, 100, 660, 160]]


def test_a_thousand_trajectories_stay_below_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path
) -> None:
    # The real bound with a thousand noisy photographs takes minutes; the same rule with a small part of the bytes.
    monkeypatch.setattr(report, "_IMAGE_BYTES", report._IMAGE_BYTES // 200)
    monkeypatch.setattr(report, "_TEXT_BYTES", report._TEXT_BYTES // 4)
    noisy = []
    for index in range(4):
        Image.effect_noise((SIZE.width, SIZE.height), 90).convert("RGB").save(path := tmp_path / f"{index}.png")
        noisy.append(path)
    made = [
        trajectory(
            noisy[index % 4],
            *(zoom(crop(Box(x, index // 4, x + 64, index // 4 + 64)), "long " * 3000) for x in (0, 200)),
            id=f"sample {index}",
        )
        for index in range(40)
    ]
    made += [trajectory(image, zoom(crop(TARGET)), id=f"sample {index}") for index in range(40, 1000)]
    written = page(made, tmp_path)
    fixed = 60_000  # markup, style and script
    assert len(written.html.encode()) < fixed + report._IMAGE_BYTES * 4 / 3 + report._TEXT_BYTES
    assert [record["id"] for record in written.records] == [f"sample {index}" for index in range(1000)]
    assert "more characters]" in written.records[0]["turns"][0]["text"]
    assert sum(f"i{view['image']}" in written.blocks for view in written.records[0]["views"]) >= 2


def test_the_bound_leaves_room_for_the_rest() -> None:
    assert report._IMAGE_BYTES * 4 / 3 + report._TEXT_BYTES < 0.9 * MAX_PAGE_BYTES


def test_one_endless_trajectory_is_cut_and_says_so(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_TEXT_BYTES", 20_000)
    endless = trajectory(image, *(turn("<tool_call>" * 500, Observation(error="no")) for _ in range(200)), answer=None)
    [record] = page([endless], tmp_path).records
    assert record["left_out"] == 200 - len(record["turns"]) > 0
    assert len(json.dumps(record)) < 25_000


def test_more_trajectories_than_the_page_takes_are_counted(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_TRAJECTORIES", 3)
    written = page([trajectory(image)] * 5, tmp_path)
    assert (len(written.records), written.data["total"]) == (3, 5)


# --- the picture


def _close(pixel: Any, ink: str, tolerance: int = 24) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, ImageColor.getrgb(ink), strict=True))


def _extent(picture: Image.Image, ink: str, inside: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """Where exactly that colour stands within a part of the picture, as edges in the picture's pixels."""
    part = picture.crop(inside)
    mask = Image.new("L", part.size)
    mask.putdata([255 if pixel == ImageColor.getrgb(ink) else 0 for pixel in part.get_flattened_data()])
    found = mask.getbbox()
    return (
        None
        if found is None
        else (found[0] + inside[0], found[1] + inside[1], found[2] + inside[0], found[3] + inside[1])
    )


def test_annotate_draws_the_boxes_where_they_belong(image: Path) -> None:
    first, second = Box(560, 120, 760, 320), Box(100, 200, 180, 280)
    done = trajectory(image, zoom(crop(first)), zoom(crop(second)))
    picture = annotate(done, open_source(image), long_side=800)
    left, top = _extent(picture, "#204060", (0, 0, 600, picture.height))[:2]  # type: ignore[index]
    for ink, box in zip(PALETTE, (first, second), strict=False):
        # Below the number, so that its square does not count.
        near = (round(left + box.x0 - 9), round(top + box.y0 + 5), round(left + box.x1 + 9), round(top + box.y1 + 9))
        found = _extent(picture, ink, near)
        assert found is not None
        expected = (left + box.x0, None, left + box.x1, top + box.y1)
        assert all(e is None or 0 <= abs(f - e) <= 4 for f, e in zip(found, expected, strict=True))
        middle = (round(left + box.x0 + 40), round(top + box.y0 + 60))
        assert _close(picture.getpixel(middle), "#204060"), "the inside of a box is left as it is"


def test_annotate_puts_the_crops_beside_in_full_resolution(image: Path) -> None:
    picture = annotate(trajectory(image, zoom(crop(TARGET))), open_source(image), long_side=800)
    frame = _extent(picture, PALETTE[0], (830, 0, picture.width, picture.height))
    assert frame is not None
    x0, y0, x1, y1 = frame
    assert x1 - x0 > 200 and abs((x1 - x0) - (y1 - y0)) <= 2
    assert all(_close(picture.getpixel(at), "#ffee00") for at in ((x1 - 9, y0 + 9), (x0 + 9, y1 - 9), (x1 - 9, y1 - 9)))


def test_annotate_takes_any_trajectory(image: Path, tmp_path: Path) -> None:
    source = open_source(image)
    bare = Trajectory(Sample("x", str(image), ""), None, (), StopReason.ERROR, error="no")
    assert annotate(bare, source).mode == "RGB"
    many = [zoom(crop(Box(x, 10, x + 20, 390))) for x in range(0, 600, 25)]
    crowded = annotate(trajectory(image, *many, question="word " * 500, choices=("a\nb", "c" * 900)), source)
    assert crowded.width < 6000
    Image.new("RGB", (1, 3000), "red").save(strip := tmp_path / "strip.png")
    thin = Trajectory(
        Sample("x", str(strip), "图" * 400),
        overview(Size(1, 3000)),
        (turn("", Observation(view=crop(Box(0, 5, 1, 6), Size(1, 3000)))),),
        StopReason.TRUNCATED,
    )
    assert annotate(thin, open_source(strip)).height > 1600
