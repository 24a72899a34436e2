"""What a command leaves in its folder: runs that have finished, runs in which all failed, and folders that cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cof_agent.cli import main
from cof_agent.trajectory import JsonlAppender, Sample, StopReason, Trajectory, read_jsonl

Run = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path, picture: Path) -> Path:
    rows = [{"id": str(k), "image": str(picture), "question": f"What is {k}?", "answers": ["it"]} for k in range(4)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def model(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint of this test's own."""
    return Path(shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "model"))


@pytest.fixture
def run(data: Path, model: Path) -> Run:
    """A command on the samples with a tiny model, into `out`."""

    def once(command: str, *options: str) -> int:
        given = ["--data", str(data), "-o", str(data / "out"), "--model", str(model), "--max-tokens", "4"]
        return main([command, *given, *options])

    return once


def summary(data: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((data / "out" / "summary.json").read_text())
    return found


@pytest.mark.parametrize("command", ["eval", "rollout"])
def test_a_finished_run_says_so_without_a_model(
    run: Run, command: str, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plays = ["--plays", "2"] if command == "rollout" else []
    assert run(command, *plays) == 0
    written = (data / "out" / "trajectories.jsonl").read_bytes()
    first = summary(data)
    (model / "config.json").rename(model / "gone.json")  # whatever loads the model fails
    capsys.readouterr()
    assert run(command, *plays) == 0
    count = 4 * len(plays or [1])
    assert f"{count} of {count} done already." in capsys.readouterr().err
    assert (data / "out" / "trajectories.jsonl").read_bytes() == written
    assert summary(data) | {"command": ""} == first | {"command": ""}


def test_other_settings_are_named_with_both_values(
    run: Run, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", "--max-zooms", "2") == 0
    capsys.readouterr()
    assert run("eval", "--max-zooms", "3", "--seed", "5") == 2
    assert "max_zooms was 2 and is now 3, seed was null and is now 5; use another folder." in capsys.readouterr().err
    weights = model / "model.safetensors"
    os.utime(weights, (1, 1))  # only looked at again
    assert run("eval", "--max-zooms", "2") == 0
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert run("eval", "--max-zooms", "2") == 2
    assert 'weights was "sha256:' in capsys.readouterr().err


def test_settings_without_results_bind_nobody(run: Run, data: Path) -> None:
    (data / "out").mkdir()
    (data / "out" / "settings.json").write_text(json.dumps({"max_zooms": 9}))
    assert run("eval") == 0
    assert json.loads((data / "out" / "settings.json").read_text())["max_zooms"] == 6


def test_a_failed_run_is_1_and_says_why(
    run: Run, data: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (data / "samples.jsonl").read_text()
    (data / "half.png").write_bytes(picture.read_bytes()[:400])
    whole = rows.replace(str(picture), str(data / "half.png"))
    (data / "samples.jsonl").write_text(whole)
    for command in ("eval", "rollout", "spots"):
        options = ["--data", str(data), "-o", str(data / command), "--model", str(data / "model")]
        assert main([command, *options]) == 1
        said = capsys.readouterr().err
        count = 32 if command == "rollout" else 4
        assert f"{count} of {count} failed ({count} by image)" in said and "half.png: it is damaged" in said
        assert json.loads((data / command / "summary.json").read_text())["errors"] == {"image": count}
    (data / "samples.jsonl").write_text(rows)


def test_a_run_in_which_some_failed_is_0_and_asks_those_again(
    run: Run, data: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (data / "samples.jsonl").read_text().splitlines(keepends=True)
    gone = data / "half.png"
    gone.write_bytes(picture.read_bytes()[:400])
    (data / "samples.jsonl").write_text("".join(rows[:3]) + rows[3].replace(str(picture), str(gone)))
    assert run("eval") == 0
    said = capsys.readouterr().err
    assert "1 of 4 failed (1 by image) and count as wrong; the same command tries them again." in said
    assert summary(data)["errors"] == {"image": 1}
    shutil.copy(picture, gone)
    assert run("eval") == 0
    assert summary(data)["errors"] == {} and "failed" not in capsys.readouterr().err
    found = list(read_jsonl(data / "out" / "trajectories.jsonl", Trajectory))
    assert len(found) == 4 and all(one.stop is not StopReason.ERROR and one.failure is None for one in found)


def test_collect_in_which_all_failed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--base-url", "http://127.0.0.1:9/v1", "--timeout", "0.1", "--retry-seconds", "0"]
    options = ["--teacher", "openai:gpt-x", "--coordinates", "thousand", *server]
    command = ["collect", "--data", str(data), "-o", str(data / "out"), *options, "--samples", "1"]
    assert main(command) == 1
    assert "1 of 1 failed (1 by model) and are rejected" in capsys.readouterr().err
    assert summary(data)["errors"] == {"model": 1}


@pytest.mark.parametrize("command", ["eval", "rollout", "collect", "spots", "scenes", "regions", "ask", "view"])
def test_a_file_in_place_of_the_folder(
    command: str, data: Path, model: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "file").write_text("kept")
    out = str(data / "file")
    given = {
        "scenes": ["-o", out, "--samples", "1", "--size", "448x252"],
        "regions": ["drawn", "-o", out, "--samples", "1"],
        "ask": [str(picture), "What?", "--model", str(model), "--max-tokens", "2", "-o", out],
        "view": [str(data / "t.jsonl"), "-o", f"{out}/page.html"],
        "collect": ["--data", str(data), "-o", out, "--locator", "nano"],
        "spots": ["--data", str(data), "-o", out, "--model", str(model)],
    }.get(command, ["--data", str(data), "-o", out, "--model", str(model), "--max-tokens", "2"])
    if command == "view":
        with JsonlAppender(data / "t.jsonl") as file:
            file.append(Trajectory(Sample("a", str(picture), "?"), None, (), StopReason.ERROR, error="none"))
    assert main([command, *given]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"cof {command}:")]
    assert len(said) == 1 and "file" in said[0]
    assert (data / "file").read_text() == "kept"


@pytest.mark.slow
def test_a_full_disk_in_the_middle_of_a_run(data: Path, model: Path) -> None:
    """One sentence, code 2, and the same command with room gives the result of an undisturbed run."""
    command = ["eval", "--data", str(data), "--model", str(model), "--max-tokens", "4", "--concurrency", "1"]
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", sys.executable, "-m", "cof_agent.cli", *command]  # to 4 KiB
    out, calm = data / "full" / "trajectories.jsonl", data / "calm" / "trajectories.jsonl"
    full = subprocess.run([*limited, "-o", str(out.parent)], capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    assert "make room there, and give the same command again" in full.stderr and "Traceback" not in full.stderr
    assert 0 < len(list(read_jsonl(out, Trajectory))) < 4 and out.read_bytes().endswith(b"\n")
    for path in (out, calm):
        assert main([*command, "-o", str(path.parent)]) == 0
    timeless = [
        [(one.key, one.answer, one.stop, [turn.text for turn in one.turns]) for one in read_jsonl(path, Trajectory)]
        for path in (out, calm)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.slow
def test_stdout_on_a_full_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cof_agent.cli", "scenes", "-o", str(tmp_path), "--samples", "1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, "--size", "448x252"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "cof scenes: No space left on device.\n")


def test_a_second_run_into_the_same_folder_is_refused(run: Run, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with JsonlAppender(data / "out" / "trajectories.jsonl"):
        started = time.monotonic()
        assert run("eval") == 2
        assert time.monotonic() - started < 30
    assert "another run is writing to" in capsys.readouterr().err
    assert run("eval") == 0


def test_collect_replaces_no_trajectories_of_another_command(
    run: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval") == 0
    written = (data / "out" / "trajectories.jsonl").read_bytes()
    assert main(["collect", "--data", str(data), "-o", str(data / "out"), "--locator", "nano"]) == 2
    assert "was written by another command, or by version 0.1" in capsys.readouterr().err
    assert (data / "out" / "trajectories.jsonl").read_bytes() == written


def test_eval_adds_nothing_to_results_of_another_command(
    run: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "out").mkdir()
    (data / "out" / "trajectories.jsonl").write_text("{}\n")  # as of `cof collect`
    assert run("eval") == 2
    assert (
        "trajectories.jsonl was written by another command, or an earlier version; use another"
        in capsys.readouterr().err
    )
    assert (data / "out" / "trajectories.jsonl").read_text() == "{}\n"


def test_questions_of_an_earlier_run_are_mentioned(run: Run, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval") == 0
    assert "also holds" not in capsys.readouterr().err
    assert run("eval", "--samples", "1") == 0
    assert "also holds 3 trajectories of other questions" in capsys.readouterr().err


def test_other_questions_are_not_mixed_into_a_run(
    run: Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval") == 0
    before = (data / "out" / "trajectories.jsonl").read_bytes()
    lines = (data / "samples.jsonl").read_text().splitlines()
    others = [json.loads(line) | {"id": f"other-{number}"} for number, line in enumerate(lines)]
    (data / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in others))
    capsys.readouterr()
    assert run("eval") == 2
    assert (
        f"holds {len(lines)} trajectories of other questions, and lacks {len(lines)} of these"
        in capsys.readouterr().err
    )
    assert (data / "out" / "trajectories.jsonl").read_bytes() == before


RULES = """
from cof_agent import scoring

def half(trajectory):
    return 0.5

def two(trajectory):
    return 2.0

def boom(trajectory):
    raise KeyError("oops")
"""


def test_a_rule_that_is_wrong_is_a_sentence_and_the_run_stays(
    run: Run, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "own_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(data)
    assert run("eval", "--scoring", "own_rules:two") == 2
    assert "own_rules:two returns 2.0 for sample 0; it must return 0 to 1, or None." in capsys.readouterr().err
    assert run("eval", "--scoring", "own_rules:boom") == 2
    assert "own_rules:boom fails with KeyError ('oops') for sample 0" in capsys.readouterr().err
    assert run("eval", "--scoring", "own_rules:half") == 0
    assert "4 of 4 done already" in capsys.readouterr().err and summary(data)["accuracy"] == 0.5
    shutil.copytree(data / "out", data / "again")
    assert main(["compare", str(data / "out"), str(data / "again"), "-o", str(data / "compared")]) == 0
    assert "out was scored by own_rules:half" in capsys.readouterr().out


def test_regions_replace_no_samples(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (data / "samples.jsonl").read_bytes()
    assert main(["regions", "drawn", "-o", str(data), "--samples", "1"]) == 2
    assert "samples.jsonl holds something else; use another output folder" in capsys.readouterr().err
    assert (data / "samples.jsonl").read_bytes() == before and not (data / "images").exists()


def test_a_split_and_a_column_that_are_not_there_are_refused(
    run: Run, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", "--split", "val") == 2
    assert "holds one set, samples.jsonl, so that there is no split val; leave it out." in capsys.readouterr().err
    assert run("eval", "--column", "question=text") == 2
    assert "no column can be named; leave --column out" in capsys.readouterr().err
    (data / "scenes.json").write_text(json.dumps({"split": "val"}))
    assert run("eval", "--split", "val", "--samples", "1") == 0


def test_where_ask_writes_is_looked_at_first(data: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "file").write_text("")
    assert main(["ask", str(picture), "What?", "--model", "nowhere/model", "-o", str(data / "file" / "out")]) == 2
    assert "a file stands where a folder is needed" in capsys.readouterr().err


class TestScenes:
    small = ("--size", "224x126", "--processes", "1", "--parts", "0.2")

    def test_other_scenes_are_refused_unless_they_are_to_go(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["scenes", "-o", str(tmp_path), *self.small]
        assert main([*command, "--samples", "2"]) == 0
        first = (tmp_path / "samples.jsonl").read_bytes()
        for more, said in (
            (["--samples", "2", "--seed", "7"], "seed was 0 and is now 7"),
            (["--samples", "2", "--split", "hard"], 'split was "test" and is now "hard"'),
            (["--samples", "1"], "samples was 2 and is now 1"),
        ):
            capsys.readouterr()
            assert main([*command, *more]) == 2
            assert said in capsys.readouterr().err
            assert (tmp_path / "samples.jsonl").read_bytes() == first
        assert main([*command, "--samples", "3"]) == 0
        assert (tmp_path / "samples.jsonl").read_bytes().startswith(first)
        assert main([*command, "--samples", "1", "--seed", "7", "--overwrite"]) == 0
        assert (tmp_path / "samples.jsonl").read_bytes().count(b"\n") == 1

    def test_samples_of_somebody_else_stay(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "samples.jsonl").write_text("mine\n")
        assert main(["scenes", "-o", str(tmp_path), "--samples", "1", *self.small]) == 2
        assert "nothing says that `cof scenes` drew them" in capsys.readouterr().err
        assert (tmp_path / "samples.jsonl").read_text() == "mine\n"
