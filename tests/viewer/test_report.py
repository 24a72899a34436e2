"""The page of trajectories, as data: what a written page holds and what it never lets in. What its script does with it is
tested in `test_browser.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.geometry import Box
from cof_agent.protocol import parse, write_zoom
from cof_agent.scoring import accuracy
from cof_agent.trajectory import Observation, Sample, StopReason, Tokens, Trajectory, Turn, Use
from cof_agent.viewer import embedded, images, report
from cof_agent.viewer.report import write_page
from tests.viewer.drawn import FIELD, NASTY, PATCH, SIZE, TARGET, crop, is_close, trajectory, turn, zoom
from tests.viewer.parsed_page import ParsedPage, decoded, digest


class Page(ParsedPage):
    """The page with the data in it."""

    def __init__(self, html: str) -> None:
        super().__init__(html)
        self.head = json.loads(self.blocks["data"])
        self.records = json.loads(self.blocks["records"])

    def image(self, number: int) -> Image.Image:
        return decoded(self.blocks[f"i{number}"])


def page(trajectories: list[Trajectory], tmp_path: Path, title: str = "Page") -> Page:
    write_page(trajectories, tmp_path / "page.html", title=title, score=accuracy)
    return Page((tmp_path / "page.html").read_text("utf-8"))


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
    assert is_close(whole.convert("RGB").getpixel((10, 10)), FIELD)
    assert all(is_close(cut.convert("RGB").getpixel(at), PATCH) for at in ((8, 8), (56, 56), (104, 104)))


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
    [step] = first["steps"]
    assert (step["kind"], step["asked"], step["of"]) == ("zoom", "[900, 0, 950, 50]", 0)
    assert step["error"] == "It lies outside." and "view" not in step
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


def test_the_use_of_a_tool_shows_its_arguments_and_its_result(image: Path, tmp_path: Path) -> None:
    read, turned = Use("read_text", {"language": "en"}), Use("rotate", {"degrees": 90}, 1)
    rotated = replace(crop(TARGET), tool="rotate", arguments=(("degrees", 90),))
    tools = Turn("", (read, turned), (Observation(text="STOP"), Observation(view=rotated)))
    [record] = page([trajectory(image, zoom(crop(TARGET)), tools)], tmp_path).records
    first, second = record["turns"][1]["steps"]
    assert (first["kind"], first["asked"], first["of"], first["said"]) == ("use", "read_text(language='en')", 0, "STOP")
    assert "view" not in first and (second["asked"], second["of"], second["view"]) == ("rotate(degrees=90)", 1, 2)
    assert [view["tool"] for view in record["views"]] == [None, None, "rotate"]


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
    done = replace(done, policy=NASTY, strategy=NASTY, error=NASTY, group=NASTY, rewards={NASTY: 1.0})
    written = page([done], tmp_path, title=NASTY)
    scripts = [attributes.get("type") for tag, attributes in written.elements if tag == "script"]
    assert scripts == ["application/json", "application/json", "text/plain", "text/plain", None]
    assert "img" not in written.tags and written.handlers == []
    assert not set("<>&") & set(written.blocks["data"] + written.blocks["records"])
    safe = NASTY.replace("\ud800", "?")
    [record] = written.records
    assert {record[name] for name in ("question", "id", "policy", "error", "group")} == {safe}
    assert record["strategy"].startswith(safe[:80])
    assert written.head["rewards"] == [safe[:60] + f" … [{len(NASTY) - 60} more characters]"]
    assert safe in written.blocks["title"] and safe in written.text


def test_the_policy_allows_exactly_the_page_s_own_style_and_script(image: Path, tmp_path: Path) -> None:
    written = page([trajectory(image)], tmp_path)
    assert written.policy == (
        f"default-src 'none'; img-src data:; style-src '{digest(written.blocks['style'])}'; "
        f"script-src '{digest(written.blocks['script'])}'; base-uri 'none'; form-action 'none'"
    )
    assert written.addresses == [] and "innerHTML" not in written.html


def test_a_reward_that_is_not_scored_is_no_number(image: Path, tmp_path: Path) -> None:
    done = replace(
        trajectory(image),
        step=3,
        group="3.1",
        advantage=-0.70710678,
        play=2,
        resolution=448,
        shuffle_seed=7,
        rewards={"accuracy": None, "format": 0.0},
    )
    other = replace(trajectory(image), rewards={"format": 1.0, "judge": float("nan")})
    written = page([done, other, trajectory(image)], tmp_path)
    assert written.head["rewards"] == ["accuracy", "format", "judge"]
    first, second, third = written.records
    names = ("step", "group", "advantage", "play", "resolution", "shuffle", "strategy")
    assert [first[name] for name in names] == [3, "3.1", -0.7071, 2, 448, 7, "focus"]
    assert first["rewards"] == [[0, None], [1, 0.0]]
    assert second["rewards"] == [[1, 1.0], [2, None]]
    assert third["rewards"] == [] and third["advantage"] is third["step"] is None and third["group"] == ""


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
    problems = {number: text for text, numbers in written.head["problems"] for number in numbers}
    gone, cut, small, fine, dead = written.records
    assert all("there is no such file" in problems[view["image"]] for view in gone["views"])
    assert "damaged" in problems[cut["views"][0]["image"]] and "70 x 30" in problems[small["views"][0]["image"]]
    assert all(f"i{view['image']}" in written.blocks for view in fine["views"])
    assert dead["views"] == [] and dead["error"] == "the server is gone" and dead["right"] is None


def test_an_image_asked_for_twice_is_embedded_and_decoded_once(image: Path, tmp_path: Path) -> None:
    done = trajectory(image, zoom(crop(TARGET)), zoom(crop(TARGET)))
    told: list[tuple[int, int]] = []
    write_page([done, done], tmp_path / "page.html", title="", score=accuracy, progress=lambda *at: told.append(at))
    assert sum(name.startswith("i") for name in ParsedPage.read(tmp_path / "page.html").blocks) == 2
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
    monkeypatch.setattr(images, "MOST_BYTES", images.MOST_BYTES // 200)
    monkeypatch.setattr(embedded, "_TEXT_BYTES", embedded._TEXT_BYTES // 4)
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
    assert len(written.html.encode()) < fixed + images.MOST_BYTES * 4 / 3 + embedded._TEXT_BYTES
    assert [record["id"] for record in written.records] == [f"sample {index}" for index in range(1000)]
    assert "more characters]" in written.records[0]["turns"][0]["text"]
    assert sum(f"i{view['image']}" in written.blocks for view in written.records[0]["views"]) >= 2


def test_one_endless_trajectory_is_cut_and_says_so(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_TEXT_BYTES", 20_000)
    endless = trajectory(image, *(turn("<tool_call>" * 500, Observation(error="no")) for _ in range(200)), answer=None)
    [record] = page([endless], tmp_path).records
    assert record["left_out"] == 200 - len(record["turns"]) > 0
    assert len(json.dumps(record)) < 25_000


def test_more_trajectories_than_the_page_takes_are_counted(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_TRAJECTORIES", 3)
    written = page([trajectory(image)] * 5, tmp_path)
    assert (len(written.records), written.head["total"]) == (3, 5)
