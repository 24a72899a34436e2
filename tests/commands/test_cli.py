"""The commands as a person runs them: output, exit codes, bad input in one sentence."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cof_agent.agent import Agent
from cof_agent.backends.scenes_only import UnknownPicture
from cof_agent.cli import main
from cof_agent.data.samples import read_samples
from cof_agent.geometry import Box
from cof_agent.policy import ScriptedPolicy
from cof_agent.trajectory import Sample, Trajectory, read_jsonl, to_json
from cof_agent.viewer.notebook import notebook_html


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> str:
    """A nano that has learned nothing: it babbles."""
    return str(checkpoint("qwen2_5_vl"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    assert main(["scenes", "-o", str(folder), "--samples", "3", "--size", "896x504", "--parts", "0.5"]) == 0
    return folder


def picture(folder: Path) -> str:
    path = folder / "grey.png"
    Image.new("RGB", (300, 200), (90, 120, 150)).save(path)
    return str(path)


def test_ask_without_an_answer_says_why_and_exits_with_3(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["ask", picture(tmp_path), "What is it?", "--model", model, "--max-tokens", "4", "-o", str(tmp_path)])
    shown = capsys.readouterr()
    assert code == 3
    assert "no answer: a turn ran into --max-tokens" in shown.err
    assert "overview" in shown.out
    (trajectory,) = read_jsonl(tmp_path / "trajectory.jsonl", Trajectory)
    assert trajectory.stop == "truncated"
    assert Image.open(tmp_path / "trajectory.png").size[0] > 300
    assert "Content-Security-Policy" in (tmp_path / "report.html").read_text()


def test_json_is_one_object_and_nothing_else(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["ask", picture(tmp_path), "What is it?", "--model", model, "--max-tokens", "4", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["sample"]["question"] == "What is it?"
    assert record["turns"][0]["tokens"] == {"prompt": record["turns"][0]["tokens"]["prompt"], "completion": 4}


def test_a_seed_gives_the_same_text_again(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        main(["ask", picture(tmp_path), "What?", "--model", model, "--max-tokens", "12", "--json", "--seed", seed])
        texts.append(json.loads(capsys.readouterr().out)["turns"][0]["text"])
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "missing.png", "What?"], "missing.png"),
        (["ask", __file__, "What?"], "test_cli.py"),
        (["ask", "{picture}", " "], "the question is empty"),
        (["ask", "{picture}", "What?", "--model", "./no-such-model"], "no-such-model"),
        (["ask", "{picture}", "What?", "--system-prompt", "none.txt"], "none.txt"),
        (["ask", "{picture}", "What?", "--coordinates", "unit"], "--coordinates is for served models"),
        (["ask", "{picture}", "What?", "--max-source-pixels", "100"], "--max-source-pixels"),
        (["ask", "{picture}", "What?", "-o", "{picture}"], "is a file"),
        (["eval", "--data", "nowhere", "-o", "{folder}/out"], "nowhere"),
        (["view", "none.jsonl"], "none.jsonl"),
        (["scenes", "-o", "{folder}/s", "--size", "huge"], "WIDTHxHEIGHT"),
        (["scenes", "-o", "{folder}/s", "--size", "4000x100"], "out of range"),
    ],
)
def test_bad_input_is_one_sentence_and_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"picture": picture(tmp_path), "folder": str(tmp_path)}
    assert main([argument.format(**names) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert said[0].startswith("cof ")


def test_a_damaged_image_is_bad_input(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(picture(tmp_path)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trajectory.jsonl").write_text("an earlier answer")
    broken = shutil.copytree(model, tmp_path / "model")  # which cannot be loaded: the image is looked at first
    (broken / "model.safetensors").write_bytes(b"")
    assert main(["ask", str(tmp_path / "cut.png"), "What?", "--model", str(broken), "-o", str(tmp_path / "out")]) == 2
    assert "cut.png" in capsys.readouterr().err
    assert (tmp_path / "out" / "trajectory.jsonl").read_text() == "an earlier answer"
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    "arguments", [["ask"], ["ask", "a", "b", "--max-zooms", "-1"], ["scenes", "-o", "x", "--samples", "many"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_an_answer_about_a_picture_that_nano_does_not_know_is_marked(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["ask", picture(tmp_path), "Is it red?", "-o", str(tmp_path / "out")])
    shown = capsys.readouterr()
    (said,) = (line for line in shown.err.splitlines() if line.startswith("cof: "))
    for words in ("nano can only answer about the scenes", "--model Qwen/", "downloaded from the hub", "--base-url"):
        assert words in said
    assert shown.out.count("unreliable nano can only answer about the scenes") == 1
    (trajectory,) = read_jsonl(tmp_path / "out" / "trajectory.jsonl", Trajectory)
    assert trajectory.warning is not None and trajectory.warning in said
    assert trajectory.warning in (tmp_path / "out" / "report.html").read_text()
    main(["ask", picture(tmp_path), "Is it red?", "--json", "--quiet"])
    assert json.loads(capsys.readouterr().out)["warning"] == trajectory.warning


def test_an_answer_about_a_scene_is_not_marked(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first, *_) = read_jsonl(scenes / "samples.jsonl", Sample)
    main(["ask", str(scenes / first.image), "What?", "--max-tokens", "2", "--json"])
    shown = capsys.readouterr()
    assert "nano knows" not in shown.err
    assert json.loads(shown.out)["warning"] is None


def test_an_answer_that_is_none_of_the_choices_is_said_to_be_none(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_) = read_jsonl(scenes / "samples.jsonl", Sample)
    asked = ["ask", str(scenes / first.image), first.question]
    assert main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert main([*asked, "--choice", "a spoon", "--choice", "a fork"]) == 0
    assert "none: the answer is none of the 2 choices" in capsys.readouterr().out
    assert main([*asked, "--choice", "a spoon", "--choice", answer]) == 0
    assert "none:" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["eval", "rollout", "collect"])
def test_samples_of_ones_own_are_marked_one_by_one(
    command: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One drawn scene, and a picture that lies beside a samples.jsonl as drawn ones do."""
    scene = replace(next(iter(read_jsonl(scenes / "samples.jsonl", Sample))), id="scene")
    own = Sample("own", picture(tmp_path), "Is it red?", ("no",), boxes=(Box(1, 1, 20, 20),))
    data = tmp_path / "samples.jsonl"
    data.write_text(to_json(replace(scene, image=str(scenes / scene.image))) + "\n" + to_json(own) + "\n")
    output = tmp_path / "out"
    options = ["--plays", "2"] if command == "rollout" else []
    assert main([command, "--data", str(data), "-o", str(output), *options]) in (0, 1)
    assert "Of these 2 pictures 1 are not known to be among them" in capsys.readouterr().err
    names = ["trajectories.jsonl", "rejected.jsonl"] if command == "collect" else ["trajectories.jsonl"]
    found = [one for name in names for one in read_jsonl(output / name, Trajectory)]
    assert {one.sample.id: one.warning is not None for one in found} == {"scene": False, "own": True}
    if command != "collect":
        assert json.loads((output / "summary.json").read_text())["unreliable"] == len(found) // 2


