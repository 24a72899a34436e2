"""Regions from real detectors: a small random DETR and RapidOCR, what the question becomes, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from cof_agent import protocol
from cof_agent.cli import main as cof
from cof_agent.detection.regions import Objects, Texts, counts, filled, in_words
from cof_agent.environment import ZoomEnvironment
from cof_agent.geometry import Box, CoordinateSystem, Size
from cof_agent.region_refs import DETECTED
from cof_agent.trajectory import Sample, Trajectory, read_jsonl, to_json

LEAST = 0.05  # which all of a random detector's guesses reach
needs_rapid = pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra ocr")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random DETR of one layer and six queries, of which each guesses another place."""
    import torch
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

    folder = str(tmp_path_factory.mktemp("detr"))
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    layers = {
        f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in (("layers", 1), ("ffn_dim", 16))
    }
    config = DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        num_queries=6,
        id2label={0: "person", 1: "car", 2: "<region9> dog"},
        init_xavier_std=8.0,
        **heads,
        **layers,
    )
    model = DetrForObjectDetection(config)
    torch.nn.init.normal_(model.model.query_position_embeddings.weight, std=4)
    for parameter in model.bbox_predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


@pytest.fixture
def sample(picture: Path) -> Sample:
    return Sample("one", str(picture), "What is there?", answers=("a car",))


def test_objects_are_regions_of_the_source_the_surest_first(detector: str, sample: Sample) -> None:
    from transformers import pipeline

    environment = ZoomEnvironment()
    found = Objects(detector, LEAST).find(environment, sample)
    theirs = pipeline("object-detection", model=detector)(Image.open(sample.image).convert("RGB"), threshold=LEAST)
    boxes = {tuple(one["box"].values()) for one in theirs}
    assert len(found) > 2 and len(boxes) > 2
    assert {tuple(one.box) for one in found} == {tuple(Box(*box).clipped(Size(800, 600))) for box in boxes}
    scores = [one.score or 0 for one in found]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= LEAST
    assert all(one.box.area and one.box == one.box.clipped(Size(800, 600)) for one in found)


def test_a_question_is_told_what_was_found(detector: str, sample: Sample) -> None:
    own = replace(sample, id="own", question="What is <region1>?", regions=(Box(0, 0, 50, 50),))
    pair = replace(sample, id="pair", more_images=(sample.image,))
    gone = replace(sample, id="gone", image="gone.png")
    environment, done = ZoomEnvironment(), []
    told, *others, failed = filled(
        [sample, own, pair, gone],
        Objects(detector, LEAST),
        environment,
        most=2,
        on_done=lambda number, of: done.append((number, of)),
    )
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    record = told.metadata[DETECTED]
    first, second = (one["label"] for one in record["found"])
    assert told.question == f"Found in the image: <region1> {first}, <region2> {second}.\nWhat is there?"
    assert "<" not in first + second and len(told.regions) == 2 and record["by"] == detector
    overview = environment.reset(told)
    asked = protocol.opening(told, overview, system=CoordinateSystem.ABSOLUTE)[-1]["content"][-1]["text"]
    assert f"] {first}, region 2 at [" in asked and "<region" not in asked
    assert others == [own, pair]
    assert (failed.question, failed.regions) == (gone.question, ()) and "gone.png" in failed.metadata[DETECTED]["error"]
    (nothing,) = filled([sample], Objects(detector, 1.0), environment, most=2)
    assert (nothing.question, nothing.regions) == (sample.question, ())
    summed = counts([told, told, own, failed, replace(nothing, id="nothing")])
    assert summed == {"by": detector, "questions": 3, "regions": 2, "without": 2, "failed": 1, "left": 1}
    assert in_words(summed) == (
        f"2 found by {detector} for 3 questions; 2 asked without any, 1 of them because the image could not be read; "
        "1 with regions of their own or several images"
    )
    assert counts([own]) is None


