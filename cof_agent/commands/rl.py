"""`cof rl --config NAME.yaml [--key value ...]`: runs `rl.train`, see `training` and `launch`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch, training
from cof_agent.commands.parser import Parser

MODULE = "rl.train"


def add_options(parser: Parser) -> None:
    training.add_options(parser, "rl")


def run(options: argparse.Namespace) -> int:
    if options.help_all:
        return training.show_all("rl")
    launch.check(options)
    training.check(options)
    return launch.run(MODULE, options)
