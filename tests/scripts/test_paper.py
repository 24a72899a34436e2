"""The whole paper by one command: what is refused, what a plan says, and that stages go on and are skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cof_agent.errors import InputError
from tests.scenes.shared import Scenes

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import paper
from paper_stages import Stage, launched

ROOT = Path(__file__).parents[2]
TINY = ("--questions", "8", "--start", "32", "--played", "12", "--tested", "1", "--steps", "1")
COMMANDS = ("scenes", "sft", "measure", "sft", "scenes", "rollout", "rl", "scenes", *["measure"] * 5, "compare")
"""Of nano's stages."""


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_what_is_wrong_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in {
        "9b": "choose from",
        "nano --data outputs/mine": "--data is not for nano.",
        "nano --collect=--teacher": "--collect is not for nano.",
        "nano --teste 3": "did you mean --tested?",
        "nano --steps 0": "at least 1",
        "7b --start 16": "--start is not for 7b.",
        "7b --collect=--teacher": "--collect is not for 7b without --data.",
        "3b --data outputs/mine": "say who teaches",
        "nano --rl=--max-stepz=3": "rl: there is no setting max_stepz; did you mean max_steps?",
        "nano --play=--temparature=1": "did you mean --temperature?",
        "nano --sft='": "a quotation mark of --sft is not closed",
    }.items():
        assert paper.main(words.split()) == 2, words
        said = capsys.readouterr().err
        assert said.startswith("paper.sh: ") and sentence in said and said.count("\n") == 1, words


def test_a_plan_of_nano_shows_each_command_and_runs_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert paper.main(["nano", "--plan", "-o", str(tmp_path / "new"), *TINY]) == 0
    said = capsys.readouterr().out
    assert "nothing is missing" in said and not (tmp_path / "new").exists()
    shown = [line.split() for line in said.splitlines() if line.startswith("  ")]
    assert tuple("measure" if words[0] == "bash" else words[1] for words in shown) == COMMANDS


@pytest.mark.slow
def test_a_plan_names_all_that_is_missing(drawn: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", "nowhere.jsonl", "--test", str(drawn(3)), "--model", str(tmp_path / "none")]
    teacher = "--collect=--teacher openai:big --base-url http://127.0.0.1:9/v1"
    assert paper.main(["3b", "--plan", "-o", str(tmp_path / "new"), *given, teacher]) == 2
    said = capsys.readouterr()
    missing = [line for line in said.err.splitlines() if line.startswith("missing: ")]
    for part in ("server does not answer", "nowhere.jsonl", f"there is no model directory {tmp_path}/none"):
        assert sum(part in line for line in missing) == 1, said.err
    assert f"missing: {len(missing)}" in said.out.splitlines()
    assert "cof merge" in said.out


def appending(folder: Path, *names: str) -> list[Stage]:
    """Stages that each add a line to a file in their folder."""
    made = "mkdir -p {0} && echo ran >> {0}/log"
    return [Stage(name, ("bash", "-c", made.format(folder / name))) for name in names]


def lines_of(folder: Path, *names: str) -> list[int]:
    """How often each stage has run."""
    return [len((folder / name / "log").read_text().splitlines()) for name in names]


def test_stages_with_a_result_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = appending(tmp_path, "first", "runs/second", "third")
    failing = Stage("runs/second", ("bash", "-c", f"{second.command[2]} && [ -e {tmp_path}/mended ]"))
    assert paper.run([first, failing, third], tmp_path) == 1
    assert "runs/second ended with 1" in capsys.readouterr().err and not (tmp_path / "third").exists()
    (tmp_path / "mended").touch()
    assert paper.run([first, failing, third], tmp_path) == 0
    said = capsys.readouterr().out
    assert "first: skipped" in said and "second: skipped" not in said
    assert lines_of(tmp_path, "first", "runs/second", "third") == [1, 2, 1]
    assert paper.run([first, failing, third], tmp_path) == 0
    assert capsys.readouterr().out.count("skipped") == 3


def test_a_folder_that_appears_whole_needs_no_mark(tmp_path: Path) -> None:
    (made,) = appending(tmp_path, "merged")
    paper.run([made], tmp_path)
    (tmp_path / "done" / "merged").unlink()  # as if killed in between
    assert paper.run([Stage(made.name, made.command, whole=True)], tmp_path) == 0
    assert lines_of(tmp_path, "merged") == [1]


def test_results_of_other_commands_are_refused(tmp_path: Path) -> None:
    stages = appending(tmp_path, "first", "second", "third")
    paper.run(stages, tmp_path)
    other = Stage("second", ("bash", "-c", "true"))
    with pytest.raises(InputError, match="second was made by another command"):
        paper.run([stages[0], other, stages[2]], tmp_path)
    (tmp_path / "done" / "second").unlink()
    with pytest.raises(InputError, match="second is missing, and these came after it; remove them, too: .*third$"):
        paper.run(stages, tmp_path)
    assert lines_of(tmp_path, "first", "second", "third") == [1, 1, 1]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with paper._alone(tmp_path), pytest.raises(InputError, match="at work"):
        paper.run(appending(tmp_path, "first"), tmp_path)


def test_a_terminated_run_ends_its_stage(tmp_path: Path) -> None:
    asking = f"mkdir {tmp_path}/first; echo $$ > {tmp_path}/first/log; while :; do kill -TERM $PPID; sleep 0.05; done"
    assert paper.run([Stage("first", ("bash", "-c", asking))], tmp_path) == 128 + 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "first" / "log").read_text()), 0)


