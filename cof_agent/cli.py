# PYTHON_ARGCOMPLETE_OK
"""The command line: `cof COMMAND ...`. Each command lives in the module of its name in `cof_agent.commands`.

A module is imported when its command is named: it declares the options (`add_options`) and runs the command (`run`).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from cof_agent import __version__
from cof_agent.backends.secrets import hidden_addresses, log_handler
from cof_agent.commands.parser import Parser
from cof_agent.errors import InputError, said, unknown
from cof_agent.output.escape import for_terminal

_log = logging.getLogger(__name__)

INTERRUPTED = 130
BAD_INPUT = 2

COMMANDS = {
    "ask": "ask a question about one image, or about each image of a folder",
    "collect": "turn questions with known answers into zoom trajectories",
    "compare": "compare runs of eval with the first one, question by question",
    "data": "show what is read of a set, and write it in our own layout",
    "eval": "measure a model on a set of samples",
    "mcp": "serve the agent's tools to an MCP client that starts it",
    "merge": "fold a LoRA adapter into its model",
    "regions": "turn a public set with regions into samples",
    "rl": "train a model on conversations that it plays itself",
    "rollout": "play samples several times and keep those of medium difficulty",
    "scenes": "draw scenes with questions and known answers",
    "serve": "serve the agent to browsers, OpenAI's clients and MCP's",
    "sft": "fine-tune a model on zoom trajectories",
    "spots": "find the regions that known answers rest on",
    "view": "turn trajectories into a page to look at",
    "dialect": "list dialects, or fetch the words of one",
}


KEEPING = ("collect", "eval", "regions", "rollout", "scenes", "spots")
"""Commands that write as they go, and go on from there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Bad input is one sentence on stderr and code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _complete()
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    named = given[0] if given else "--help"
    name = f"cof {named}" if named in COMMANDS else "cof"
    try:
        options = parser(named).parse_args(given or ["--help"])
        with _spoken(options.verbose):
            code = int(_module(named).run(options))
        sys.stdout.flush()  # what cannot be written is said here, and not by the interpreter as it ends
        return code
    except InputError as error:
        print(f"{name}: {for_terminal(hidden_addresses(str(error)))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        kept = str(interrupt) or ("what was done is kept" if named in KEEPING else "")
        print(f"\n{name}: {for_terminal('; '.join(['interrupted', *filter(None, [kept])]))}.", file=sys.stderr)
        # An interrupt inside exec(), as when an import makes dataclasses, is remembered by CPython as not handled and
        # then ends the process by signal whatever we return; the next exec() that ends well makes it forget.
        exec("")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        _forget_output()
        return 0
    except OSError as error:  # a last net: what reads and writes says it better
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {for_terminal(where + (error.strerror or said(error)))}.", file=sys.stderr)
        _log.debug("told in a sentence", exc_info=error)
        _forget_output()
        return BAD_INPUT


def _forget_output() -> None:
    """What is still to be written to stdout would fail again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser(named: str) -> Parser:
    """The parser of `cof`. Of all commands it knows the options of the one that is named, whose module alone is imported."""
    made = Parser(
        prog="cof",
        description="Agentic visual search in large images.",
        epilog="`cof help COMMAND` shows the options of a command. `cof ask photo.jpg QUESTION` is a first one to try.",
    )
    made.add_argument("--version", action="version", version=f"chain-of-focus {__version__}")
    if not named.startswith("-") and named not in COMMANDS:
        made.error(unknown("command", named, list(COMMANDS)))
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == named:
            _module(name).add_options(command)
            words = command.add_argument_group("output")
            words.add_argument("--quiet", action="store_true", help="print the result only: no progress and no details")
            words.add_argument(
                "--verbose", action="store_true", help="also print debug messages, such as errors of libraries in full"
            )
    return made


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"cof_agent.commands.{command}")


def _complete() -> None:
    """Answers a shell that asks how the line goes on (argcomplete), and ends; else does nothing."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        words = os.environ.get("COMP_LINE", "").split()
        named = words[1] if len(words) > 1 and words[1] in COMMANDS else "--help"
        argcomplete.autocomplete(parser(named))


@contextmanager
def _spoken(verbose: bool) -> Iterator[None]:
    """With warnings on stderr; and our own debug messages, if `verbose`. The root logger has the handler, so that a training can
    write its lines above the progress bars."""
    log, root = logging.getLogger("cof_agent"), logging.getLogger()
    before, handler = log.level, log_handler("%(name)s: %(message)s" if verbose else "%(message)s")
    root.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else before)
    logging.getLogger("pyvips").setLevel(
        logging.NOTSET if verbose else logging.ERROR
    )  # our sentence says what was wrong
    if not verbose:  # nor does the hub tell of each attempt, by a handler of its own
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        yield
    finally:
        root.removeHandler(handler)
        log.setLevel(before)


if __name__ == "__main__":
    sys.exit(main())
