"""Whole sets as samples: our own layout, what is left out and why, what a user can say, and limits."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.data.samples import read, read_samples, told
from cof_agent.data.unusable import write_left_out
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample, to_json
from tests.data import layouts

pytest.importorskip("pyarrow")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the pictures `a.png` and `b.png` of 60 x 40."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), "red").save(tmp_path / name)
    return tmp_path


def rows(folder: Path, *found: Any) -> Path:
    return layouts.as_json(folder / "rows.json", list(found))


def row(**changed: Any) -> dict[str, Any]:
    return {"image": "a.png", "question": "Which?", "answer": "left"} | changed


def test_our_own_comes_back_as_it_is(here: Path) -> None:
    sample = Sample(
        "x",
        "a.png",
        "<image> is a word here.\nA. and B. too. Answer briefly.",
        ("yes", " No."),
        ("no", "yes"),
        (Box(1, 2, 3, 4.5),),
        {"looks": [1], "category": "kites"},
    )
    (here / "samples.jsonl").write_text(to_json(sample) + "\n")
    for spec in (here, here / "samples.jsonl"):
        (found,) = read_samples(spec)
        assert found.image == str(here / "a.png")
        assert to_json(found).replace(str(here / "a.png"), "a.png") == to_json(sample)


def test_our_own_under_another_name_keeps_what_it_says(here: Path) -> None:
    sample = Sample("x", "a.png", "How much?", ("12",), metadata={"scoring": "relaxed", "question": "q", "looks": [1]})
    (here / "part.jsonl").write_text(to_json(sample) + "\n")
    for spec in (here / "part.jsonl", here):
        (found,) = read_samples(spec)
        assert (found.id, found.metadata) == ("x", sample.metadata)


def test_several_right_choices_come_back_as_they_are(here: Path) -> None:
    layouts.as_lines(
        here / "published.jsonl",
        [
            {"image": "a.png", "question": f"Which? {n}", "choices": ["red", "green", "blue"], "answer": a}
            for n, a in enumerate("ABC")
        ]
        + [{"image": "a.png", "question": "Which two?", "choices": ["red", "green", "blue"], "answer": "A,C"}],
    )
    samples = read_samples(here / "published.jsonl")
    assert samples[-1].answers == ("red; blue",)
    (here / "samples.jsonl").write_text("".join(f"{to_json(one)}\n" for one in samples))
    assert [replace(one, id="") for one in read_samples(here / "samples.jsonl")] == [
        replace(one, id="") for one in samples
    ]


def test_our_own_written_by_hand(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        {"image": "a.png", "question": "One\u2028two?", "answer": "left", "boxes": [[10, 5, 30, 20]]},
        {"image": "a.png", "question": "Which?", "answers": "B", "choices": ["red", "blue"], "colour": 1},
        {
            "id": 7,
            "image": "a.png",
            "question": "How many?",
            "answer": [3, "three"],
            "boxes": [{"x": 8, "y": 9, "w": 3, "h": 4}],
        },
        {"image": "a.png", "question": "Is it?", "answer": True, "colour": 2},
    ]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (here / "samples.jsonl").write_text(content, "utf-8-sig")
    found = read_samples(here)
    assert [sample.id for sample in found] == ["0000001", "0000002", "7", "0000004"]
    assert [sample.answers for sample in found] == [("left",), ("blue",), ("3", "three"), ("yes",)]
    assert (
        found[0].question == "One\u2028two?"
        and found[0].boxes == (Box(10, 5, 30, 20),)
        and found[2].boxes == (Box(8, 9, 11, 13),)
    )
    assert [record.message for record in caplog.records] == [f"{here}: keys that mean nothing here: colour"]


def test_a_box_of_our_own_whose_corners_are_the_other_way_round_may_be_a_width_and_a_height(here: Path) -> None:
    layouts.as_lines(here / "samples.jsonl", [row(boxes=[[100, 100, 50, 40]])])
    with pytest.raises(InputError, match=r"\[100.0, 100.0, 50.0, 40.0\] has its corners the other way round"):
        read_samples(here)


def test_boxes_of_our_own_are_in_pixels(here: Path) -> None:
    layouts.as_lines(here / "samples.jsonl", [row(boxes=[[0.1, 0.2, 0.3, 0.4]])])
    with pytest.raises(InputError, match=r"are all within 0\.\.1; our own layout has them in source pixels"):
        read_samples(here)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"question": "A?", "answer": "a"}, "no image"),
        (row(image=None), "no image"),
        (row(question=" "), "no question"),
        (row(question="<image>"), "no question"),
        (row(answer=None), "no answer"),
        (row(answer=float("nan")), "no answer"),
        (row(image="lost.png"), "image file not found"),
        (row(image="https://example.org/a.png"), "image by URL"),
        (row(image="data:image/png;base64,AAAA"), "not an image"),
        (row(image=["a.png", "lost.png"]), "image file not found"),
        (
            {"images": ["a.png", "b.png"], "problem": "<image>Which?", "answer": "left"},
            "more or fewer images than marks for them",
        ),
        (
            row(image=["a.png", "b.png"], question="<region1>?", regions=[[1, 2, 3, 4]]),
            "question and regions do not fit",
        ),
        (
            row(image=["a.png", "b.png"], question="Give the bounding box.", answer="[1, 2, 3, 4]"),
            "answer cannot be read",
        ),
        (row(image="a.mp4"), "video"),
        (row(video="a.mp4"), "video"),
        (row(image=["a.png", "b.png"], is_video=True), "video"),
        (row(choices=["red", "blue"]), "answer is none of the choices"),
        (row(choices=["red", "blue"], answer="A. blue"), "answer names two different choices"),
        (row(question="Which?\nA. red\nB. blue", answer="E"), "answer is none of the choices"),
        (row(choices="red"), "choices cannot be read"),
        (row(choices=5), "choices cannot be read"),
        (row(options=True), "choices cannot be read"),
        (row(extra_info={"options": 2.5}), "choices cannot be read"),
        (row(bbox=[1, 2, 3]), "box is not four numbers"),
        (row(question="<region1>?"), "question and regions do not fit"),
        ("text", "not an object with named fields"),
        (
            {
                "image": "a.png",
                "messages": [{"role": "user", "content": "Which?"}, {"role": "narrator", "content": "x"}],
                "answer": "x",
            },
            "conversation cannot be read",
        ),
        (
            {
                "image": "a.png",
                "messages": [
                    {"role": "user", "content": "Which?"},
                    {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
                ],
            },
            "conversation without an answer",
        ),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted(here: Path, bad: Any, reason: str) -> None:
    spec = rows(here, row(), bad, row())
    found = read(spec, keep_images=here / "kept")
    assert [sample.question for sample in found.samples] == ["Which?", "Which?"]
    assert found.tally.rows == 3 and found.tally.reasons == {reason: 1}
    (one,) = found.tally.left_out
    assert (one.row, one.file) == (2, str(spec))
    with pytest.raises(InputError, match=rf"1 of 3 rows are left out \(1 {reason}\); the first is row 2"):
        read(spec, strict=True, keep_images=here / "kept")


def test_the_rows_left_out_are_listed(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = rows(here, row(), row(image="lost.png"), row(answer=""))
    read_samples(spec, left_out=here / "out" / "left_out.jsonl")
    lines = [json.loads(line) for line in (here / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["row"], line["detail"]) for line in lines] == [
        ("image file not found", 2, "lost.png"),
        ("no answer", 3, ""),
    ]
    assert "2 of 3 rows are left out (1 image file not found; 1 no answer)" in caplog.text


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([row(image="lost.png")], r"image file not found \(lost\.png\); say with --images DIR"),
        ([row(image="https://example.org/a.png")], "nothing is downloaded unless you add --download"),
        (
            [{"image": "a.png", "caption": "x"}],
            r"no question \(image, caption\); name its column, as in --column question=NAME",
        ),
        ([], "holds no samples"),
    ],
)
def test_a_set_of_which_nothing_can_be_used(here: Path, found: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(rows(here, *found))


def test_a_set_without_any_answer_is_kept(here: Path) -> None:
    found = read(rows(here, {"image": "a.png", "question": "Which?"}, row(answer=None)))
    assert [sample.answers for sample in found.samples] == [(), ()]


def test_columns_that_a_user_names(here: Path) -> None:
    made = {
        "meta": {"asked": "Which?", "list": ["x", "a.png"]},
        "truth": 1,
        "kinds": ["left", "right"],
        "question": "no",
    }
    columns = {"question": "meta.asked", "image": "meta.list.1", "answer": "truth", "choices": "kinds"}
    (found,) = read_samples(rows(here, made), columns=columns)
    assert (found.question, found.answers, found.choices) == ("Which?", ("right",), ("left", "right"))
    with pytest.raises(InputError, match="no column 'colour' to map; the names are id, image, question"):
        read(here / "rows.json", columns={"colour": "x"})


def test_llava_has_a_sample_for_each_question(here: Path) -> None:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat"), ("human", "What colour?"), ("gpt", "Grey")]
    made = {"id": "c", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in turns]}
    found = read_samples(rows(here, made, {**made, "id": "d"}))
    assert [(s.id, s.question, s.answers) for s in found[:2]] == [
        ("c-0", "What is it?", ("A cat",)),
        ("c-1", "What colour?", ("Grey",)),
    ]
    assert [s.id for s in found[2:]] == ["d-0", "d-1"]


@pytest.mark.parametrize(
    "roles",
    [("system", "human", "gpt"), ("gpt", "human", "gpt"), ("System", "User", "Assistant"), ("system", "user", "model")],
)
def test_turns_are_told_apart_by_their_roles(here: Path, roles: tuple[str, ...]) -> None:
    turns = [{"from": role, "value": text} for role, text in zip(roles, ("Hi", "<image>\nWhich?", "red"), strict=True)]
    (found,) = read_samples(rows(here, {"image": "a.png", "conversations": turns}))
    assert (found.question, found.answers) == ("Which?", ("red",))


def test_a_box_as_the_answer_is_scored_by_its_overlap(here: Path) -> None:
    asked = "Please provide the bounding box coordinate of the red kite."
    (one, two) = read_samples(
        rows(here, row(question=asked, answer="[6, 4, 30, 20]"), row(question=asked, answer=[6, 4, 30, 21]))
    )
    assert one.metadata["scoring"] == "iou" and one.boxes == (Box(6, 4, 30, 20),) and one.answers == ("[6, 4, 30, 20]",)
    assert two.boxes == (Box(6, 4, 30, 21),)


def test_expressions_of_a_marked_region_become_questions_for_its_box(here: Path) -> None:
    """lmms-lab's RefCOCO: the question is the same everywhere, and the image shows no mark."""
    made = row(
        question="Describe the marked area.", answer=["the kite", "kite left"], bbox=[6, 4, 30, 20], question_id="k"
    )
    found = read_samples(rows(here, made))
    assert [sample.question for sample in found] == [
        "Give the bounding box of this: the kite",
        "Give the bounding box of this: kite left",
    ]
    assert {sample.boxes for sample in found} == {(Box(6, 4, 30, 20),)}