def test_slurm_gives_trainings_all_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = "sft/configs/chain-of-focus-7b-lora.yaml"
    words = ("--config", config, "--data", "b", "--processes", "8", "-o", "c")
    for command in (("cof", "sft", *words), ("cof", "rl", *words), ("cof", "merge", "c", "-o", "d")):
        assert launched(command) == command
    monkeypatch.setenv("SLURM_NNODES", "2")
    served, as_many = "rl/configs/qwen2.5-vl-7b-2node-server.yaml", "--gradient-accumulation-steps"
    assert list(launched(("cof", "sft", *words))) == [*slurm("sft", config), as_many, "2"]
    assert list(launched(("cof", "rl", *words))) == slurm("grpo", served)
    one = ("cof", "sft", "--config", config, "--processes", "1")
    assert launched(one) == one
    monkeypatch.setenv("SLURM_NNODES", "3")
    assert list(launched(("cof", "rl", *words))) == [*slurm("grpo", served), as_many, "3"]
    with pytest.raises(InputError, match="accumulates 4 steps, which 3 machines cannot share evenly"):
        launched(("cof", "sft", *words))
    assert list(launched(("cof", "sft", *words, as_many, "7"))) == [*slurm("sft", config), as_many, "7"]


def slurm(script: str, config: str) -> list[str]:
    path = f"scripts/slurm/{script}.sbatch"
    assert (ROOT / path).exists()
    return ["bash", path, config, "--data", "b", "-o", "c"]


@pytest.mark.slow
def test_a_plan_of_a_checkpoint_reckons_steps_and_memory(
    drawn: Scenes, weightless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = str(drawn(6, split="train", seed=5))
    given = ("--data", scenes, "--test", scenes, "--model", str(weightless), "--collect=--teacher nano")
    few = "--rl=--gradient-accumulation-steps 6"
    paper.main(["3b", "--plan", "-o", str(tmp_path / "new"), *given, few])
    said = capsys.readouterr()
    rows = {name: line for line in said.out.splitlines() for name in ("sft", "rl") if line.startswith(f"{name}: ")}
    assert "steps 3: 3.00 epochs of 1; a step 32 = 1 a device x 1 process x 32 accumulated" in rows["sft"]
    assert "steps 1: 1.00 epochs of 1; a step 24 = 4 a device x 1 process x 6 accumulated" in rows["rl"]
    assert "GiB of a GPU: " in rows["sft"] and "in play" in rows["rl"]
    assert "disk, GiB: " in said.out and not (tmp_path / "new").exists()
    assert not [line for line in said.err.splitlines() if "missing: sft" in line or "missing: rl" in line], said.err


@pytest.mark.slow
def test_nano_goes_through_the_whole_paper(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = (
        "--sft=--threads 1",
        "--rl=--per-device-train-batch-size 8 --gradient-accumulation-steps 1 --num-generations 4 --threads 1",
    )
    command: Sequence[str] = ["nano", "-o", str(tmp_path), *TINY, *few]
    assert paper.main(command) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    assert said.count(": done in ") == len(COMMANDS)
    assert [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│ ") and "rl" in line]
    assert (tmp_path / "compared" / "report.html").exists()
    assert paper.main(command) == 0
    assert capfd.readouterr().out.count(": skipped, ") == len(COMMANDS)