def test_the_python_agent_warns_and_marks(scenes: Path, tmp_path: Path) -> None:
    agent = Agent("nano", max_tokens=2)
    with pytest.warns(UnknownPicture, match="nano can only answer"):
        found = agent.ask(picture(tmp_path), "Is it red?")
    assert found.warning is not None and "Unreliable: nano can only" in notebook_html(found)
    with pytest.warns(UnknownPicture, match="Of these 4 pictures 1"):
        agent.ask_many([*read_samples(scenes), found.sample], progress=False)
    with warnings.catch_warnings(action="error", category=UnknownPicture):
        agent.ask_many(read_samples(scenes), progress=False)
        other = ScriptedPolicy(["<answer>no</answer>"], name="mine", limits=agent.policy.limits)
        assert Agent(policy=other).ask(found.sample.image, "Is it red?").warning is None


def test_collect_without_boxes_says_at_once_that_its_locator_needs_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Sample("own", picture(tmp_path), "Is it red?", ("no",))
    data = tmp_path / "samples.jsonl"
    data.write_text(to_json(own) + "\n")
    command = ["collect", "--data", str(data), "-o", str(tmp_path / "out")]
    assert main([*command, "--describer", "/no/such/model"]) == 2
    said = capsys.readouterr().err
    assert "none of them has any; name a model that finds things" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main([*command, "--teacher", "/no/such/model"]) == 2
    assert "no/such/model" in capsys.readouterr().err, "another locator needs no boxes"


