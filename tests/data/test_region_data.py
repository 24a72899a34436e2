"""Builders of samples with regions: tiny files in the layouts of the public sets, whole and broken."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.cli import main
from cof_agent.data.region_sets import drawn
from cof_agent.data.region_sets.instructions import CAPTION, CATEGORY, REFERRING, WHY
from cof_agent.data.samples import read_samples
from cof_agent.environment import ZoomEnvironment
from cof_agent.evaluation.compare import pairs_of
from cof_agent.geometry import Box
from cof_agent.region_refs import rounds
from cof_agent.scenes import oracle
from cof_agent.trajectory import Sample, to_json
from tests.scenes.shared import Scenes


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (320, 240), "grey").save(path)


INSTANCES: dict[str, Any] = {
    "images": [{"id": 9, "file_name": "000000000009.jpg", "width": 320, "height": 240}],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10.5, 20, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [100, 50, 120, 150], "iscrowd": 0},
        {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 300, 200], "iscrowd": 1},
        {"id": 4, "image_id": 9, "category_id": 1, "bbox": [5, 5, 0, 9], "iscrowd": 0},
    ],
}


def coco(folder: Path) -> None:
    put(folder / "annotations" / "instances_train2017.json", INSTANCES)
    picture(folder / "000000000009.jpg")


REFS = [
    {
        "ref_id": 0,
        "ann_id": 2,
        "image_id": 9,
        "category_id": 1,
        "split": "train",
        "file_name": "COCO_train2014_000000000009_2.jpg",
        "sent_ids": [4, 5],
        "sentences": [
            {"sent_id": 4, "sent": "man in blue", "raw": "Man in blue", "tokens": ["man", "in", "blue"]},
            {"sent_id": 5, "sent": "the tall one", "raw": "the tall one", "tokens": ["the", "tall", "one"]},
        ],
    }
]


def refcoco(folder: Path) -> None:
    put(folder / "instances.json", INSTANCES)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    picture(folder / "000000000009.jpg")


def visual_genome(folder: Path) -> None:
    phrases = ["a clock on a pole", "a grey car", "green leaves", "the curb", "a bench"]
    regions = [
        {"region_id": n, "image_id": 1, "x": 10 * n, "y": 5, "width": 40, "height": 30, "phrase": phrase}
        for n, phrase in enumerate(phrases)
    ]
    put(folder / "region_descriptions.json", [{"id": 1, "regions": regions}])
    picture(folder / "1.jpg")


SENTENCE = (
    "[/EN#1/people A man] in [/EN#2/clothing a red hat] looks at [/EN#3/other two dogs] near [/EN#0/scene a lake] ."
)
XML = """<annotation><filename>77.jpg</filename><size><width>320</width><height>240</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax></bndbox></object>
<object><name>2</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>80</xmax><ymax>50</ymax></bndbox></object>
<object><name>3</name><bndbox><xmin>200</xmin><ymin>150</ymin><xmax>240</xmax><ymax>200</ymax></bndbox></object>
<object><name>3</name><bndbox><xmin>250</xmin><ymin>150</ymin><xmax>300</xmax><ymax>200</ymax></bndbox></object>
<object><name>0</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""


def flickr30k(folder: Path) -> None:
    put(folder / "Sentences" / "77.txt", SENTENCE + "\nNobody is named here .\n")
    put(folder / "Annotations" / "77.xml", XML)
    picture(folder / "77.jpg")


VCR = {
    "movie": "m",
    "objects": ["person", "person", "cup"],
    "question": ["What", "is", [0], "handing", "to", [1], "?"],
    "answer_choices": [["Nothing", "."], [[0], "hands", "over", [2], "."], ["A", "hat", "."], ["Money", "."]],
    "answer_label": 1,
    "rationale_choices": [[[1], "'", "s", "hand", "is", "open", "."], ["No", "."], ["So", "."], ["Yes", "."]],
    "rationale_label": 0,
    "img_fn": "m/a@1.jpg",
    "metadata_fn": "m/a@1.json",
    "annot_id": "train-3",
}


