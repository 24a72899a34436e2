"""Rows of files of every kind, and which files a folder's rows are read from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cof_agent.data.containers import find, kind_of
from cof_agent.data.rows import json_rows
from cof_agent.errors import InputError

ROWS: list[dict[str, Any]] = [{"q": "one\u2028line", "n": 1}, {"q": "tw\u00f6", "n": 2.5}]


def values(spec: Path, split: str | None = None) -> list[Any]:
    return [row.values for row in find(str(spec), split).rows()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(ROWS)),
        ("list.json", json.dumps(ROWS, indent=2)),
        ("lines.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)),
        ("lines.json", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("lines.txt", "\r\n".join(json.dumps(row) for row in ROWS)),
        ("object.json", json.dumps({"version": "1", "annotations": ROWS})),
        ("keys.json", json.dumps({"info": ROWS[0], "other": ROWS[1]})),
        ("columns.json", json.dumps({name: [row[name] for row in ROWS] for name in ("q", "n")})),
        (
            "pandas.json",
            json.dumps({name: {str(place): row[name] for place, row in enumerate(ROWS)} for name in ("q", "n")}),
        ),
    ],
)
@pytest.mark.parametrize("packed", ["utf-8", "utf-8-sig", "utf-16", "gzip"])
def test_json_in_every_shape(name: str, content: str, packed: str, tmp_path: Path) -> None:
    written = gzip.compress(content.encode()) if packed == "gzip" else content.encode(packed)
    (tmp_path / name).write_bytes(written)
    found = [{key: row[key] for key in ("q", "n")} for row in values(tmp_path / name)]
    assert found == ROWS


@given(
    st.lists(
        st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)),
        max_size=8,
    )
)
def test_a_list_is_read_piece_by_piece_as_at_once(rows: list[Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        for indent in (None, 1):
            path.write_text(json.dumps(rows, indent=indent))
            assert list(json_rows(path)) == rows


def test_a_long_list_is_read_over_its_pieces(tmp_path: Path) -> None:
    rows = [{"n": n, "text": "x" * (n % 700) + '"]},{'} for n in range(6000)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert (tmp_path / "rows.json").stat().st_size > 2 << 20
    assert list(json_rows(tmp_path / "rows.json")) == rows


@pytest.mark.parametrize("content", ["[{", '[{"a": 1}, oops]', '{"a": 1}\n{"a": oops}\n', "{oops", '{"a": 1}\n{"b"'])
def test_broken_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(InputError, match="neither JSON nor JSONL"):
        values(tmp_path / "rows.json")


def test_coco_and_several_lists(tmp_path: Path) -> None:
    top = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 7}],
        "licenses": [{"id": 1, "url": ""}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(top))
    assert values(tmp_path / "coco.json") == [{"image": "a.png", "id": 1, "image_id": 7}]
    (tmp_path / "two.json").write_text(json.dumps({"a": ROWS, "b": ROWS}))
    with pytest.raises(InputError, match=r"two\.json holds several lists of rows \(a, b\)"):
        values(tmp_path / "two.json")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_of_text(separator: str, encoding: str, tmp_path: Path) -> None:
    lines = [separator.join(row) for row in (("q", "n"), ('"two\nlines"', "1"), ("x", ""))]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding)
    assert values(tmp_path / "rows.csv") == [{"q": "two\nlines", "n": "1"}, {"q": "x", "n": None}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04rest", "is an archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid x", "git lfs pull"),
        (b"just words", "is neither JSON, JSONL, CSV, TSV, Parquet nor Arrow"),
        (b"\x00\x01,\x02", "is neither JSON"),
        (b"PAR1 and nothing else", "cannot read"),
        (b"ARROW1 and nothing else", "cannot read"),
    ],
)
def test_files_that_are_no_data(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "rows.data").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        values(tmp_path / "rows.data")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("\n")
    assert kind_of(tmp_path / "rows.json") == "json" and values(tmp_path / "rows.json") == []


def line(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"q": text}) + "\n")


def read(folder: Path, split: str | None = None) -> list[str]:
    return [row["q"] for row in values(folder, split)]


def test_a_folder_by_splits(tmp_path: Path) -> None:
    for name in (
        "data/train-00000-of-00002.jsonl",
        "data/train-00001-of-00002.jsonl",
        "data/test.jsonl",
        "val/rows.jsonl",
    ):
        line(tmp_path / name, name)
    line(tmp_path / "left_out.jsonl", "ours")
    line(tmp_path / ".cache" / "train.jsonl", "hidden")
    assert read(tmp_path) == ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]
    assert read(tmp_path, "test") == ["data/test.jsonl"] and read(tmp_path, "validation") == ["val/rows.jsonl"]
    assert find(str(tmp_path)).notes == ("not read: data/test.jsonl, val/rows.jsonl",)
    with pytest.raises(InputError, match="has no split dev2; it has test, train, validation"):
        read(tmp_path, "dev2")
    (tmp_path / "data" / "train-00000-of-00002.jsonl").unlink()
    assert "1 of 2 parts of" in find(str(tmp_path)).notes[0]


def test_a_folder_without_a_training_split(tmp_path: Path) -> None:
    line(tmp_path / "test_questions.jsonl", "test")
    line(tmp_path / "more" / "rows.json", "other kind")
    assert read(tmp_path) == ["test"]
    line(tmp_path / "val.jsonl", "val")
    with pytest.raises(InputError, match="has the splits test, validation; name one with --split"):
        read(tmp_path)


def test_files_of_one_kind_are_read_together_and_other_kinds_named(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        line(tmp_path / name, name)
    assert read(tmp_path) == ["a.jsonl", "b.jsonl"]
    assert find(str(tmp_path)).notes == ("not read: c.csv",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no samples"):
        find(str(tmp_path / "empty"))


def test_the_card_says_which_files_belong_together(tmp_path: Path) -> None:
    for name in ("data/test-1.jsonl", "hard/test-1.jsonl"):
        line(tmp_path / name, name)
    entries = "- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n- config_name: hard\n"
    card = f"---\nconfigs:\n{entries}---\n# A set\n"
    (tmp_path / "README.md").write_text(card)
    assert read(tmp_path) == ["data/test-1.jsonl"]


def test_our_own_samples_go_first(tmp_path: Path) -> None:
    line(tmp_path / "train.jsonl", "other")
    line(tmp_path / "samples.jsonl", "ours")
    assert read(tmp_path) == ["ours"] and find(str(tmp_path)).ours


@pytest.mark.parametrize("name", ["missing.json", "./missing", "missing", "tests/none", "some where/else"])
def test_what_is_nowhere(name: str) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        find(name)


@pytest.mark.parametrize(
    ("questions", "answers"),
    [
        ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
        ("Questions/OpenEnded_mscoco_val2014_questions.json", "Annotations/mscoco_val2014_annotations.json"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_answers_from_a_file_of_their_own(questions: str, answers: str, whole: bool, tmp_path: Path) -> None:
    """As VQA is published: in another order, and told, whether the folder is named or the questions alone."""
    asked = [{"question_id": id, "question": f"Is it {id}?", "image_id": 9} for id in (1, 2, 3)]
    known = [{"question_id": id, "multiple_choice_answer": f"no {id}"} for id in (3, 1)]
    for name, lists in ((questions, {"questions": asked}), (answers, {"annotations": known})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"info": {"year": 2017}} | lists))
    found = find(str(tmp_path if whole else tmp_path / questions))
    assert [row.values.get("multiple_choice_answer") for row in found.rows()] == ["no 1", None, "no 3"]
    assert found.notes == (f"answers from {answers if whole else tmp_path / answers}",)


def test_a_file_of_answers_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "val_questions.json").write_text(json.dumps({"questions": [{"question_id": 1, "question": "Is it?"}]}))
    (tmp_path / "val_annotations.json").write_text('{"annotations": [{"question_id": 1, "answer": "a')
    with pytest.raises(InputError, match=r"cannot read .*val_annotations\.json, the answers to .*val_questions\.json"):
        values(tmp_path / "val_questions.json")


def test_files_that_only_look_like_questions_and_answers_stay_apart(tmp_path: Path) -> None:
    """Questions with their own answers, lists and lines of JSON are read as they stand."""
    own = [{"question_id": 1, "question": "Is it?", "answer": "yes"}]
    coco = {"images": [], "annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]}
    known = {"annotations": [{"question_id": 1, "answer": "no"}]}
    for questions, beside in (({"questions": own}, coco), ({"questions": own}, known), (own, known)):
        (tmp_path / "questions.json").write_text(json.dumps(questions))
        (tmp_path / "annotations.json").write_text(json.dumps(beside))
        found = find(str(tmp_path / "questions.json"))
        assert [row.values["answer"] for row in found.rows()] == ["yes"] and found.notes == ()
