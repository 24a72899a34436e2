"""The parser of `cof` and of each command: what is wrong is one sentence, and the help shows defaults."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn

from cof_agent.errors import InputError, unknown


class Help(argparse.RawDescriptionHelpFormatter):
    """Adds the default to each help text that does not tell it already."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default not in (None, False, "", argparse.SUPPRESS) and action.default != []
        if action.help is None or not shown or not action.option_strings or "(default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Options by their whole names. `forwards`: what it does not know goes to the training, in `training`."""

    forwards = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": Help, **options})

    def error(self, message: str) -> NoReturn:
        """Raises InputError, which the command line prints as it does any other."""
        end = "" if message.endswith(("?", ".")) else "."
        raise InputError(f"{message}{end} See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, but what is unknown is an error here, where the known options are at hand."""
        if not self.forwards and self._subparsers is None:
            self._check_names(sys.argv[1:] if args is None else args)
        options, rest = super().parse_known_args(args, namespace)
        if self.forwards:
            options.training = [*(getattr(options, "training", None) or []), *rest]
        elif rest:
            self.error(f"there is no place for {rest[0]}")
        return options, []

    def _check_names(self, arguments: Sequence[str]) -> None:
        """Says what is misspelled, before argparse says what is then missing."""
        for word in takewhile(lambda word: word != "--", arguments):
            if word.startswith("--") and word.partition("=")[0] not in self.names:
                self.error(unknown("option", word, self.names))

    @property
    def names(self) -> list[str]:
        """The options that it knows."""
        return list(self._option_string_actions)