def test_eval_writes_what_it_prints_and_goes_on_where_it_stopped(
    model: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "eval",
        "--data",
        str(scenes),
        "-o",
        str(tmp_path),
        "--model",
        model,
        "--max-tokens",
        "4",
        "--max-zooms",
        "1",
    ]
    assert main([*command, "--samples", "2"]) == 0
    first = (tmp_path / "trajectories.jsonl").read_text().splitlines()
    assert main(command) == 0
    assert (tmp_path / "trajectories.jsonl").read_text().splitlines()[:2] == first
    summary = json.loads((tmp_path / "summary.json").read_text())
    keys = {"n", "accuracy", "accuracy_ci95", "target_hit_rate", "mean_zooms", "tokens_in", "tokens_out", "seconds"}
    keys |= {"image_tokens", "image_tokens_full"}
    keys |= {"malformed_rate", "stop_reasons", "by_category", "by_resolution", "by_zooms_needed"}
    assert keys | {"command", "versions", "seed"} <= set(summary)
    assert summary["n"] == 3
    assert set(summary["by_category"]) == {"direct_attributes", "relative_position", "nested"}
    assert keys - {"by_category", "by_resolution", "by_zooms_needed"} <= set(summary["by_resolution"]["to 512"])
    assert main(["view", str(tmp_path / "trajectories.jsonl"), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert "accuracy" in capsys.readouterr().out


def test_every_question_is_asked_at_every_resolution(model: str, scenes: Path, tmp_path: Path) -> None:
    command = ["eval", "--data", str(scenes), "--samples", "2", "--resolutions", "112,224", "-o", str(tmp_path)]
    command += ["--model", model, "--max-tokens", "4", "--max-zooms", "1"]
    assert main(command) == 0
    written = (tmp_path / "trajectories.jsonl").read_text()
    found = list(read_jsonl(tmp_path / "trajectories.jsonl", Trajectory))
    assert [one.overview and one.overview.shown_size.width for one in found] == [112, 224] * 2
    assert {one.resolution for one in found} == {112, 224}
    by_resolution = json.loads((tmp_path / "summary.json").read_text())["by_resolution"]
    assert {row: figures["n"] for row, figures in by_resolution.items()} == {"112": 2, "224": 2}
    assert main(command) == 0  # each is held against the settings of its own resolution
    assert (tmp_path / "trajectories.jsonl").read_text() == written
    assert main([*command[:-2], "--max-tokens", "5", "--max-zooms", "1"]) == 2
    assert main([*command, "--resolutions", "112,112"]) == 2


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from cof_agent.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'langgraph', 'trl', 'pydantic'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_ctrl_c_during_an_import_is_an_interruption_too(tmp_path: Path) -> None:
    code = """
import sys
from cof_agent import cli
def interrupted(*given): exec("raise KeyboardInterrupt")
cli.importlib.import_module = interrupted
sys.exit(cli.main(["scenes", "-o", "out"]))
"""
    (tmp_path / "started.py").write_text(code)
    done = subprocess.run([sys.executable, "-m", "started"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (130, 2), done


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cof_agent.cli",
        "scenes",
        "-o",
        str(tmp_path),
        "--samples",
        "500",
        "--size",
        "448x252",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background ignores it
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("images/*.png")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.strip().endswith("interrupted; what was done is kept.")
    for path in tmp_path.glob("images/*.png"):
        Image.open(path).load()