def notice(path: Path) -> Path:
    image = Image.new("RGB", (640, 320), "white")
    drawing = ImageDraw.Draw(image)
    for text, size, place in (("Annual ticket", 28, (40, 30)), ("HARBOUR", 72, (60, 120)), ("45.50", 28, (420, 30))):
        drawing.text(place, text, fill="black", font=ImageFont.load_default(size=size))
    image.save(path)
    return path


@pytest.mark.slow
@needs_rapid
def test_lines_of_text_are_regions_the_largest_first(tmp_path: Path) -> None:
    sample = Sample("sign", str(notice(tmp_path / "notice.png")), "What does it cost?")
    (told,) = filled([sample], Texts(), ZoomEnvironment(), most=2)
    assert told.question.startswith("Found in the image: <region1> “HARBOUR”, <region2> “Annual ticket”.\n")
    assert told.regions[0].intersection(Box(60, 120, 420, 200)) > 0.6 * told.regions[0].area
    assert [one["score"] for one in told.metadata[DETECTED]["found"]] == [None, None]


def test_eval_and_ask_record_what_was_found(
    detector: str, sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "samples.jsonl").write_text(to_json(sample) + "\n")
    output = tmp_path / "out"
    options = [
        "--detector",
        detector,
        "--detector-threshold",
        str(LEAST),
        "--detector-regions",
        "2",
        "--max-zooms",
        "0",
    ]
    command = ["eval", "--data", str(tmp_path / "samples.jsonl"), "--model", "nano", "-o", str(output), *options]
    assert cof(command) == 0
    assert f"regions: 2 found by {detector} for 1 questions" in capsys.readouterr().out.replace("\n", "")
    summary = json.loads((output / "summary.json").read_text())["regions"]
    assert (summary["regions"], summary["without"], summary["left"]) == (2, 0, 0)
    (trajectory,) = read_jsonl(output / "trajectories.jsonl", Trajectory)
    assert len(trajectory.sample.regions) == 2 == len(trajectory.sample.metadata[DETECTED]["found"])
    assert cof(command) == 0
    assert "1 of 1 done already" in capsys.readouterr().err
    assert cof([*command, "--detector-regions", "1"]) == 2
    assert "holds a trajectory of another sample" in capsys.readouterr().err
    asking = ["ask", sample.image, sample.question, "--model", "nano", *options]
    assert cof(asking) in (0, 3)
    assert "region 2   " in capsys.readouterr().out
    assert cof([*asking, "--detector-threshold", "1", "--json"]) in (0, 3)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["sample"]["metadata"][DETECTED] == {"by": detector, "found": []}


def test_bad_input_is_one_sentence(
    checkpoint: Callable[[str], Path], sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "samples.jsonl").write_text(to_json(sample) + "\n")
    asking = ["ask", sample.image, sample.question]
    other = str(checkpoint("qwen2_5_vl"))
    capsys.readouterr()
    for options, sentence in (
        (["--detector", str(tmp_path / "nowhere")], "there is no model directory"),
        (["--detector", other], f"{other} is no checkpoint for object detection."),
        (["--detector", str(tmp_path)], f"the folder {tmp_path} holds no checkpoint"),
        (["--detector-regions", "3"], "--detector-regions needs a detector: --detector MODEL, or --detector ocr."),
        (["--detector", "ocr", "--detector-threshold", "0.4"], "lines of text have no score"),
        (["--detector", "ocr", "--region-crops", "--detector-regions", "7"], "a zoom for each of the 7 regions"),
        (["--detector", "ocr", "--image", sample.image], "--detector finds the regions of one image itself"),
        (["--detector", "ocr", "--region", "0,0,9,9"], "names no <region1>"),
    ):
        for command in (
            [asking] if options[-1] != "3" else [asking, ["eval", "--data", str(tmp_path), "-o", str(tmp_path / "o")]]
        ):
            assert cof([*command, *options]) == 2, options
            said = capsys.readouterr().err
            assert sentence in said and said.count("\n") == 1, said
