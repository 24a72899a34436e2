"""The grammar of options: one name for one thing, in every command, with a help that says what it is."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cof_agent import cli
from cof_agent.cli import main

OTHER: dict[str, set[str]] = {
    # where a command means something of its own by an option; all other commands agree
    "--data": {"eval", "regions", "sft"},
    "--images": {"compare", "regions", "view"},  # pages look for images
    "--samples": {"regions", "scenes", "view"},
    "--split": {"regions", "scenes"},
    "--tool": {"sft", "rl"},
    "--overview-pixels": {"data"},
    "--resolutions": {"collect", "scenes", "sft", "rl"},
    "--plays": {"rollout"},
    "--concurrency": {"collect", "serve"},
    "--shard": {"collect"},
    "--temperature": {"rollout"},
    "--seed": {"collect", "data", "regions", "rollout", "scenes"},
    "--judge": {"rl"},
    "--model": {"merge", "sft", "rl"},
    "--vllm-options": {"rl"},
    "--dtype": {"merge"},
    "--download": {"sft", "rl"},  # a key of a configuration, with true or false
    "--strict": {"sft", "rl"},
    "--processes": {"scenes"},
    "--output": set(cli.COMMANDS) - {"eval"},  # each says what it writes
}


def options_of(command: str) -> Iterator[tuple[str, argparse.Action]]:
    """The long names of a command's options."""
    (commands,) = (one for one in cli.parser(command)._actions if isinstance(one, argparse._SubParsersAction))
    for action in commands.choices[command]._actions:
        yield from ((name, action) for name in action.option_strings if name.startswith("--"))


def test_an_option_is_the_same_in_every_command() -> None:
    found: dict[str, dict[str, tuple[Any, ...]]] = defaultdict(dict)
    for command in cli.COMMANDS:
        for name, action in options_of(command):
            default = None if action.default in ([], (), "") else action.default
            found[name][command] = (action.type, default, action.metavar, action.help, action.choices)
    for name, commands in found.items():
        alike = {command: what for command, what in commands.items() if command not in OTHER.get(name, ())}
        first = next(iter(alike), None)
        for command, what in alike.items():
            assert str(what) == str(alike[first or command]), f"{name} of {command} and of {first}"
        stale = {command for command in OTHER.get(name, ()) if commands.get(command) in alike.values()}
        assert not stale, f"{name} of {stale} is no different"
    assert set(OTHER) <= set(found)


def test_old_and_crooked_names_are_gone() -> None:
    names = {name for command in cli.COMMANDS for name, _ in options_of(command)}
    assert not names & {"--count", "--limit", "--runs", "--save", "--provider"}
    assert not [name for name in names if "_" in name]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_is_a_phrase_for_every_option_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, action in options_of(command):
        assert action.help and len(action.help.split()) >= 3, f"{name} of {command} has no help"
    with pytest.raises(SystemExit) as end:
        main(["help", command])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert f"example:\n  cof {command} " in shown
    assert "--quiet" in shown and "--verbose" in shown
    assert "None)" not in shown and "[]" not in shown


def test_cof_alone_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["help"], ["--help"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        shown = capsys.readouterr().out
        assert end.value.code == 0
        assert [line.split()[0] for line in shown.splitlines() if line.startswith("    ")] == [*cli.COMMANDS]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evl"], "cof: there is no command evl; did you mean eval? See `cof --help`."),
        (["eval", "--temprature", "1"], "cof eval: there is no option --temprature; did you mean --temperature? See"),
        (["scenes", "out"], "cof scenes: the following arguments are required: -o/--output. See `cof scenes --help`."),
        (["scenes", "-o", "out", "more"], "cof scenes: there is no place for more."),
        (["eval", "--benchmark", "vstar", "--column", "a=b", "-o", "o"], "a benchmark has its published layout"),
        (["ask", "a.png", "What?", "--region-crops", "--strategy", "grid"], "cannot open the image a.png"),
    ],
)
def test_what_is_misspelled_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "missing.png", "What?"],
        ["sft"],
        ["sft", "--config", "nope.yaml"],
        ["sft", "--config", "sft/configs/nano.yaml", "--learning_rat", "1e-4"],
        ["rl", "--model", "nano", "--data", "./nowhere"],
        ["eval", "--data", "nowhere.json", "-o", "out"],
        ["eval", "--data", ".", "-o", "out", "--model", "./nowhere"],
        ["collect", "--data", ".", "-o", "out", "--shard", "4/3"],
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "trl", "langgraph", "datasets")
    code = f"import sys\nfrom cof_agent.cli import main\nassert main({arguments}) == 2\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done
    assert done.stderr.count("\n") == 1


def test_parquet_without_its_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cof_agent.commands import collect

    monkeypatch.setattr(collect, "find_spec", lambda name: None)
    assert main(["collect", "--data", "x", "-o", "y", "--export", "parquet"]) == 2
    assert "--export parquet needs the package pyarrow" in capsys.readouterr().err


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    for line, expected in (
        ("cof ev", ["eval"]),
        ("cof eval --max-z", ["--max-zooms"]),
        ("cof rl --dry", ["--dry-run"]),
    ):
        answer = tmp_path / "answer"
        answer.unlink(missing_ok=True)
        asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
        asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_SHELL": "bash"}
        subprocess.run([sys.executable, "-m", "cof_agent.cli"], env=os.environ | asked, check=False)
        assert [word.strip() for word in answer.read_text().split("\n")] == expected


def test_quiet_and_verbose(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scenes", "-o", str(tmp_path / "scenes"), "--samples", "1", "--size", "896x504"]
    assert main([*command, "--quiet"]) == 0
    shown = ["eval", "--data", str(tmp_path / "scenes"), "-o", str(tmp_path / "out"), "--max-tokens", "4"]
    capsys.readouterr()
    assert main([*shown, "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert "all" in quiet.out and "category" not in quiet.out and quiet.err == ""
    (tmp_path / "config.json").write_text("{}")
    assert main(["ask", str(picture), "What?", "--model", str(tmp_path), "--verbose"]) == 2
    assert "told in a sentence" in capsys.readouterr().err