def test_several_right_choices(here: Path) -> None:
    (found,) = read_samples(rows(here, row(choices=["red", "blue", "green"], answer="A, C")))
    assert found.answers == ("red; green",)
    assert found.metadata["scoring"] == "several" and found.metadata["right"] == ["red", "green"]


def test_the_answers_of_ten_people(here: Path) -> None:
    people = [{"answer": "red"}] * 7 + [{"answer": "pink"}] * 3
    (found,) = read_samples(rows(here, {"image": "a.png", "question": "Which?", "answers": people}))
    assert found.metadata["scoring"] == "vqa" and len(found.answers) == 10


def test_what_a_set_means_is_seen_from_more_rows_than_are_wanted(here: Path) -> None:
    boxes = [[30, 20, 10, 5], [40, 10, 12, 6], [20, 30, 8, 4], [50, 20, 5, 9], [10, 35, 9, 4]]
    spec = rows(here, *(row(bbox=box) for box in boxes), row(image="lost.png"))
    (first,) = read(spec, limit=1).samples
    assert first.boxes == (Box(30, 20, 40, 25),)
    found = read(spec, limit=1)
    assert found.tally.rows == 1 and not found.tally.left_out and "boxes are read as pixels-xywh" in found.tally.notes


def test_boxes_that_cannot_be_told(here: Path) -> None:
    spec = rows(here, row(bbox=[0.1, 0.1, 0.2, 0.2]), row(bbox=[20, 15, 2, 2]))
    with pytest.raises(InputError, match=r"are mixed.*--boxes, one of pixels-xyxy"):
        read(spec)
    assert len(read(spec, boxes="pixels-xywh").samples) == 2


