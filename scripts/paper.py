"""The whole paper by one command: `bash scripts/paper.sh nano|3b|7b [--plan] [-o DIR]`. Runs the stages of `paper_stages.py`
one after the other; the same command continues after an interruption."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import paper_plan
from paper_stages import MEASURE, NANO, RECIPES, VSTAR, Asked, Stage, launched, stages_of

from cof_agent import cli
from cof_agent.commands.options import count
from cof_agent.commands.parser import Parser
from cof_agent.errors import InputError
from cof_agent.output.files import make_folder, write_atomic
from cof_agent.training import keys

SIZES = {"questions": 600, "start": 4800, "played": 400, "tested": 200, "steps": 125}
"""Of nano."""
OF_CHECKPOINTS = ("model", "data", "test", "benchmark", "collect")
COF = (sys.executable, "-m", "cof_agent.cli")
SIGNALLED = 128  # and the number of the signal that ended a program, is its exit code for a shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs or plans the paper; returns the exit code, 2 with a sentence for what cannot be run."""
    try:
        options = _options().parse_args(arguments)
        asked = _asked(options)
        stages = stages_of(asked)
        for stage in stages:
            _check(stage)
        if options.plan:
            return paper_plan.show(asked, stages)
        if missing := paper_plan.missing_here(asked):
            raise InputError(" ".join(missing))
        return run(stages, asked.folder)
    except InputError as error:
        print(f"paper.sh: {error}", file=sys.stderr)
        return cli.BAD_INPUT
    except KeyboardInterrupt:
        print("\npaper.sh: interrupted; the same command continues.", file=sys.stderr)
        return cli.INTERRUPTED


def _options() -> Parser:
    parser = Parser(prog="paper.sh", description="The whole paper by one command, from questions to one report.")
    parser.add_argument("recipe", choices=(NANO, *RECIPES), help="nano, or the size of a Qwen2.5-VL")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder for all results (default: outputs/paper-RECIPE)", dest="folder"
    )
    parser.add_argument(
        "--plan", action="store_true", help="run nothing; say what would run, its cost, what is missing"
    )
    real = parser.add_argument_group("3b and 7b")
    real.add_argument("--model", help="checkpoint to begin with (default: Qwen/Qwen2.5-VL-3B-Instruct or -7B-)")
    real.add_argument(
        "--data",
        metavar="SPEC",
        help="questions with known answers, for the teacher and for RL; `cof data SPEC -o DIR` makes them of any set "
        "(default: the sets of the paper's authors in data/, whose trajectories are collected already)",
    )
    real.add_argument("--test", metavar="SPEC", help="questions that are measured, or a copy of the benchmark")
    real.add_argument("--benchmark", metavar="NAME", help=f"what is measured (default: {VSTAR}, without --test)")
    sizes = parser.add_argument_group("sizes (defaults: of nano; of 3b and 7b all questions, and one epoch)")
    sizes.add_argument(
        "--questions", type=count, metavar="N", help=f"questions that the teacher is asked ({SIZES['questions']})"
    )
    sizes.add_argument(
        "--start", type=count, metavar="N", help=f"nano only: rows that make the start ({SIZES['start']})"
    )
    sizes.add_argument(
        "--played", type=count, metavar="N", help=f"questions of which the filter keeps some ({SIZES['played']})"
    )
    sizes.add_argument("--tested", type=count, metavar="N", help=f"questions that are measured ({SIZES['tested']})")
    sizes.add_argument("--steps", type=count, metavar="N", help=f"steps of RL ({SIZES['steps']})")
    further = parser.add_argument_group("further options of the commands, as in --sft='--num-train-epochs 2'")
    further.add_argument(
        "--collect",
        metavar="OPTIONS",
        help="of `cof collect`, for 3b and 7b with --data: --teacher MODEL --base-url URL (default: none)",
    )
    further.add_argument("--sft", metavar="OPTIONS", help="of `cof sft`")
    further.add_argument("--rl", metavar="OPTIONS", help="of `cof rl`")
    further.add_argument(
        "--play", metavar="OPTIONS", help="of `cof rollout` and `cof eval`, as the trained model plays"
    )
    return parser


