"""Questions about several images: which images belong to a question, what stands for their marks, who leaves them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cof_agent.data.benchmarks import load as load_benchmark
from cof_agent.data.samples import read, read_samples
from cof_agent.data.unusable import SEVERAL_IMAGES
from cof_agent.errors import InputError
from cof_agent.trajectory import Sample, to_json
from tests.data import layouts
from tests.pairs import pair


@pytest.fixture
def here(tmp_path: Path) -> Path:
    layouts.pictures(tmp_path)
    return tmp_path


def one(here: Path, row: dict[str, Any], spec: str = "rows.jsonl") -> Sample:
    layouts.as_lines(here / spec, [{"answer": "yes"} | row])
    (sample,) = read_samples(here / spec, keep_images=here / "kept")
    return sample


def names(sample: Sample) -> list[str]:
    return [Path(image).name for image in sample.images]


def test_blink_has_a_column_for_each_image(here: Path) -> None:
    held = {f"image_{number + 1}": layouts.held(number) for number in range(3)}
    row = {
        "idx": "val_Jigsaw_1",
        "question": "Which image is the missing part?",
        "sub_task": "Jigsaw",
        "choices": ["the second image", "the third image"],
        "answer": "(B)",
        "prompt": "Which image is the missing part?\nSelect from these.\n(A) the second image\n(B) the third image",
    }
    spec = layouts.as_parquet(here / "val.parquet", [row | held | {"image_4": None}])
    (sample,) = read_samples(spec, keep_images=here / "kept")
    assert len(sample.images) == 3 == len(set(sample.images)) and sample.image.startswith(str(here / "kept"))
    assert (sample.id, sample.choices, sample.answers) == (
        "val_Jigsaw_1",
        ("the second image", "the third image"),
        ("the third image",),
    )


def test_verl_lists_its_images_and_marks_them(here: Path) -> None:
    prompt = [{"role": "user", "content": "<image>\n<image>\nWhich kite is larger?"}]
    found = one(
        here, {"prompt": prompt, "images": ["0.png", {"path": "1.png"}], "reward_model": {"ground_truth": "left"}}
    )
    assert names(found) == ["0.png", "1.png"] and found.question == "Which kite is larger?"


def test_vlmevalkit_lists_them_in_a_cell(here: Path) -> None:
    cell = [layouts.text_of(number) for number in (0, 1)]
    rows = [{"index": 1, "image": cell, "question": "Which?", "A": "left", "B": "right", "answer": "A"}]
    rows.append(rows[0] | {"index": 2, "image": "1", "question": "And now?"})
    spec = layouts.as_table(here / "blink.tsv", [{**row, "image": str(row["image"])} for row in rows], "\t")
    first, second = read_samples(spec, keep_images=here / "kept")
    assert len(first.images) == 2 and second.images == first.images and first.answers == ("left",)


def test_words_stand_for_marks_inside_a_text(here: Path) -> None:
    images = {"images": ["0.png", "1.png"]}
    asked = {
        "<image> <image> Which?": "Which?",
        "Which?<image><image>": "Which?",
        "Is <image> older than <image>?": "Is picture 1 older than picture 2?",
        "Image 1:<image>\nImage 2:<image>\nWhich?": "Image 1: picture 1\nImage 2: picture 2\nWhich?",
        "<image 2> or <image 1>, and why <image 2>?": "picture 2 or picture 1, and why picture 2?",
        "Which?": "Which?",
    }
    for text, question in asked.items():
        found = one(here, images | {"question": text})
        assert (names(found), found.question) == (["0.png", "1.png"], question)
    found = one(
        here, images | {"question": "Which <image> <image>?", "choices": ["<image 1>", "<image 2>"], "answer": "B"}
    )
    assert found.choices == ("picture 1", "picture 2") and found.answers == ("picture 2",)


def test_crops_of_a_search_are_no_images_of_the_question(here: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\n<image>\nWhich?"},
        {"from": "gpt", "value": "<think>a</think><tool_call>{}</tool_call>"},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "<think>b</think><answer>left</answer>"},
    ]
    found = one(here, {"conversations": turns, "images": ["0.png", "1.png", "2.png"]})
    assert names(found) == ["0.png", "1.png"] and found.question == "Which?"


def test_boxes_that_may_lie_in_any_of_them_are_passed_over(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = one(here, {"images": ["0.png", "1.png"], "question": "Which?", "bbox": [1, 2, 3, 4]})
    assert found.boxes == ()
    assert "the boxes of 1 samples are passed over: in which of several images they lie is not said" in caplog.text


def test_our_own_layout_lists_them(here: Path) -> None:
    found = one(here, {"images": ["0.png", "1.png"], "question": "Which?", "boxes": [[1, 2, 3, 4]]}, "samples.jsonl")
    assert names(found) == ["0.png", "1.png"] and len(found.boxes) == 1
    (here / "samples.jsonl").write_text(to_json(found) + "\n")
    assert read_samples(here / "samples.jsonl") == [found]
    for wrong, reason in (({"image": "0.png"}, "images cannot be read"), ({"images": ["0.png", 3]}, "no image")):
        lines = [{"question": "?", "image": "0.png"}, {"images": ["0.png", "1.png"], "question": "?"} | wrong]
        layouts.as_lines(here / "samples.jsonl", lines)
        assert read(here / "samples.jsonl").tally.reasons == {reason: 1}


@pytest.mark.parametrize("name", ["rows.jsonl", "samples.jsonl"])
def test_what_looks_at_one_image_leaves_them_out_and_counts(here: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [{"image": "0.png", "question": "Which?", "answer": "a"}]
    rows.append({"images": ["0.png", "1.png"], "question": "Which?", "answer": "a"})
    spec = layouts.as_lines(here / name, rows)
    kept = read_samples(spec, one_image=True, left_out=here / "left_out.jsonl")
    assert [len(sample.images) for sample in kept] == [1]
    (left,) = map(json.loads, (here / "left_out.jsonl").read_text().splitlines())
    assert (left["reason"], left["row"], left["detail"]) == (SEVERAL_IMAGES, 2, "2")
    layouts.as_lines(here / name, rows[1:])
    with pytest.raises(InputError, match="1 of 1 rows are left out .*only the strategies focus and direct"):
        read_samples(spec, one_image=True)


def test_a_trajectory_of_ours_asks_again(here: Path) -> None:
    sample = pair(here)
    found = one(here, {"sample": json.loads(to_json(sample)), "turns": []})
    assert found.images == sample.images and found.question == sample.question


def test_the_benchmark_blink_asks_about_all_of_them(here: Path) -> None:
    row = {
        "idx": "val_1",
        "sub_task": "Jigsaw",
        "question": "Which fits?",
        "choices": ["the second image", "the third image"],
    }
    held = {f"image_{number + 1}": layouts.held(number) for number in range(3)} | {"image_4": None}
    (here / "Jigsaw").mkdir()
    layouts.as_parquet(here / "Jigsaw" / "val-00000-of-00001.parquet", [row | held | {"answer": "(A)"}])
    (found,) = load_benchmark("blink", here, limit=1)
    assert len(set(found.images)) == 3 and found.answers == ("the second image",)
