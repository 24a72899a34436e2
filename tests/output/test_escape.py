"""Text of models, data and files is shown escaped: on the terminal, in cells of CSV, and in Markdown."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table

from cof_agent.cli import main
from cof_agent.commands import ask
from cof_agent.graphs.steps import Saw, Spoke
from cof_agent.output import terminal
from cof_agent.output.escape import for_csv, for_markdown, for_terminal
from cof_agent.protocol import parse, thought, write_answer
from cof_agent.trajectory import Observation, Turn, from_json, to_json
from cof_agent.trajectory import Sample as Task
from tests.scenes.shared import Scenes

ATTACK = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\u2066 [red]no markup[/] :bomb: \r\x08x"
SHOWN = "\\u001b[2J\\u001b]0;owned\\u0007\\u009b31m\\u202egnp.exe\\u2066 [red]no markup[/] :bomb: \\u000d\\u0008x"


def harmless(text: str) -> bool:
    return text.isascii() and all(letter.isprintable() or letter == "\n" for letter in text)


def test_control_characters_overrides_and_half_surrogates_are_escaped() -> None:
    assert for_terminal(ATTACK) == SHOWN
    assert for_terminal("a\nb\t\ud800\u2028") == "a\\u000ab\\u0009\\ud800\\u2028"
    assert for_terminal("a\nb\tc\r", lines=True) == "a\nb\tc\\u000d"
    kept = "Grüße, 図, שלום, नमस्ते, 👨‍👩‍👧, C:\\new"
    assert for_terminal(kept) == kept


def test_json_is_the_same_json() -> None:
    sample = Task("1", "a.png", ATTACK)
    assert from_json(for_terminal(to_json(sample)), Task) == sample


def test_every_kind_of_print_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal.console()
    table = Table(title=ATTACK)
    table.add_column(ATTACK, no_wrap=True)
    table.add_row(ATTACK)
    console.print(table)
    console.print(ATTACK, soft_wrap=True)
    console.print(terminal.styled((ATTACK, "bold"), ATTACK), soft_wrap=True)
    shown = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert shown.count(SHOWN) >= 5 - 1, "the title may be wrapped"
    assert "\x1b" not in shown and "[red]" in shown and ":bomb:" in shown


def test_what_the_model_says_and_sees_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console, text = terminal.console(), write_answer(ATTACK, ATTACK)
    turn = Turn(text, parse(text))
    ask._show(console, Spoke(0, turn, thought(text)))
    ask._show(console, Saw(0, turn.actions, (Observation(error=ATTACK), Observation(text=ATTACK))))
    ask._show_choice(console, "B", ("red", ATTACK))
    shown = capsys.readouterr().out
    assert harmless(shown)
    assert shown.count(SHOWN) == 5
    assert [line.split()[0] for line in shown.splitlines()] == ["turn", "answer", "refused", "tool", "choice"]


def test_file_names_and_arguments_in_errors_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31m\nred\u202e.png"
    os.mkfifo(tmp_path / name)
    for arguments in (
        ["ask", str(tmp_path / name), "What?"],
        ["ask", f"{tmp_path}/none{ATTACK}", "What?"],
        ["view", str(tmp_path / f"{name}.jsonl")],
        ["view", "a", f"--{name}"],
        [name],
        ["eval", "--data", name, "-o", str(tmp_path)],
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert harmless(shown) and shown.count("\n") == 1, shown


def test_a_table_of_categories_is_escaped(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    sample = Task("1", "a.png", "What?", ("x",), metadata={"category": "\x1b[2J[red]"})
    (tmp_path / "samples.jsonl").write_text(to_json(sample) + "\n")
    command = ["eval", "--data", str(tmp_path), "-o", str(tmp_path / "out"), "--max-tokens", "2"]
    assert main([*command, "--model", str(checkpoint("qwen2_5_vl"))]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "category \\u001b[2J" in shown


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_of_csv_begins_a_formula(begin: str) -> None:
    assert for_csv(f"{begin}cmd|'/c calc'!A0") == f"'{begin}cmd|'/c calc'!A0"
    assert for_csv("plain") == "plain"
    assert for_csv(-0.5) == -0.5


def test_markdown_shows_the_text_itself() -> None:
    assert for_markdown("a|b") == r"a\|b"
    assert for_markdown("[x](javascript:1) <img onerror=1> `c` *b* # h") == (
        r"\[x\](javascript:1) \<img onerror=1> \`c\` \*b\* \# h"
    )
    assert for_markdown("run_a _b_ < 0.001\n\x1b") == r"run_a \_b\_ < 0.001 \\u001b"


def test_names_of_runs_are_escaped_in_the_tables_of_a_comparison(
    drawn: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "--data", str(drawn(2)), "-o", str(tmp_path / "base"), "--max-tokens", "2"]
    assert main(command) == 0
    monkeypatch.chdir(tmp_path)
    names = ["=cmd()|x", "-1\x1b[2J"]
    for name in names:
        shutil.copytree("base", name)
    capsys.readouterr()
    assert main(["compare", "-o", "out", "--", "base", *names]) == 0
    assert "\x1b" not in capsys.readouterr().out
    rows = list(csv.reader(io.StringIO(Path("out/comparison.csv").read_text())))
    assert {row[0] for row in rows[1:]} == {f"'{name}" for name in names}
    text = Path("out/comparison.md").read_text()
    assert r"=cmd()\|x" in text and "\x1b" not in text
    assert json.loads(Path("out/comparison.json").read_text())["others"].keys() == set(names)
