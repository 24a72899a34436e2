"""The progress of a training: one line for each entry of its log, which fits the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from cof_agent.training.progress import GRADIENT, PACE, RATE, REPEATED, Column, ProgressTable, progress, told
from rl.measures import columns

ENTRY = {
    "loss": 0.1,
    "grad_norm": 0.25,
    "learning_rate": 1e-6,
    "accuracy": 0.5,
    "rewards/accuracy/mean": 0.5,
    "rewards/short/mean": 0.75,
    "reward": 1.25,
    "zooms/mean": 0.875,
    "completions/mean_length": 321.4,
    "entropy": 0.14,
    "num_tokens": 1000.0,
}
RL = columns(["accuracy", "format", "my_rewards:short"])


def write(table: ProgressTable, entries: list[dict[str, Any]], *, steps: int) -> None:
    """A training of so many steps that logs one entry after each of the first ones."""
    args = TrainingArguments(output_dir="unused", report_to=[], use_cpu=True)
    state, control = TrainerState(max_steps=steps), TrainerControl()
    table.on_train_begin(args, state, control)
    for state.global_step, entry in enumerate(entries, 1):
        table.on_step_end(args, state, control)
        table.on_log(args, state, control, logs=entry)
    table.on_train_end(args, state, control)


def shown(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_line_has_the_figures_that_say_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    plugin = {"rewards/my_rewards:short/mean": None}
    write(ProgressTable(RL), [ENTRY | {"rewards/my_rewards:short/mean": 0.75}, ENTRY | plugin], steps=120)
    head, first, second = shown(capsys)
    assert head == ["step", "left", "reward", "accuracy", "short", "zooms", "length", "lr", "s/step", "entropy", "grad"]
    assert first[:1] + first[2:8] == ["1/120", "1.250", "0.500", "0.750", "0.88", "321", "1.0e-06"]
    assert second[0] == "2/120" and second[4] == "-"  # what could not be scored
    assert second[-1] == "0.25"


def test_the_head_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    write(ProgressTable(RL), [ENTRY] * (2 * REPEATED + 1), steps=99)
    assert [number for number, line in enumerate(shown(capsys)) if line[0] == "step"] == [
        0,
        REPEATED + 1,
        2 * REPEATED + 2,
    ]
    write(ProgressTable(RL), [ENTRY, ENTRY, ENTRY | {"kl": 0.5}], steps=99)  # a figure that was not there at first
    heads = [line for line in shown(capsys) if line[0] == "step"]
    assert ["kl" in head for head in heads] == [False, True]


def test_columns_fit_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    entry = ENTRY | {"rewards/format/mean": 1.0, "kl": 0.00012345}
    for width, last in (("50", "format"), ("80", "lr"), ("120", "grad")):
        monkeypatch.setenv("COLUMNS", width)
        write(ProgressTable(RL), [entry], steps=1000)
        lines = capsys.readouterr().out.splitlines()
        assert {len(line) for line in lines} == {len(lines[0])} and len(lines[0]) <= int(width)
        assert lines[0].split()[-1] == last


def test_tokens_are_counted_by_the_second(capsys: pytest.CaptureFixture[str]) -> None:
    write(ProgressTable([Column("tokens/s", "tokens/second", ".0f")]), [ENTRY, ENTRY | {"num_tokens": 3000}], steps=2)
    head, first, second = shown(capsys)
    assert head[-1] == "tokens/s" and min(float(first[-1]), float(second[-1])) > 0


def test_other_entries_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = {"eval_accuracy": 0.51234, "eval_crop_gain": 0.25, "epoch": 0.5}
    assert told(evaluated, 20) == "evaluation at step 20: accuracy 0.512, crop gain 0.25"
    ended = {"train_runtime": 3723.4, "train_loss": 0.071234, "total_flos": 0.0, "epoch": 1.0}
    assert told(ended, 125) == "trained to step 125 in 1:02:03, mean loss 0.07123"
    assert progress([RATE, PACE, GRADIENT], quiet=True) == []