def vcr(folder: Path) -> None:
    put(folder / "train.jsonl", json.dumps(VCR) + "\n")
    boxes = [[10, 10, 100, 200, 0.99], [150, 20, 300, 230, 0.98], [110, 90, 140, 120, 0.9]]
    put(
        folder / "vcr1images" / "m" / "a@1.json", {"boxes": boxes, "names": VCR["objects"], "width": 320, "height": 240}
    )
    picture(folder / "vcr1images" / "m" / "a@1.jpg")


SETS: dict[str, Callable[[Path], None]] = {
    "coco": coco,
    "refcoco": refcoco,
    "visual-genome": visual_genome,
    "flickr30k": flickr30k,
    "vcr": vcr,
}


def built(name: str, tmp_path: Path) -> list[Sample]:
    SETS[name](tmp_path / "set")
    assert main(["regions", name, "--data", str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 0
    return read_samples(tmp_path / "out")


@pytest.mark.parametrize("name", SETS)
def test_what_is_built_can_be_read_shown_and_built_again(name: str, tmp_path: Path) -> None:
    samples = built(name, tmp_path)
    first = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert main(["regions", name, "--data", str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == first
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.regions and sample.answers[0]
        ZoomEnvironment().reset(sample)


def test_sentences_of_tests_are_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SETS["refcoco"](tmp_path / "set")
    test = [{**REFS[0], "split": "test", "sentences": [{"sent_id": 6, "sent": "of the test"}]}]
    (tmp_path / "set" / "refs(unc).p").write_bytes(pickle.dumps(REFS + test, protocol=2))
    google = [{**REFS[0], "sentences": [{"sent_id": 6, "sent": "of the test"}]}]
    (tmp_path / "set" / "refs(google).p").write_bytes(pickle.dumps(google, protocol=2))
    command = ["regions", "refcoco", "--data", str(tmp_path / "set"), "-o"]
    for more, count in (([], 2), (["--split", "test"], 1), (["--split", "all"], 3)):
        assert main([*command, str(tmp_path / str(count)), *more]) == 0
        assert len(read_samples(tmp_path / str(count))) == count
    assert "left out: 1 samples, because they are of the split test" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "val"), "--split", "val"]) == 2
    assert "they are of the split train; name another one with --split" in capsys.readouterr().err


def test_coco_names_the_largest_first_in_rounds(tmp_path: Path) -> None:
    (sample,) = built("coco", tmp_path)
    assert sample.regions == (Box(100, 50, 220, 200), Box(10.5, 20, 40.5, 60))
    (question, answer), (further, second) = rounds(sample)
    assert question in CATEGORY and (answer, second) == ("person", "dog") and "<region2>" in further


def test_refcoco_asks_for_each_sentence(tmp_path: Path) -> None:
    samples = built("refcoco", tmp_path)
    assert [sample.answers for sample in samples] == [("man in blue",), ("the tall one",)]
    assert all(sample.question in REFERRING and sample.regions == (Box(100, 50, 220, 200),) for sample in samples)
    assert samples[0].metadata["split"] == "train"


def test_visual_genome_has_a_few_regions_to_a_conversation(tmp_path: Path) -> None:
    samples = built("visual-genome", tmp_path)
    assert [len(sample.regions) for sample in samples] == [4, 1]
    assert samples[0].question in CAPTION
    assert [answer for _, answer in rounds(samples[0])] == [
        "a clock on a pole",
        "a grey car",
        "green leaves",
        "the curb",
    ]


def test_visual_genome_has_its_images_in_two_folders(tmp_path: Path) -> None:
    visual_genome(tmp_path / "set")
    (tmp_path / "set" / "VG_100K_2").mkdir()
    (tmp_path / "set" / "1.jpg").rename(tmp_path / "set" / "VG_100K_2" / "1.jpg")
    assert main(["regions", "visual-genome", "--data", str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 0
    (image,) = {sample.image for sample in read_samples(tmp_path / "out")}
    assert image.endswith("VG_100K_2/1.jpg")


def test_options_that_a_builder_does_not_use_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert main(["regions", "drawn", "--images", "pictures", *out]) == 2
    assert "leave --images pictures out" in capsys.readouterr().err
    assert main(["regions", "coco", "--data", str(tmp_path), "--seed", "3", *out]) == 2
    assert "leave --seed 3 out" in capsys.readouterr().err


def test_flickr30k_marks_the_phrases_that_have_one_box(tmp_path: Path) -> None:
    (sample,) = built("flickr30k", tmp_path)
    assert "<region1> and <region2>" in sample.question
    assert sample.answers == ("A man (region 1) in a red hat (region 2) looks at two dogs near a lake .",)
    assert sample.regions == (Box(10, 20, 110, 220), Box(30, 20, 80, 50))


def test_vcr_asks_and_then_asks_why(tmp_path: Path) -> None:
    (sample,) = built("vcr", tmp_path)
    (question, answer), (why, reason) = rounds(sample)
    assert question == "What is <region1> handing to <region2>? (Also to be seen: <region3>.)"
    assert answer == "person (region 1) hands over cup (region 3)."
    assert why in WHY and reason == "person (region 2)' s hand is open."
    assert sample.regions[2] == Box(110, 90, 140, 120)


class _Called:
    """What a pickle made by somebody else may hold."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch called",)


def test_a_pickle_that_would_call_something_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refcoco(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([_Called()]))
    assert main(["regions", "refcoco", "--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "is no pickle of plain lists and numbers: it names" in capsys.readouterr().err
    assert not (tmp_path / "called").exists() and not (tmp_path / "out").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


BROKEN: list[tuple[str, str, Callable[[Path], Any], str]] = [
    ("coco", "annotations/instances_train2017.json", cut, "is no JSON, or only a part of it"),
    ("coco", "annotations/instances_train2017.json", Path.unlink, "has no annotations/instances_*.json"),
    ("coco", "annotations/instances_train2017.json", lambda p: put(p, [1]), "holds no JSON object"),
    ("coco", "annotations/instances_train2017.json", lambda p: put(p, {"images": []}), "has no field 'categories'"),
    (
        "coco",
        "000000000009.jpg",
        Path.unlink,
        "its image is missing or cannot be opened; name their folder with --images",
    ),
    ("refcoco", "refs(unc).p", cut, "is no pickle, or only a part of one"),
    ("refcoco", "instances.json", Path.unlink, "cannot read"),
    ("refcoco", "refs(unc).p", lambda p: p.write_bytes(pickle.dumps([{"ann_id": 77}])), "row 1 has no field 77"),
    ("visual-genome", "region_descriptions.json", lambda p: put(p, [{"id": 1, "regions": [{"x": "a"}]}]), "row 1"),
    ("flickr30k", "Annotations/77.xml", cut, "is no XML, or only a part of it"),
    (
        "flickr30k",
        "Annotations/77.xml",
        lambda p: put(p, f"<!DOCTYPE a [<!ENTITY b 'b'>]>{XML}"),
        "declares a document type",
    ),
    (
        "flickr30k",
        "Annotations/77.xml",
        lambda p: put(p, XML.replace("<xmin>10", "<xmin>ten")),
        "row 1 is not as the set",
    ),
    ("flickr30k", "Annotations/77.xml", Path.unlink, "cannot read"),
    (
        "vcr",
        "train.jsonl",
        lambda p: put(p, json.dumps(VCR | {"answer_label": 9}) + "\n"),
        "row 1 is not as the set has it",
    ),
    ("vcr", "vcr1images/m/a@1.json", lambda p: put(p, {"boxes": []}), "an object that the metadata has no box of"),
]


@pytest.mark.parametrize(("name", "file", "spoil", "sentence"), BROKEN)
def test_a_wrong_or_partial_file_is_one_sentence_and_writes_nothing(
    name: str,
    file: str,
    spoil: Callable[[Path], Any],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    SETS[name](tmp_path / "set")
    spoil(tmp_path / "set" / file)
    assert main(["regions", name, "--data", str(tmp_path / "set"), "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert not (tmp_path / "out").exists()


def test_what_is_off_its_image_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visual_genome(tmp_path)
    off = {"x": 400, "y": 5, "width": 40, "height": 30, "phrase": "nothing"}
    data = json.loads((tmp_path / "region_descriptions.json").read_text())
    put(tmp_path / "region_descriptions.json", [*data, {"id": 1, "regions": [off | {"region_id": 9}]}])
    data[0]["regions"] = data[0]["regions"][:1]
    put(tmp_path / "region_descriptions.json", [*data, {"id": 1, "regions": [off]}])
    main(["regions", "visual-genome", "--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert "left out: 1 samples, because a region lies outside its image" in capsys.readouterr().out


def test_there_are_no_other_builders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regions", "lvis", "--data", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "the builders are coco, refcoco, visual-genome, flickr30k, vcr, scenes, drawn." in capsys.readouterr().err
    assert main(["regions", "coco", "--data", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["regions", "coco", "-o", str(tmp_path / "out")]) == 2
    assert "say where the set is" in capsys.readouterr().err


def test_scenes_are_asked_about_by_region(drawn: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = drawn(3)
    assert main(["regions", "scenes", "--data", str(scenes), "-o", str(tmp_path / "out")]) == 0
    pairs = list(zip(read_samples(scenes), read_samples(tmp_path / "out"), strict=True))
    for plain, sample in pairs:
        assert sample.regions == plain.boxes and sample.answers == plain.answers
        assert "<region1>" in sample.question and "object" not in sample.question
    assert {sample.metadata["category"] for _, sample in pairs} == {"direct_attributes", "relative_position", "nested"}
    for plain, sample in pairs:
        smaller = sample.metadata["looks"][0]["detail"] < plain.metadata["looks"][0]["detail"]
        assert smaller == (sample.metadata["category"] == "nested")  # a sign is looked at more closely
        environment = ZoomEnvironment()
        played = oracle.play(sample, environment.reset(sample), environment)
        assert played.turns[-1].text.startswith("<think>Region 1 ")
    environment = ZoomEnvironment()
    in_words, by_region = (
        [oracle.play(sample, environment.reset(sample), environment) for sample in samples]
        for samples in zip(*pairs, strict=True)
    )
    assert len(pairs_of(in_words, by_region)) == len(pairs)  # the same questions, for all that they are put differently
    bare = replace(pairs[0][0], metadata={})
    (scenes / "samples.jsonl").write_text(to_json(bare) + "\n")
    assert main(["regions", "scenes", "--data", str(scenes), "-o", str(tmp_path / "out")]) == 2
    assert "is none of `cof scenes`" in capsys.readouterr().err


def test_drawn_scenes_are_legible_in_the_overview(tmp_path: Path) -> None:
    assert main(["regions", "drawn", "-o", str(tmp_path), "--samples", "3", "--seed", "5"]) == 0
    samples = read_samples(tmp_path)
    assert {sample.metadata["category"] for sample in samples} == {"object", "label", "which", "which of three"}
    for sample in samples:
        view = ZoomEnvironment().reset(sample)
        sides = [box.width * 448 / view.source_size.width for box in sample.regions]
        assert min(sides) / 3 >= 14  # the height of its letters in shown pixels
        thought = sample.metadata[drawn.THOUGHT]
        if sample.metadata["category"].startswith("which"):
            assert len(sample.regions) == (3 if sample.metadata["category"].endswith("three") else 2)
            colour = sample.question.split()[-1].rstrip("?")
            assert thought == f"The {colour} object is {sample.answers[0]}."
        else:
            assert thought.endswith(" can be seen well.")
