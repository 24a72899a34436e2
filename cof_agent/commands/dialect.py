"""`cof dialect list | show NAME | import NAME --from CLONE -o FILE`: the words and rules that checkpoints were trained with."""

from __future__ import annotations

import argparse
from pathlib import Path

from cof_agent.commands import common
from cof_agent.commands.options import option
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import write_atomic
from cof_agent.protocol.dialects import Dialect, described, names, to_yaml, words

ACTIONS = ("list", "show", "import")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cof dialect list | show NAME | import NAME --from CLONE -o FILE"
    parser.epilog = (
        "example:\n  cof dialect import chain-of-focus --from Chain-of-Focus -o chain-of-focus.yaml\n"
        "with the clone that git clone https://github.com/xtong-zhang/Chain-of-Focus makes; then\n"
        "  cof ask photo.jpg QUESTION --model FOLDER --dialect chain-of-focus.yaml"
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of a dialect, or a file")
    parser.add_argument(
        "--from",
        dest="clone",
        metavar="CLONE",
        help="folder with a clone of the authors' repository, read and not executed",
    )
    parser.add_argument(
        "--word",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="file with words of the dialect that stand in no file of the repository; repeat for more",
    )
    option(parser, "output", metavar="FILE", help="file to write (default: NAME.yaml)")


def run(options: argparse.Namespace) -> int:
    if options.action != "import" and (options.clone or options.word or options.output):
        raise InputError("--from, --word and -o are for cof dialect import; leave them out.")
    if options.action == "list":
        _list()
        return 0
    if options.name is None:
        raise InputError(f"cof dialect {options.action} needs a NAME: one of {', '.join(names())}.")
    dialect = described(options.name)
    if options.action == "show":
        print(for_terminal(to_yaml(dialect), lines=True), end="")
        return 0
    return _import(dialect, options)


def _list() -> None:
    from rich.table import Table

    table = Table("name", "for", "words")
    for name in names():
        found = described(name)
        table.add_row(name, found.about, f"to fetch from {found.repository}" if found.missing else "here")
    common.console().print(table)


def _import(dialect: Dialect, options: argparse.Namespace) -> int:
    if not dialect.words:
        raise InputError(f"the dialect {dialect.name} needs no words of others; use --dialect {dialect.name}.")
    if options.clone is None:
        raise InputError(f"--from is missing: a folder with a clone of {dialect.repository}.")
    output = Path(options.output or f"{dialect.name}.yaml")
    if output.exists():
        raise InputError(f"{output} is there already; choose another --output.")
    found = words.fetch(dialect, Path(options.clone), dict(map(_word, options.word)))
    write_atomic(output, to_yaml(found))
    print(for_terminal(output))
    return 0


def _word(given: str) -> tuple[str, str]:
    """The name and the text of `NAME=FILE`."""
    name, separator, path = given.partition("=")
    if not (name and separator and path):
        raise InputError(f"--word is NAME=FILE, not {given!r}.")
    try:
        return name, Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}.") from None
