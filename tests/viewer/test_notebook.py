"""What a notebook shows of a trajectory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from cof_agent.geometry import Box
from cof_agent.trajectory import Observation, Sample, StopReason, Trajectory, Turn, Use, shown_by
from cof_agent.viewer.notebook import notebook_html
from cof_agent.viewer.picture import PALETTE
from tests.viewer.drawn import NASTY, PATCH, TARGET, crop, is_close, trajectory, turn, zoom
from tests.viewer.parsed_page import ParsedPage

SAFE = NASTY.replace("\ud800", "?")


def test_a_trajectory_shows_its_picture_and_its_words(image: Path) -> None:
    refused = turn("<think>There.</think> nothing", Observation(error="No action was found."))
    done = trajectory(image, zoom(crop(TARGET), "Look closer."), refused, choices=("9Z", "7K"))
    done = replace(done, rewards={"accuracy": None, "format": 0.5}, advantage=-0.25)
    html = notebook_html(done)
    shown_by(notebook_html)  # as the agent does when it is imported
    assert done._repr_html_() == html
    shown = ParsedPage(html)
    assert shown.texts == [
        "What is on it?",
        "A. 9Z    B. 7K",
        "Look closer.",
        "Zoom 1: 60 × 60 source pixels, shown at 112 × 112",
        "<think>There.</think> nothing",
        "Refused: No action was found.",
        "Clear now.",
        "Answer: B. 7K (right)",
        "Truth: B. 7K · Dashed: what the question is about · reward accuracy not scored · reward format 0.5 · advantage -0.25",
    ]
    [picture] = shown.images("webp")
    crop_at = (picture.width - 100, 100)
    assert is_close(picture.convert("RGB").getpixel(crop_at), PATCH), "the crop stands beside the overview"
    assert is_close(picture.convert("RGB").getpixel((picture.width - 2, 40)), PALETTE[0], 60), "in a numbered frame"


def test_the_use_of_a_tool_shows_its_result(image: Path) -> None:
    rotated = replace(crop(TARGET), tool="rotate", arguments=(("degrees", 90),))
    actions = (Use("read_text", {"language": "en"}), Use("rotate", {"degrees": 90}))
    done = trajectory(image, Turn("", actions, (Observation(text="STOP"), Observation(view=rotated))))
    texts = ParsedPage(notebook_html(done)).texts
    assert "read_text(language='en'): STOP" in texts
    assert "Image by rotate 1: 60 × 60 source pixels, shown at 112 × 112" in texts
    assert "Drawn are the regions that rotate got, not the images made of them" in texts[-1]


def test_text_is_never_markup_and_nothing_is_asked_for(image: Path) -> None:
    done = trajectory(
        image,
        zoom(crop(TARGET), NASTY),
        turn(NASTY, Observation(error=NASTY)),
        answer=NASTY,
        question=NASTY,
        answers=(NASTY,),
        choices=(NASTY, "b"),
    )
    done = replace(done, error=NASTY, rewards={NASTY: 1.0}, settings={"crop": NASTY})
    shown = ParsedPage(notebook_html(done))
    assert set(shown.tags) <= {"div", "p", "img", "ol", "li", "b"} and shown.handlers == []
    assert [address[:22] for address in shown.addresses] == ["data:image/webp;base64"]
    assert shown.text.count(SAFE) >= 7


def test_an_endless_trajectory_over_noise_stays_below_a_megabyte(tmp_path: Path) -> None:
    Image.effect_noise((800, 400), 90).convert("RGB").save(path := tmp_path / "noise.png")
    zooms = [zoom(crop(Box(x, 0, x + 90, 90)), '"&<' * 5_000) for x in range(0, 700, 5)]
    done = trajectory(path, *zooms, question="图" * 90_000, choices=("'" * 9_000,) * 50)
    html = notebook_html(done)
    assert len(html.encode()) < 1_000_000
    assert f"{len(done.turns) - 30} more turns are not shown" in html and "more characters]" in html
    assert len(ParsedPage(html).images("webp")) == 1


def test_an_image_that_is_gone_is_said_in_its_place(image: Path) -> None:
    image.unlink()
    shown = ParsedPage(notebook_html(trajectory(image)))
    assert "there is no such file" in shown.text and "Answer: 7K (right)" in shown.text and shown.addresses == []
    failed = Trajectory(Sample("x", "nowhere.png", "Where?"), None, (), StopReason.ERROR, error="The server is gone.")
    assert ParsedPage(notebook_html(failed)).texts[-2:] == ["No answer (error)", "Error: The server is gone."]


def test_what_cannot_be_scored_is_neither_right_nor_wrong(image: Path) -> None:
    for answers, words in ((("7K",), "Answer: 7K (right)"), (("9Z",), "Answer: 7K (wrong)"), ((), "Answer: 7K")):
        assert words in ParsedPage(notebook_html(trajectory(image, answers=answers))).texts
