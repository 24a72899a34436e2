"""The forms in which questions about images come."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.data.samples import load_table, read_samples
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample, to_json

VISUAL_COT = {
    "id": 7,
    "image": ["cot/gqa/1.jpg", "cot/gqa/1.jpg###[12, 20, 60, 90.5]"],
    "conversations": [
        {
            "from": "human",
            "value": "<image>\nWhat is it? Please provide the bounding box coordinate of the region that can help you "
            "answer the question better.",
        },
        {"from": "gpt", "value": "[0.1, 0.2, 0.5, 0.8]"},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "A lamp"},
    ],
}


def written(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_our_own(tmp_path: Path) -> None:
    sample = Sample("x", "images/a.png", "What?", ("yes",))
    (tmp_path / "samples.jsonl").write_text(to_json(sample) + "\n")
    for spec in (tmp_path, tmp_path / "samples.jsonl"):
        assert read_samples(spec)[0].image == str(tmp_path / "images/a.png")


def test_visual_cot(tmp_path: Path) -> None:
    (found,) = read_samples(written(tmp_path / "viscot.json", [VISUAL_COT]), images="pictures")
    assert found == Sample(
        "7", "pictures/cot/gqa/1.jpg", "What is it?", ("A lamp",), boxes=(Box(12.0, 20.0, 60.0, 90.5),)
    )


def test_visual_cot_metadata(tmp_path: Path) -> None:
    row = {"question": "Which?", "answer": "tv", "image": "1.jpg", "bboxs": [[1, 2, 30, 40]], "dataset": "vsr"}
    path = tmp_path / "vsr_cot_train.jsonl"
    path.write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    first, second = read_samples(path)
    assert first.boxes == (Box(1, 2, 30, 40),) and first.answers == ("tv",) and first.id != second.id
    assert first.metadata == {"dataset": "vsr"}


def test_llava_has_a_sample_for_each_question(tmp_path: Path) -> None:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "A cat"), ("human", "What colour?"), ("gpt", "Grey")]
    row = {"id": "c", "image": "cat.jpg", "conversations": [{"from": who, "value": text} for who, text in turns]}
    found = read_samples(written(tmp_path / "llava.json", [row]))
    assert [(s.id, s.question, s.answers) for s in found] == [
        ("c-0", "What is it?", ("A cat",)),
        ("c-1", "What colour?", ("Grey",)),
    ]
    assert found[0].image == str(tmp_path / "cat.jpg")


def test_other_columns(tmp_path: Path) -> None:
    row = {"q": "Which?", "picture": "a.png", "truth": 1, "options": ["left", "right"]}
    path = written(tmp_path / "other.json", [row])
    (found,) = read_samples(path, columns={"question": "q", "image": "picture", "answer": "truth"})
    assert (found.question, found.answers, found.choices) == ("Which?", ("right",), ("left", "right"))


def test_a_dataset_with_images_inside(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(buffer, "JPEG")
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}] * 2, "query": ["A?", "B?"], "label": ["a", "b"]}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    made.to_parquet(tmp_path / "set" / "train.parquet")
    for spec in (tmp_path / "set" / "train.parquet", tmp_path / "set"):
        found = read_samples(spec, keep_images=tmp_path / "images")
        assert [sample.question for sample in found] == ["A?", "B?"] and found[0].answers == ("a",)
        assert Path(found[0].image).read_bytes() == buffer.getvalue() and found[0].image == found[1].image
    assert len(list((tmp_path / "images").iterdir())) == 1


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"question": "A?", "answer": "a"}], "row 1 has no image"),
        ([{"image": "a.png", "answer": "a"}], "row 1 has no question"),
        ([{"image": "https://example.org/a.png", "question": "A?", "answer": "a"}], "nothing is downloaded"),
        ([{"image": "a.png", "question": "A?", "bboxs": [[1, 2]]}], "four numbers"),
        (["text"], "no object"),
        ([{"image": "a.png", "conversations": "hello"}], "no list of turns"),
        ([], "holds no samples"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, rows: list[object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_samples(written(tmp_path / "bad.json", rows))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        read_samples(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(InputError, match="neither JSON nor JSONL"):
        read_samples(tmp_path / "broken.json")
    with pytest.raises(InputError, match="no column 'colour' to map"):
        read_samples(tmp_path / "broken.json", columns={"colour": "x"})


def test_a_set_that_is_neither_here_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the hub is waited for
    with pytest.raises(InputError, match="cannot load the dataset some/where, which is no file or folder here: "):
        load_table("some/where", "train")


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ('{"boxes": [[NaN, 1, 2, 3]]}', "row 2 has a box that is not four numbers"),
        ('{"boxes": [[0, 1, 2, Infinity]]}', "row 2 has a box that is not four numbers"),
        (f'{{"boxes": [[0, 1, 2, 1{"0" * 400}]]}}', "row 2 has a box that is not four numbers"),
        ('{"id": "a\\ud83d"}', "row 2 holds half a surrogate pair, which is no character: 'a\\ud83d'"),
        ('{"choices": 5}', "row 2 has choices that are no list, but '5'"),
        (f'{{"answer": 1{"0" * 5000}}}', "line 2, is neither JSON nor JSONL: Exceeds the limit"),
        (f'{{"metadata": {"[" * 100_000}}}', "line 2, is nested too deeply to be read"),
        ("{", "line 2, is neither JSON nor JSONL"),
    ],
)
def test_a_row_that_no_arithmetic_takes_is_one_sentence(tmp_path: Path, bad: str, sentence: str) -> None:
    row = '{"image": "a.png", "question": "What?", "answer": "red"}'
    bad = bad if bad == "{" else f"{row[:-1]}, {bad[1:]}"
    (tmp_path / "rows.jsonl").write_text(f"{row}\n{bad}\n")
    with pytest.raises(InputError) as error:
        read_samples(tmp_path / "rows.jsonl")
    assert sentence in str(error.value) and "rows.jsonl" in str(error.value) and "\n" not in str(error.value)
    ours = json.loads(row) | {"id": "a", "answers": []}
    ours.pop("answer")
    (tmp_path / "samples.jsonl").write_text(json.dumps(ours) + "\n" + bad + "\n")
    with pytest.raises(InputError, match=r"samples\.jsonl, line 2 is no sample: "):
        read_samples(tmp_path / "samples.jsonl")
