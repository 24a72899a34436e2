"""Chain-of-Spot: its two turns as played, recorded and trained on; regions from maps; `cof spots`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cof_agent import protocol, scoring
from cof_agent.backends.families import QWEN2_5_VL, QWEN3_VL, Family
from cof_agent.cli import main
from cof_agent.data.export import to_sharegpt
from cof_agent.environment import ZoomEnvironment, ZoomSettings, settings_of
from cof_agent.geometry import Box, Size, View
from cof_agent.graphs.steps import Context
from cof_agent.image import open_source
from cof_agent.policy import Completion, ScriptedPolicy
from cof_agent.protocol import Message
from cof_agent.scenes import oracle
from cof_agent.strategies import registry as strategies
from cof_agent.strategies.replay import messages_of
from cof_agent.strategies.spot import protocol as spot
from cof_agent.strategies.spot.highlight import Highlight, draw, pointing
from cof_agent.trajectory import Answer, Malformed, Sample, StopReason, Trajectory, Zoom, read_jsonl, to_json

REGION = "[0.250, 0.375, 0.500, 0.500]"
SIZES = st.builds(Size, st.integers(60, 5000), st.integers(60, 5000))


@pytest.fixture(scope="module")
def sample(picture: Path) -> Sample:
    return Sample("shapes", str(picture), "What is there?", ("7",))


def play(script: Sequence[object] | Callable[..., object], sample: Sample, prompt: str | None = None) -> Trajectory:
    policy = ScriptedPolicy(script)  # type: ignore[arg-type]
    way = strategies.by_name("spot")(policy, ZoomSettings(policy.coordinates, policy.limits))
    context = Context(way.policy, ZoomEnvironment(way.settings), prompt=prompt, strategy="spot")
    return asyncio.run(way.graph.run(sample, context))


def overview_of(size: Size) -> View:
    return ZoomEnvironment().overview(size)


# --- the format


@given(SIZES, st.data(), st.sampled_from(["", "It is in ", "1. Here: ["]), st.sampled_from(["", "] I think.", ", 9."]))
def test_a_region_is_read_back_whatever_stands_around_it(
    size: Size, data: st.DataObject, before: str, after: str
) -> None:
    overview = overview_of(size)
    x0, x1 = sorted(data.draw(st.tuples(*[st.floats(0, size.width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.floats(0, size.height)] * 2)))
    exact = overview.from_source(Box(x0, y0, x1, y1), spot.SYSTEM)
    found = spot.read_region(before + spot.write_region(exact) + after, overview)
    if isinstance(found, Zoom):
        assert tuple(found.box) == pytest.approx(tuple(exact), abs=0.0005001)
    else:
        assert min(exact.width, exact.height) < 0.0011


@given(st.text(alphabet="[]0123456789.,-+ ex", max_size=60) | st.text(max_size=40))
def test_no_text_breaks_the_reading(text: str) -> None:
    overview = overview_of(Size(800, 600))
    found = spot.read_region(text, overview)
    if isinstance(found, Zoom):
        (seen,) = ZoomEnvironment(ZoomSettings(spot.SYSTEM)).step((found,), (overview,))
        assert seen.view is not None
    else:
        assert found.reason.endswith(".")
    assert isinstance(spot.read_answer(text), (Answer, Malformed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "somewhere",
        "[0.1, 0.2, 0.3]",
        "[0.1, 0.1, 0.1, 0.5]",
        "[2, 2, 3, 3]",
        "[0.2, 0.0, 0.8, 0.1]",
        "[1e9, 0, 1, 1]",
    ],
)
def test_what_is_no_region_of_the_image(text: str) -> None:
    assert isinstance(spot.read_region(text, overview_of(Size(800, 600))), Malformed)


@given(SIZES, st.data())
def test_the_crop_takes_in_the_region_that_was_meant(size: Size, data: st.DataObject) -> None:
    x, y = (data.draw(st.integers(0, side - 20)) for side in (size.width, size.height))
    target = Box(x, y, data.draw(st.integers(x + 20, size.width)), data.draw(st.integers(y + 20, size.height)))
    overview = overview_of(size)
    action = spot.read_region(spot.write_region(overview.from_source(target, spot.SYSTEM)), overview)
    (seen,) = ZoomEnvironment(ZoomSettings(spot.SYSTEM)).step((action,), (overview,))
    assert seen.view is not None and seen.view.region.coverage(target) > 0.97


# --- the graph


def test_two_turns_the_region_and_the_answer(sample: Sample) -> None:
    heard: list[Sequence[Message]] = []

    def script(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return REGION if len(messages) == 1 else " 7\n"

    played = play(script, sample)
    assert (played.stop, played.answer, played.zooms) == (StopReason.ANSWERED, "7", 1)
    assert (played.policy, played.strategy, played.protocol_version) == ("scripted", "spot", spot.VERSION)
    assert played.settings["system"] == "padded" and played.settings["max_zooms"] == 1
    # 800 x 600 lies 100 below the top of its padded square, up to rounding to the grid; a quarter is added at each edge.
    assert tuple(played.views[1].region) == pytest.approx((200 - 50, 200 - 25, 400 + 50, 300 + 25), abs=7)
    assert heard[0] == spot.opening(sample)
    assert heard[1] == [*heard[0], {"role": "assistant", "content": [{"type": "text", "text": REGION}]}, heard[1][-1]]
    image, text = heard[1][-1]["content"]
    assert image == {"type": "image", "view": 1} and text["text"].endswith("What is there?")
    assert scoring.accuracy(played) and not scoring.malformed(played)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("I cannot tell.", "no region"),
        ("[0.1, 0.0, 0.9, 0.1]", "outside the image"),
        ("[0.5, 0.5, 0.5, 0.9]", "no area"),
    ],
)
def test_without_a_region_the_overview_must_do_and_it_is_counted(sample: Sample, first: str, said: str) -> None:
    heard: list[Sequence[Message]] = []

    def script(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return first if len(messages) == 1 else "7"

    played = play(script, sample)
    assert (played.stop, played.answer, played.zooms) == (StopReason.ANSWERED, "7", 0)
    assert said in str(played.turns[0].observations[0].error)
    assert scoring.malformed(played)
    assert [part["type"] for part in heard[1][-1]["content"]] == ["text"]


@pytest.mark.parametrize(
    ("second", "stop"),
    [(" \n", StopReason.MALFORMED), (Completion("7 and", truncated=True), StopReason.TRUNCATED)],
)
def test_runs_without_an_answer(sample: Sample, second: object, stop: StopReason) -> None:
    played = play([REGION, second], sample)
    assert (played.stop, played.answer, len(played.turns)) == (stop, None, 2)


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    played = play([REGION, "7"], Sample("gone", str(tmp_path / "gone.png"), "?"))
    assert (played.stop, played.turns) == (StopReason.ERROR, ()) and "no such file" in str(played.error)


def test_a_system_message_only_where_one_is_given(sample: Sample) -> None:
    played = play([REGION, "7"], sample, prompt="Be short.")
    system, user = messages_of(played)[:2]
    assert (system["role"], system["content"][0]["text"], user["role"]) == ("system", "Be short.", "user")
    assert [message["role"] for message in messages_of(play([REGION, "7"], sample))] == ["user", "assistant"] * 2


# --- training


def test_the_rows_of_training_are_the_conversation_as_it_was_held(sample: Sample) -> None:
    from sft.dataset import TrajectoryRows
    from sft.frame import Frame

    heard: list[Sequence[Message]] = []

    def script(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return REGION if len(messages) == 1 else "7"

    played = play(script, sample)
    limits = settings_of(played).limits
    rows = TrajectoryRows([played], Frame(QWEN2_5_VL, 28, limits.min_pixels, limits.max_pixels))
    outline, row = rows.outline(0), rows.row(0)
    assert outline.messages == row["messages"]
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2
    texts = [message["content"][-1]["text"] for message in row["messages"]]
    assert texts == [*(message["content"][-1]["text"] for message in heard[1]), "7"]
    assert [image.size for image in row["images"]] == [
        (s.width, s.height) for s in (v.shown_size for v in played.views)
    ]


@pytest.mark.parametrize("family", [QWEN2_5_VL, QWEN3_VL], ids=lambda family: family.name)
def test_another_grid_names_the_same_region_in_fractions_of_its_own_overview(sample: Sample, family: Family) -> None:
    from sft.frame import Frame, reframe

    played = play([REGION, "7"], sample)
    made = reframe(played, Frame(family, 32, 32 * 32, 400 * 300), ZoomEnvironment())
    assert all(view.shown_size.width % 32 == view.shown_size.height % 32 == 0 for view in made.views)
    assert made.views[0].shown_size != played.views[0].shown_size
    before, after = played.views[1].region, made.views[1].region
    assert tuple(after) == pytest.approx(tuple(before), abs=2)
    assert made.turns[0].text == spot.write_region(Box(*map(float, made.turns[0].actions[0].box)))  # type: ignore[union-attr]
    assert (made.turns[1].text, made.answer, made.protocol_version) == ("7", "7", spot.VERSION)
    assert messages_of(made)[1]["content"][0]["text"] == made.turns[0].text


def test_sharegpt_without_a_system_message(sample: Sample, tmp_path: Path) -> None:
    assert to_sharegpt([play([REGION, "7"], sample)], tmp_path) == (1, [])
    (row,) = json.loads((tmp_path / "sharegpt.json").read_text())
    assert row["system"] == ""
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt", "human", "gpt"]
    assert [turn["value"] for turn in row["conversations"]][1::2] == [REGION, "7"]


def test_nanos_spot_rows_teach_both_turns_and_leave_the_others_as_they_are() -> None:
    from sft.nano.curriculum import Plan, nano_environment, row

    environment, kinds, left_open = nano_environment(), set(), 0
    for number in range(6):
        key = f"train:3:{number}"
        plain, mixed = (row(Plan(spot=share), environment, key)["messages"] for share in (0.0, 0.5))
        kinds.add(plain == mixed)
        made = row(Plan(spot=1.0), environment, key)
        if plain != mixed:
            assert mixed == made["messages"]
        texts = [message["content"][-1]["text"] for message in made["messages"]]
        turns = list(zip(texts[::2], texts[1::2], strict=True))
        seen = overview_of(Size(*made["images"][0].size))
        pointing = [asked for asked, reply in turns if isinstance(spot.read_region(reply, seen), Zoom)]
        answering = [asked for asked, reply in turns if not isinstance(spot.read_region(reply, seen), Zoom)]
        assert len(made["images"]) == 1 + len(answering)
        assert all(asked.startswith("Which region") for asked in pointing)
        assert all(asked.startswith("Answer") for asked in answering)
        left_open += len(pointing) - len(answering)
    assert kinds == {True, False}
    assert left_open > 0, "what no crop shows is not answered"


def test_a_detail_is_shown_where_a_view_has_enough_pixels_for_it() -> None:
    look = {"name": "a", "boxes": [[0, 0, 90, 90], [40, 40, 60, 60]], "detail": 8}
    sample = Sample("x", "", "?", metadata={"looks": [look]})
    overview = overview_of(Size(112, 112))
    crop = View(Size(112, 112), Box(30, 30, 86, 86), Size(112, 112))
    beside = View(Size(112, 112), Box(50, 50, 106, 106), Size(112, 112))
    assert not oracle.shown(sample, [overview]) and not oracle.shown(sample, [overview, beside])
    assert oracle.shown(sample, [overview, crop])


def test_the_true_region_of_two_things_is_around_the_innermost_boxes_that_can_be_pointed_at() -> None:
    looks = [
        {"name": "a", "boxes": [[0, 0, 90, 90], [10, 20, 30, 40]], "detail": 3},
        {"name": "b", "boxes": [[50, 5, 70, 25]], "detail": 3},
    ]
    sample = Sample("x", "", "?", metadata={"looks": looks})
    assert oracle.region(sample, overview_of(Size(112, 112))) == Box(10, 5, 70, 40)
    half = View(Size(112, 112), Box(0, 0, 112, 112), Size(56, 56))  # a sign of 10 shown pixels is too small
    assert oracle.region(sample, half) == Box(0, 0, 90, 90)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 7\n", "7"),
        ("<think>It is red.</think><answer>red</answer>", "red"),
        ("<think>It is red.</think>\nred", "red"),
        ("<answer>red</answer>", "red"),
        ("<think>It is red", None),
        ("<think>Hm.</think><answer></answer>", None),
        ("", None),
    ],
)
def test_the_answer_stands_bare_or_behind_a_thought(text: str, answer: str | None) -> None:
    found = spot.read_answer(text)
    assert (found.text if isinstance(found, Answer) else None) == answer


def test_a_call_in_the_second_reply_is_no_answer() -> None:
    assert isinstance(spot.read_answer(protocol.write_zoom("Closer.", Box(1, 2, 30, 40))), Malformed)


# --- maps


def highlight(cells: Sequence[Sequence[float]], size: Size) -> Highlight:
    return Highlight("x", overview_of(size), tuple(map(tuple, cells)))


def test_the_region_is_what_hangs_together_with_the_peak() -> None:
    found = highlight([[0, 0, 0, 9], [4, 0, 0, 0], [0, 10, 6, 0], [0, 0, 2, 0]], Size(800, 400))
    assert found.peak == Box(200, 200, 400, 300)
    assert found.region == Box(0, 100, 600, 300)


@given(SIZES, st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_region_lies_in_the_image_around_its_peak(size: Size, rows: int, columns: int, data: st.DataObject) -> None:
    cell = st.floats(0, 1)
    cells = data.draw(st.lists(st.lists(cell, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    found = highlight(cells, size)
    whole = Box(0, 0, size.width, size.height)
    assert found.region.coverage(found.peak) == pytest.approx(1)
    assert whole.coverage(found.region) == pytest.approx(1)


def test_the_pointing_game() -> None:
    right = highlight([[1, 0], [0, 0]], Size(400, 200))
    figures = pointing([(right, [Box(0, 0, 200, 100)]), (right, [Box(200, 100, 400, 200)]), (right, [])])
    assert figures == {
        "n": 2,
        "hit": 0.5,
        "overlap": 0.5,
        "centre_hit": 1.0,
        "centre_overlap": pytest.approx(1 / 7, abs=1e-4),
    }
    assert pointing([])["hit"] is None


def test_the_picture_of_a_map_is_red_where_it_is_high(sample: Sample) -> None:
    found = highlight([[0, 0, 0], [0, 0, 0], [0, 0, 1]], Size(800, 600))
    whole = open_source(sample.image).show(replace(found.overview, shown_size=Size(400, 300)))
    picture = draw(found, sample, whole)
    assert picture.size == (400, 300)
    assert picture.getpixel((60, 50)) == whole.getpixel((60, 50))
    (red, _, blue), (was, _, _) = picture.getpixel((350, 260)), whole.getpixel((350, 260))  # type: ignore[misc]
    assert red > was + 60 and red > blue


# --- commands


@pytest.fixture
def data(sample: Sample, tmp_path: Path) -> Path:
    two = [replace(sample, id="a", boxes=(Box(10, 10, 90, 90),)), replace(sample, id="b")]
    (tmp_path / "samples.jsonl").write_text("".join(to_json(one) + "\n" for one in two))
    return tmp_path


def test_eval_compare_and_view_take_such_runs(checkpoint: Callable[[str], Path], data: Path) -> None:
    model = ["--model", str(checkpoint("qwen2_5_vl")), "--max-tokens", "4"]
    for strategy in ("spot", "direct"):
        assert main(["eval", "--data", str(data), "-o", str(data / strategy), "--strategy", strategy, *model]) == 0
    summary = json.loads((data / "spot" / "summary.json").read_text())
    assert summary["protocol_version"] == spot.VERSION and summary["malformed_rate"] == 1.0
    assert main(["compare", str(data / "spot"), str(data / "direct"), "-o", str(data / "both")]) == 0
    played = play([REGION, "7"], next(read_jsonl(data / "samples.jsonl", Sample)))
    (data / "one.jsonl").write_text(to_json(played) + "\n")
    assert main(["view", str(data / "one.jsonl"), "-o", str(data / "page.html")]) == 0
    assert "0.25, 0.375, 0.5, 0.5" in (data / "page.html").read_text()


@pytest.mark.slow
def test_spots_annotates_draws_and_goes_on(
    checkpoint: Callable[[str], Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data / "out"
    command = ["spots", "--data", str(data), "-o", str(out), "--model", str(checkpoint("qwen2_5_vl")), "--pictures"]
    assert main([*command, "--samples", "1"]) == 0
    first = (out / "trajectories.jsonl").read_text()
    assert main(command) == 0
    assert (out / "trajectories.jsonl").read_text().startswith(first)
    played = list(read_jsonl(out / "trajectories.jsonl", Trajectory))
    assert [one.sample.id for one in played] == ["a", "b"]
    assert all((one.stop, one.answer, one.zooms) == (StopReason.ANSWERED, "7", 1) for one in played)
    boxed = list(read_jsonl(out / "samples.jsonl", Sample))
    assert all(one.views[1].region.coverage(*two.boxes) > 0.99 for one, two in zip(played, boxed, strict=True))
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["a.png", "b.png"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["annotated"] == 2 and summary["pointing"]["all"]["n"] == 1
    assert "2 of 2 samples have a region" in capsys.readouterr().out


@pytest.mark.slow
def test_spots_makes_a_map_again_that_cannot_be_read(checkpoint: Callable[[str], Path], data: Path) -> None:
    out = data / "out"
    command = ["spots", "--data", str(data), "-o", str(out), "--model", str(checkpoint("qwen2_5_vl"))]
    assert main(command) == 0
    made = (out / "samples.jsonl").read_text()
    first, second = (out / "highlights.jsonl").read_text().splitlines(keepends=True)
    (out / "highlights.jsonl").write_text(first[:50] + "\n" + second)
    assert main(command) == 0
    assert (out / "samples.jsonl").read_text() == made
    assert [one.sample.id for one in read_jsonl(out / "trajectories.jsonl", Trajectory)] == ["a", "b"]


def test_spots_goes_on_after_a_sample_that_it_cannot_read(
    checkpoint: Callable[[str], Path], data: Path, sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "torn.png").write_bytes(b"no picture")
    bad = [replace(sample, id=name, image="torn.png") for name in ("a", "b")]
    (data / "samples.jsonl").write_text("".join(to_json(one) + "\n" for one in bad))
    assert main(["spots", "--data", str(data), "-o", str(data / "out"), "--model", str(checkpoint("qwen2_5_vl"))]) == 1
    torn = list(read_jsonl(data / "out" / "trajectories.jsonl", Trajectory))
    assert [one.stop for one in torn] == [StopReason.ERROR] * 2 and "no image format" in str(torn[0].error)
    shown = capsys.readouterr()
    assert "0 of 2 samples have a region" in shown.out and "2 of 2 failed (2 by image)" in shown.err


def test_spots_needs_answers_and_a_model_of_its_own(
    sample: Sample, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "samples.jsonl").write_text(to_json(replace(sample, id="a", answers=())) + "\n")
    assert main(["spots", "--data", str(data), "-o", str(data / "out")]) == 2
    assert "sample a has no known answer" in capsys.readouterr().err
    assert main(["spots", "--data", str(data), "-o", str(data)]) == 2
    assert "did not write" in capsys.readouterr().err
    assert not (data / "out").exists()