def test_images_of_rows_behind_the_last_that_is_wanted_are_not_written(tmp_path: Path) -> None:
    spec = layouts.easyr1(tmp_path)
    (found,) = read_samples(spec, limit=1, keep_images=tmp_path / "kept")
    assert [str(path) for path in (tmp_path / "kept").iterdir()] == [found.image]


def test_an_index_in_place_of_an_image_that_was_there_before(tmp_path: Path) -> None:
    made = layouts.rows(
        lambda n: {"index": n, "image": layouts.text_of(0) if n == 0 else "0", "question": "Which?", "answer": "x"}
    )
    layouts.as_table(tmp_path / "rows.tsv", made, "\t")
    found = read_samples(tmp_path / "rows.tsv", keep_images=tmp_path / "kept")
    assert len({sample.image for sample in found}) == 1 and len(found) == 3


@pytest.mark.slow
def test_a_huge_image_in_a_row_is_only_written(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    spec = layouts.as_parquet(
        tmp_path / "rows.parquet", [{"image": buffer.getvalue(), "question": "Which?", "answer": "x"}]
    )
    (found,) = read_samples(spec, keep_images=tmp_path / "kept")
    assert Path(found.image).read_bytes() == buffer.getvalue()


def test_a_set_with_images_needs_a_folder_for_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this set holds images itself; say where they may be written"):
        read_samples(layouts.easyr1(tmp_path))


def test_a_set_that_is_neither_here_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the hub is waited for
    with pytest.raises(InputError, match="cannot load the dataset some/where, which is no file or folder here: "):
        read("some/where")


def test_notes_are_warnings(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = rows(here, row(choices=["w", "x", "left"], answer=3), row(choices=["w", "x"], answer=1))
    with caplog.at_level(logging.WARNING):
        (first, second) = read_samples(spec)
    assert (first.answers, second.answers) == (("left",), ("w",))
    assert "answers are read as the number of a choice, counted from 1" in caplog.text


def test_numbers_in_a_list_keep_their_digits(here: Path) -> None:
    answers = ([1234567, 2], [20231115, 3.5], [1999.125, 2], [1234567, 2, 3, 4])
    found = read_samples(
        layouts.as_json(
            here / "rows.json",
            [{"image": "a.png", "question": f"Which numbers? {n}", "answer": one} for n, one in enumerate(answers)],
        )
    )
    assert [one.answers for one in found] == [
        ("1234567, 2",),
        ("20231115, 3.5",),
        ("1999.125, 2",),
        ("1234567, 2, 3, 4",),
    ]


def test_small_floats_of_parquet_are_the_numbers_that_were_meant(here: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {"image": ["a.png"] * 2, "question": ["How much?", "How many?"]}
    table = pyarrow.table({**columns, "answer": pyarrow.array([0.1, 12.35], pyarrow.float32())})
    parquet.write_table(table, here / "rows.parquet")
    assert [one.answers for one in read_samples(here / "rows.parquet")] == [("0.1",), ("12.35",)]


def test_an_image_with_the_name_of_a_table_is_not_that_of_its_rows(here: Path) -> None:
    Image.new("RGB", (60, 40), "blue").save(here / "train.png")
    made = [
        {"image_id": 42, "question": "What?", "answer": "x"},
        {"file_name": "b.png", "question": "Which?", "answer": "y"},
    ]
    Image.new("RGB", (60, 40)).save(here / "000000000042.jpg")
    found = read_samples(layouts.as_json(here / "train.json", made))
    assert [Path(one.image).name for one in found] == ["000000000042.jpg", "b.png"]


def test_an_object_by_names_of_images(here: Path) -> None:
    made = {f"{name}.png": {"question": f"What is {name}?", "answer": name} for name in "ab"}
    found = read_samples(layouts.as_json(here / "rows.json", made))
    assert [(Path(one.image).name, one.answers) for one in found] == [("a.png", ("a",)), ("b.png", ("b",))]


def test_a_table_that_names_its_separator(here: Path) -> None:
    (here / "rows.csv").write_text("sep=;\nimage;question;answer\na.png;Which, then?;x,y\n")
    (found,) = read_samples(here / "rows.csv")
    assert (found.question, found.answers) == ("Which, then?", ("x,y",))


def test_questions_that_are_left_out_are_no_rows(here: Path) -> None:
    turns = [{"from": who, "value": f"{who} {n}"} for n in range(3) for who in ("human", "gpt")]
    talk = {"image": "none.png", "conversations": turns}
    found = read(layouts.as_json(here / "rows.json", [talk, row()]))
    assert "3 questions in 1 of 2 rows are left out" in told(found)


def test_a_reply_about_code_is_no_call(here: Path) -> None:
    turns = [{"from": "human", "value": "<image>Which tag?"}, {"from": "gpt", "value": "It is <code>div</code>"}]
    (found,) = read_samples(layouts.as_json(here / "rows.json", [{"image": "a.png", "conversations": turns}]))
    assert found.answers == ("It is <code>div</code>",)


def test_an_archive_is_to_be_unpacked(here: Path) -> None:
    with tarfile.open(here / "shard.tar", "w") as archive:
        archive.add(here / "a.png", "a.png")
    with pytest.raises(InputError, match="is an archive; unpack it"):
        read(here / "shard.tar")


def test_images_of_one_name_are_told_by_their_folders(here: Path) -> None:
    for name in ("s1", "s2"):
        (here / "deep" / "er" / name).mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(here / "deep" / "er" / name / "rgb.png")
    found = read_samples(rows(here, row(image="s1/rgb.png"), row(image="s2/rgb.png", question="And?")))
    assert [Path(one.image).parent.name for one in found] == ["s1", "s2"]
    unclear = read(rows(here, row(image="rgb.png"), row(question="And?")))
    (lost,) = unclear.tally.left_out
    assert "or there are several" in str(lost.detail)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('"boxes": [[NaN, 1, 2, 3]]', "box is not four numbers"),
        ('"boxes": [[0, 1, 2, Infinity]]', "box is not four numbers"),
        (f'"boxes": [[0, 1, 2, 1{"0" * 400}]]', "box is not four numbers"),
        ('"id": "a\\ud83d"', "text with half a surrogate pair, which is no character"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "samples.jsonl"])
def test_a_value_that_breaks_arithmetic_costs_its_own_row(here: Path, name: str, more: str, reason: str) -> None:
    whole = '{"id": "x", "image": "a.png", "question": "What?", "answers": ["red"]'
    Image.new("RGB", (40, 30)).save(here / "a.png")
    (here / name).write_text(f"{whole}}}\n{whole}, {more}}}\n")
    found = read(here / name, keep_images=here / "kept")
    assert len(found.samples) == 1
    assert [(one.reason, one.row) for one in found.tally.left_out] == [(reason, 2)]
    write_left_out(here / "left_out.jsonl", found.tally.left_out)
    with pytest.raises(InputError, match=f"{reason}.*the first is row 2 of .*{name}"):
        read(here / name, strict=True)


def test_a_count_of_choices_is_no_list_of_them(here: Path) -> None:
    spec = rows(here, row(num_choices=4), row(num_options=2, options=["left", "right"]))
    assert [sample.choices for sample in read(spec).samples] == [(), ("left", "right")]


def test_choices_of_our_own_layout_are_a_list(here: Path) -> None:
    Image.new("RGB", (40, 30)).save(here / "a.png")
    (here / "samples.jsonl").write_text('{"image": "a.png", "question": "What?", "choices": 5}\n')
    with pytest.raises(InputError, match="choices cannot be read"):
        read(here / "samples.jsonl")


def test_ids_are_those_of_the_set_and_different(here: Path) -> None:
    spec = rows(here, row(id="a"), row(id="a-3"), row(id="a"), row(), row(id=0))
    assert [sample.id for sample in read(spec).samples] == ["a", "a-3", "a-3-3", "0000004", "0"]
    layouts.as_lines(here / "samples.jsonl", [row(id="a"), row(id="a")])
    assert [sample.id for sample in read(here).samples] == ["a", "a"]  # a mistake that the commands refuse


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"choices": "red"}, "choices cannot be read"),
        ({"metadata": [1]}, "metadata is no object"),
        ({"metadata": {"scoring": "anlss"}}, "scoring rule cannot be used"),
        ({"metadata": {"scoring": "several"}}, "scoring rule cannot be used"),
    ],
)
def test_our_own_with_a_field_of_another_kind(here: Path, changed: dict[str, Any], reason: str) -> None:
    layouts.as_lines(here / "samples.jsonl", [row(), row(**changed)])
    assert read(here).tally.reasons == {reason: 1}