def _asked(options: argparse.Namespace) -> Asked:
    """What the options ask for.

    Raises:
        InputError: if one is not for this recipe, or nobody is named who could teach.
    """
    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name != "plan"}
    lost = OF_CHECKPOINTS if options.recipe == NANO else ("start", *(() if options.data else ("collect",)))
    for name in lost:
        if given[name] is not None:
            without = " without --data" if name == "collect" and options.recipe != NANO else ""
            raise InputError(f"--{name} is not for {options.recipe}{without}.")
    for name in ("collect", "sft", "rl", "play"):
        given[name] = _split(name, given[name] or "")
    if options.data and not {"--teacher", "--describer"} & {word.partition("=")[0] for word in given["collect"]}:
        raise InputError("say who teaches: --collect='--teacher MODEL', and what else `cof help collect` has.")
    given |= {name: given[name] or (number if options.recipe == NANO else 0) for name, number in SIZES.items()}
    return Asked(**given | {"folder": Path(options.folder or f"outputs/paper-{options.recipe}")})


def _split(name: str, words: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(words))
    except ValueError:
        raise InputError(f"a quotation mark of --{name} is not closed: {words}") from None


def _check(stage: Stage) -> None:
    """Refuses options that the command of a stage does not know.

    Raises:
        InputError: if it does not.
    """
    _, name, *words = stage.command
    if name == MEASURE:
        name, words = "eval", ["-o", *words]
    try:
        options = cli.parser(name).parse_args([name, *words])
        if name in ("sft", "rl"):
            settings = import_module(f"{name}.settings")
            keys.check(keys.given(options.training), settings.RunConfig, settings.TRAINER)
    except InputError as error:
        raise InputError(f"{stage.name}: {error}") from None


def run(stages: Sequence[Stage], folder: Path) -> int:
    """Runs the stages that have no result yet; returns the exit code of the one that failed, else 0.

    Raises:
        InputError: if the folder holds results of other commands, or another run is at work there.
    """
    done = [_is_done(stage, folder) for stage in stages]
    _check_order(stages, done, folder)
    with _alone(folder) as lock:
        for stage, skipped in zip(stages, done, strict=True):
            if skipped:
                print(f"{stage.name}: skipped, its result is in {folder / stage.name}", flush=True)
            elif code := _ran(stage, folder, lock):
                print(f"paper.sh: {stage.name} ended with {code}; the same command continues there.", file=sys.stderr)
                return code
    print(
        f"\nThe table is in {folder / 'compared' / 'comparison.md'}, the page in {folder / 'compared' / 'report.html'}."
    )
    return 0


def _mark(stage: Stage, folder: Path) -> Path:
    """Where it is noted, after its end, which command made the result of a stage."""
    return folder / "done" / stage.name


def _is_done(stage: Stage, folder: Path) -> bool:
    """Whether a stage has its result.

    Raises:
        InputError: if another command made it.
    """
    result, mark = folder / stage.name, _mark(stage, folder)
    if not result.exists() or not (stage.whole or mark.exists()):
        return False
    if mark.exists() and (made := mark.read_text("utf-8").strip()) != shlex.join(stage.command):
        raise InputError(f"{result} was made by another command; name another folder, or remove it. It was: {made}")
    return True


def _check_order(stages: Sequence[Stage], done: Sequence[bool], folder: Path) -> None:
    """Raises:
    InputError: if a result is there, but not all that come before it, from which it was made.
    """
    first = done.index(False) if False in done else len(done)
    if later := [str(folder / stage.name) for stage, is_done in zip(stages, done, strict=True) if is_done][first:]:
        lost = folder / stages[first].name
        raise InputError(f"{lost} is missing, and these came after it; remove them, too: {' '.join(later)}")


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """A lock that a stage inherits: one whose parent was killed keeps it, and must not run twice at a time.

    Raises:
        InputError: if another run has it.
    """
    make_folder(folder)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another run, or a stage that a killed run has left, is at work in {folder}.") from None
        yield file.fileno()


def _ran(stage: Stage, folder: Path, lock: int) -> int:
    """Runs a stage; notes its end, and returns the exit code."""
    print(f"\n{paper_plan.described(stage)}", flush=True)
    begun = time.monotonic()
    program, *words = launched(stage.command)
    code = _called([*COF, *words] if program == "cof" else [program, *words], lock)
    if code == 0:
        write_atomic(_mark(stage, folder), shlex.join(stage.command) + "\n")
        print(f"{stage.name}: done in {time.monotonic() - begun:,.0f} s", flush=True)
    return code


def _called(words: Sequence[str], lock: int) -> int:
    """Runs a command to its end, which an interrupt from the terminal reaches by itself; SIGTERM is passed on."""
    started: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        for process in started:
            process.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        with subprocess.Popen(words, pass_fds=(lock,)) as process:
            started.append(process)
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.wait()  # it has the interrupt, too, and says where it was
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else SIGNALLED - code


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    sys.exit(main())
