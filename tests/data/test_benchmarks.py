"""Published benchmarks: the tiny copy of each in `tests/data`, complete and broken ones, and the shuffle of options."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from cof_agent import scoring
from cof_agent.cli import main as cof
from cof_agent.data.benchmarks import BENCHMARKS, RULES, load, shuffled
from cof_agent.data.choices import options_in
from cof_agent.episodes import question_of
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.trajectory import Sample, to_json

pytest.importorskip("datasets")

DATA = Path(__file__).parent / "published"  # a tiny copy of each, in its layout; the pictures are `picture`
COPIES = {
    "vstar": "vstar",
    "hrbench-4k": "hrbench",
    "hrbench-8k": "hrbench",
    "mme-realworld": "mme-realworld",
    "mme-realworld-lite": "mme-realworld-lite",
    "treebench": "treebench",
    "visualprobe": "visualprobe",
    "pope": "pope",
    "infographicvqa": "infographicvqa",
    "textvqa": "textvqa",
}
VSTAR_PARTS = {"direct_attributes": 115, "relative_position": 76}
LEVELS = ("Easy", "Medium", "Hard")


def copy_of(name: str, folder: Path) -> Path:
    """The copy of `tests/data` of this name, in `folder`, to be changed at will."""
    return Path(shutil.copytree(DATA / name, folder))


def picture(number: int) -> bytes:
    """A small JPEG, another for each number."""
    image = Image.new("RGB", (64, 48), "white")
    ImageDraw.Draw(image).text((4, 4), str(number), fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """As `datasets` publishes rows; `image` given as bytes becomes its image type."""
    import datasets

    columns = {name: [row[name] for row in rows] for name in rows[0]}
    held = isinstance(rows[0].get("image"), bytes)
    if held:
        columns["image"] = [{"bytes": content, "path": None} for content in columns["image"]]
    made = datasets.Dataset.from_dict(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    (made.cast_column("image", datasets.Image()) if held else made).to_parquet(path)


def vstar_rows(numbers: dict[str, int]) -> list[dict[str, Any]]:
    """So many rows of each category, with ids of their own and one picture."""
    lines = (DATA / "vstar" / "test_questions.jsonl").read_text().splitlines()
    one = {row["category"]: row for row in map(json.loads, lines)}
    parts = [part for part, number in numbers.items() for _ in range(number)]
    return [one[part] | {"question_id": str(number)} for number, part in enumerate(parts)]


def vstar(folder: Path, numbers: dict[str, int]) -> Path:
    write_lines(copy_of("vstar", folder) / "test_questions.jsonl", vstar_rows(numbers))
    return folder


def loaded(name: str, copy: Path, **options: Any) -> list[Sample]:
    return load(name, copy, limit=options.pop("limit", 100), keep_images=copy.parent / "kept", **options)


@pytest.mark.parametrize("name", COPIES)
def test_every_benchmark_is_read_from_its_layout(tmp_path: Path, name: str) -> None:
    samples = loaded(name, copy_of(COPIES[name], tmp_path / "copy"))
    assert len({sample.id for sample in samples}) == len(samples) > 0
    for sample in samples:
        with Image.open(sample.image) as image:
            assert image.size == (64, 48)
        assert sample.question.endswith("?") and "(A)" not in sample.question
        assert sample.id.startswith(name) and sample.metadata["benchmark"] == name
        assert sample.metadata["scoring"] in (BENCHMARKS[name].scoring, "exact")
        assert sample.answers and (not sample.choices or sample.answers[0] in sample.choices)
        assert scoring.matches(sample.answers[0], sample)
    assert [loaded(name, tmp_path / "copy", limit=1)] == [samples[:1]]


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_that_is_not_complete_is_named(tmp_path: Path, name: str) -> None:
    copy = copy_of(COPIES[name], tmp_path / "copy")
    with pytest.raises(InputError, match=rf"holds \d questions, .* has {BENCHMARKS[name].size}.*--samples"):
        load(name, copy, keep_images=tmp_path / "kept")


def test_vstar(tmp_path: Path) -> None:
    first, _, last = loaded("vstar", copy_of("vstar", tmp_path / "copy"))
    assert first == Sample(
        id="vstar-0",
        image=str(tmp_path / "copy/direct_attributes/sa_0.jpg"),
        question="What is the material of the glove?",
        answers=("cotton",),
        choices=("rubber", "cotton", "kevlar", "leather"),
        boxes=(Box(5, 6, 15, 26),),
        metadata={"benchmark": "vstar", "scoring": "choice", "category": "direct_attributes"},
    )
    assert last.choices == ("right", "left") and last.answers == ("left",)
    (tmp_path / "copy/direct_attributes/sa_0.json").unlink()
    assert loaded("vstar", tmp_path / "copy/test_questions.jsonl")[0].boxes == ()


def test_vstar_as_one_table(tmp_path: Path) -> None:
    rows = [row | {"image": picture(0)} for row in vstar_rows({"relative_position": 2})]
    write_parquet(tmp_path / "copy" / "data" / "test-00000-of-00001.parquet", rows)
    first, second = loaded("vstar", tmp_path / "copy")
    assert first.choices == ("right", "left") and first.image == second.image and first.boxes == ()
    assert Path(first.image).read_bytes() == picture(0)


def test_a_complete_copy_needs_no_limit(tmp_path: Path) -> None:
    samples = load("vstar", vstar(tmp_path / "copy", VSTAR_PARTS))
    assert Counter(sample.metadata["category"] for sample in samples) == VSTAR_PARTS
    wrong = VSTAR_PARTS | {"direct_attributes": 114, "relative_position": 77}
    with pytest.raises(InputError, match=r"114 of 115 direct_attributes; 77 of 76 relative_position"):
        load("vstar", vstar(tmp_path / "wrong", wrong))


@pytest.mark.parametrize("size", ["4k", "8k"])
def test_hrbench_keeps_its_four_cycles(tmp_path: Path, size: str) -> None:
    samples = loaded(f"hrbench-{size}", copy_of("hrbench", tmp_path / "copy"))
    assert [sample.metadata["cycle"] for sample in samples] == ["0", "1", "2", "3"] * 2
    assert [sample.metadata["category"] for sample in samples] == ["single"] * 4 + ["cross"] * 4
    assert [sample.choices.index("red") for sample in samples[:4]] == [0, 3, 2, 1]
    assert {sample.answers for sample in samples} == {("red",)}
    assert len({sample.image for sample in samples}) == 2  # one file for the four cycles
    assert [question_of(sample) for sample in samples] == [samples[0].id] * 4 + [samples[4].id] * 4
    assert loaded(f"hrbench-{size}", tmp_path / "copy", shuffle_options=0) == shuffled(samples, 0) != samples


def test_mme_realworld_in_both_layouts(tmp_path: Path) -> None:
    for name, copy in (
        ("mme-realworld", copy_of("mme-realworld", tmp_path / "full")),
        ("mme-realworld-lite", copy_of("mme-realworld-lite", tmp_path / "lite")),
        ("mme-realworld-lite", copy_of("mme-realworld-table", tmp_path / "table")),
    ):
        first, second = loaded(name, copy)
        assert first.choices == ("13", "90", "77", "6", "The image does not feature the buses") == second.choices
        assert first.answers == (first.choices[4],) and first.id != second.id
        assert first.metadata["category"] == "Perception/Monitoring"
        assert first.metadata["subcategory"] == "Vehicle/counting"


def test_treebench(tmp_path: Path) -> None:
    ordering, material, reading = loaded("treebench", copy_of("treebench", tmp_path / "copy"))
    assert ordering.answers == ("in front of it",) and ordering.boxes == (Box(1, 2, 30, 40), Box(5, 5, 9, 9))
    assert material.choices == ("one", "two", "three") and material.answers == ("two",)
    assert reading.choices == () and reading.metadata["scoring"] == "exact"  # its options stand in the image
    for answer in ("B", "(b)", "Way out", "B. way out"):
        assert scoring.matches(answer, reading)
    assert not scoring.matches("A", reading)


def test_visualprobe(tmp_path: Path) -> None:
    samples = loaded("visualprobe", copy_of("visualprobe", tmp_path / "copy"))
    assert {sample.metadata["category"]: sample.answers for sample in samples} == {
        "easy": ("0",),
        "medium": ("1",),
        "hard": ("2",),
    }
    assert samples[0].question == "How many flags are there?"


def test_free_answers_stay_as_they_are(tmp_path: Path) -> None:
    (camera,) = loaded("textvqa", copy_of("textvqa", tmp_path / "textvqa"))
    assert len(camera.answers) == 10 and Counter(camera.answers)["dakota"] == 7
    (females,) = loaded("infographicvqa", copy_of("infographicvqa", tmp_path / "infographicvqa"))
    assert females.answers == ("201,000", "201000")
    assert females.metadata["subcategory"] == "arithmetic, counting"
    assert [sample.answers for sample in loaded("pope", copy_of("pope", tmp_path / "pope"))] == [("yes",), ("no",)]


def test_a_question_of_several_categories_counts_in_each(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    row = f"1\t{base64.b64encode(content.getvalue()).decode()}\tIs there a dog?\tYes\tadversarial,popular,random"
    (tmp_path / "POPE.tsv").write_text(f"index\timage\tquestion\tanswer\tcategory\n{row}\n")
    found = loaded("pope", tmp_path)
    assert [one.metadata["category"] for one in found] == ["adversarial", "popular", "random"]
    assert len({one.id for one in found}) == 3


def test_options_that_are_letters_themselves() -> None:
    """As MathVista has them: what is right is the text, and a letter is a place."""
    row = Sample("m", "i", "Which?", ("(b)",), ("(c)", "(a)", "(e)", "(d)", "(b)"))
    assert {reply: scoring.matches(reply, row) for reply in ("E", "E. (b)", "A", "B. (a)", "B")} == {
        "E": True,
        "E. (b)": True,
        "A": False,
        "B. (a)": False,
        "B": False,
    }
    several = Sample("x", "i", "Which?", ("a; b; d",), ("a1", "b1", "c1", "d1"), metadata={"scoring": "several"})
    several = replace(several, metadata={"scoring": "several", "right": ["a1", "b1", "d1"]})
    assert scoring.matches("BDA", several) and scoring.matches("ABD", several) and not scoring.matches("bad", several)


def test_our_own_scenes(tmp_path: Path) -> None:
    drawn = Sample("s", "images/a.jpg", "What?", ("red",), boxes=(Box(1, 2, 3, 4),), metadata={"category": "sign"})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture(0))
    (tmp_path / "samples.jsonl").write_text(to_json(drawn) + "\n")
    metadata = {"benchmark": "scenes", "scoring": "exact", "category": "sign"}
    image = str(tmp_path / "images" / "a.jpg")
    assert load("scenes", tmp_path) == [replace(drawn, id="scenes-s", image=image, metadata=metadata)]
    with pytest.raises(InputError, match="scenes cannot be downloaded; give a local copy"):
        load("scenes")


def hub_cache(root: Path, repository: str, files: Path) -> None:
    """The cache of the hub as it is after a download: files are links from a folder named by its commit."""
    place = root / f"datasets--{repository.replace('/', '--')}"
    for number, file in enumerate(sorted(path for path in files.rglob("*") if path.is_file())):
        blob, link = place / "blobs" / str(number), place / "snapshots" / ("c" * 40) / file.relative_to(files)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("c" * 40)


def test_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for level in LEVELS:
        hub_cache(
            tmp_path / "hub",
            f"Mini-o3/VisualProbe_{level}",
            copy_of("visualprobe", tmp_path / level) / f"VisualProbe_{level}",
        )
    samples = load("visualprobe", limit=3)
    assert Counter(sample.metadata["category"] for sample in samples) == {"easy": 1, "medium": 1, "hard": 1}
    with pytest.raises(
        InputError, match=r"cannot download TreeBench \(HaochenWang/TreeBench\) from the hub.*local copy"
    ):
        load("treebench")


def spoiled(name: str, folder: Path, **changes: Any) -> Path:
    """A copy whose second row has other content."""
    copy = copy_of(COPIES[name], folder)
    if name == "vstar":
        rows = vstar_rows({"direct_attributes": 2})
        write_lines(copy / "test_questions.jsonl", [rows[0], rows[1] | changes])
    elif name == "hrbench-8k":
        with open(copy / "hr_bench_8k.tsv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        write_tsv(copy / "hr_bench_8k.tsv", [rows[0], rows[1] | changes, *rows[2:]])
    elif name == "visualprobe":
        (row,) = json.loads((copy / "VisualProbe_Easy/val.json").read_text())
        (copy / "VisualProbe_Easy/val.json").write_text(json.dumps([row, row | changes]))
    return copy


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("vstar", {"image": "../../etc/passwd"}, r"row 2 names its image '../../etc/passwd', which is no path inside"),
        ("vstar", {"image": "/etc/passwd"}, "no path inside"),
        ("vstar", {"image": "C:\\secret.jpg"}, "no path inside"),
        (
            "vstar",
            {"text": None},
            r"row 2 has nothing in the column 'text' \(V\* has question_id, image, text, label, category",
        ),
        ("vstar", {"image": "a" * 5000 + ".jpg"}, "aaa"),
        ("vstar", {"image": "direct_attributes/sa_9.jpg"}, r"1 of the images of 2 questions are missing .*sa_9\.jpg"),
        ("hrbench-8k", {"image": "not base64!"}, "row 2 names its image 'not base64!', which is no path inside"),
        ("hrbench-8k", {"image": base64.b64encode(b"no image").decode()}, "row 2 names its image 'bm8g"),
        ("hrbench-8k", {"answer": ""}, "row 2 has nothing in the column 'answer'"),
        ("visualprobe", {"images": ["VisualProbe_Easy/../../a.jpg"]}, "no path inside"),
        ("visualprobe", {"images": []}, "row 2 has nothing in the column 'images'"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path: Path, name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        loaded(name, spoiled(name, tmp_path / "copy", **changes))


def test_a_right_option_that_is_missing_leaves_its_question_unscored(tmp_path: Path) -> None:
    _, sample = loaded("vstar", spoiled("vstar", tmp_path / "copy", label="F"))
    assert sample.answers == () and sample.metadata["unscored"] == "the right option F is not among A, B, C, D"


def test_a_copy_whose_right_option_stands_first_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row | {"label": "A"} for row in vstar_rows({"direct_attributes": 4})]
    write_lines(copy_of("vstar", tmp_path / "copy") / "test_questions.jsonl", rows)
    loaded("vstar", tmp_path / "copy", shuffle_options=1)
    assert "the right option always stands first" not in caplog.text
    loaded("vstar", tmp_path / "copy")
    assert "in this copy of V* the right option always stands first; give --shuffle-options SEED" in caplog.text


def test_a_converted_file_is_read_as_other_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "0.jpg").write_bytes(picture(0))
    asked = "How many lamps? Select from the following choices.\n(A) 0\n(B) 2"
    rows = [{"images": ["0.jpg"], "query": asked, "response": "B"}] * 2
    write_lines(tmp_path / "hrbench.jsonl", rows)
    samples = loaded("hrbench-4k", tmp_path / "hrbench.jsonl")
    assert "has no published layout of HR-Bench 4K (here are images, query, response)" in caplog.text
    assert [(sample.choices, sample.answers) for sample in samples] == [(("0", "2"), ("2",))] * 2
    assert {sample.metadata["scoring"] for sample in samples} == {"choice"}
    with pytest.raises(InputError, match="lacks 'question', 'answer', 'category'|holds no hr_bench"):
        loaded("hrbench-4k", tmp_path)


def test_options_that_cannot_be_told_apart_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"index": n, "question": f"Which{n}? A 1 B 2", "answer": "B", "image": picture(n)} for n in range(2)]
    write_parquet(tmp_path / "mmstar.parquet", [row | {"category": "math", "l2_category": "x"} for row in rows])
    assert [sample.answers for sample in loaded("mmstar", tmp_path)] == [("B",), ("B",)]
    assert "2 questions of MMStar list no options that can be told apart" in caplog.text


def test_all_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cof(["eval", "--benchmark", "list"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    for name, benchmark in BENCHMARKS.items():
        assert name in shown and all(word in shown for word in RULES[benchmark.scoring].split())
        assert benchmark.source and benchmark.what
    for remark in ("515", "--judge", "rotations"):
        assert remark in shown


def test_a_judge_has_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", str(DATA / "vstar"), "--judge", "nano", "-o", str(tmp_path / "out")]
    assert cof(["eval", "--benchmark", "vstar", *given]) == 2
    assert "V* is scored by a rule (right option), not by a judge; leave --judge out" in capsys.readouterr().err
    assert cof(["eval", "--benchmark", "vstar"]) == 2
    assert "say where to write: -o DIR" in capsys.readouterr().err


def test_copies_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no TreeBench\.tsv or \*\.parquet, where TreeBench has its questions"):
        load("treebench", tmp_path / "empty")
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"none\.jsonl holds no questions of V\*"):
        load("vstar", tmp_path / "none.jsonl", limit=5)
    with pytest.raises(InputError, match="there is no file or folder"):
        load("treebench", tmp_path / "missing")
    with pytest.raises(InputError, match=r"there is no benchmark 'v\*'; there are vstar, hrbench-4k"):
        load("v*")
    with pytest.raises(
        InputError, match=r"lacks 'image', 'answer_type', which InfographicVQA has \(here are questionId, q"
    ):
        load("infographicvqa", copy_of("infographicvqa", tmp_path / "documents") / "DocVQA")
    (tmp_path / "TreeBench.tsv").write_bytes(b"index\timage\n1\t\xff\xfe\n")
    with pytest.raises(InputError, match="is no table of text"):
        load("treebench", tmp_path / "TreeBench.tsv")
    (tmp_path / "hr_bench_4k.parquet").write_bytes(
        (copy_of("hrbench", tmp_path / "hr") / "hr_bench_4k.parquet").read_bytes()[:300]
    )
    with pytest.raises(InputError, match=r"cannot read .*hr_bench_4k\.parquet"):
        load("hrbench-4k", tmp_path / "hr_bench_4k.parquet")
    (tmp_path / "questions.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match="is a spreadsheet"):
        load("treebench", tmp_path / "questions.xlsx")


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("What? (A) red (B) blue", "What?", ["red", "blue"]),
        ("What?\nA. red\nB. blue\nC. a plan\n of mine", "What?", ["red", "blue", "a plan of mine"]),
        ("What?\nA) 3.5\nB) A. Smith", "What?", ["3.5", "A. Smith"]),
        ("What?\nA: x\nC: y", "What?", ["x C: y"]),  # letters follow each other
        ("A. B. one line C. more", "", ["", "one line", "more"]),
        ("Who is it?", "Who is it?", []),
    ],
)
def test_options_in_a_text(text: str, question: str, options: list[str]) -> None:
    head, found = options_in(text)
    assert (head, list(found.values())) == (question, options) and list(found) == list("ABC")[: len(options)]


def many(options: tuple[str, ...], right: str, number: int = 400) -> list[Sample]:
    return [Sample(f"s-{index}", "i", "q", (right,), options) for index in range(number)]


def test_shuffled_options() -> None:
    samples = many(("red", "blue", "green", "black"), "red")
    made = shuffled(samples, 7)
    assert made == shuffled(samples, 7) == shuffled(samples[::-1], 7)[::-1]  # by id, not by place
    assert made != shuffled(samples, 8)
    assert [sorted(sample.choices) for sample in made] == [sorted(sample.choices) for sample in samples]
    places = Counter(sample.choices.index("red") for sample in made)
    assert len(places) == 4 and all(70 <= number <= 130 for number in places.values())  # 100 each, 3.5 deviations
    for sample in made:
        letter = "ABCD"[sample.choices.index("red")]
        assert scoring.matches(letter, sample)
        assert not any(scoring.matches(other, sample) for other in set("ABCD") - {letter})


def test_an_option_about_the_others_keeps_its_place() -> None:
    made = shuffled(
        many(("one car", "two cars", "a bicycle above the car", "All the above answers are wrong."), "one car"), 1
    )
    assert {sample.choices[3] for sample in made} == {"All the above answers are wrong."}
    assert {sample.choices.index("a bicycle above the car") for sample in made} == {0, 1, 2}


def test_the_agent_is_measured_on_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = copy_of("vstar", tmp_path / "copy")
    given = ["eval", "--benchmark", "vstar", "--data", str(copy), "-o", str(tmp_path / "out")]
    assert cof([*given, "--samples", "3", "--shuffle-options", "--max-zooms", "1", "--max-tokens", "24"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["by_category"]) == {"direct_attributes", "relative_position"}
    assert summary["n"] == 3
    assert cof(given) == 2
    assert "of 115 direct_attributes" in capsys.readouterr().err
    assert cof(["eval", "-o", str(tmp_path / "none")]) == 2
    assert "say what to measure on" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["infographicvqa", "textvqa"])
def test_texts_are_scored_by_their_own_rule(tmp_path: Path, name: str) -> None:
    given = ["eval", "--benchmark", name, "--data", str(DATA / name), "-o", str(tmp_path / "out")]
    assert cof([*given, "--samples", "1", "--max-zooms", "0", "--max-tokens", "8"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n"], summary["unscored"], summary["accuracy"]) == (1, 0, 0.0)


def test_the_authors_own_files(tmp_path: Path) -> None:
    """MathVista's, OCRBench's and POPE's as their repositories have them: the rule of each, and its categories."""
    maths: dict[str, Any] = {
        "pid": "1",
        "question": "What is x?",
        "image": "images/1.jpg",
        "choices": None,
        "unit": None,
        "precision": 1.0,
    }
    maths |= {"answer": "1.2", "answer_type": "float", "metadata": {"task": "geometry"}}
    texts: dict[str, Any] = {
        "id": 0,
        "dataset_name": "HME100k",
        "question": "What is written?",
        "answers": ["x ^ 2"],
        "image_path": "a/1.jpg",
    }
    texts |= {"type": "Handwritten Mathematical Expression Recognition"}
    asked = [{"question_id": n, "image": f"{n}.jpg", "text": "Is it?", "label": "yes"} for n in (1, 2)]
    for folder in ("images", "OCRBench_Images/a", "val2014"):
        (tmp_path / folder).mkdir(parents=True)
        for n in (1, 2):
            (tmp_path / folder / f"{n}.jpg").write_bytes(picture(n))
    (tmp_path / "testmini.json").write_text(json.dumps({"1": maths, "2": maths | {"pid": "2"}}))
    (tmp_path / "OCRBench.json").write_text(json.dumps([texts]))
    for category in ("adversarial", "popular", "random"):
        write_lines(tmp_path / f"coco_pope_{category}.json", asked)
    (found,) = load("mathvista", tmp_path, limit=1)
    assert (found.metadata["scoring"], found.metadata["category"]) == ("rounded", "geometry")
    assert found.question == "What is x? (Give 1 decimal place.)"
    (found,) = load("ocrbench", tmp_path, limit=1)
    assert (found.metadata["scoring"], found.metadata["category"]) == ("contains", texts["type"])
    found_of_pope = load("pope", tmp_path, limit=6)
    assert [one.metadata["category"] for one in found_of_pope] == ["adversarial"] * 2 + ["popular"] * 2 + ["random"] * 2
    assert {one.metadata["scoring"] for one in found_of_pope} == {"yes_no"} and len(
        {one.id for one in found_of_pope}
    ) == 6
