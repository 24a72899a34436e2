"""`cof sft --config NAME.yaml [--key value ...]`: runs `sft.train`, see `training` and `launch`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch, training
from cof_agent.commands.parser import Parser

MODULE = "sft.train"


def add_options(parser: Parser) -> None:
    training.add_options(parser, "sft")


def run(options: argparse.Namespace) -> int:
    if options.help_all:
        return training.show_all("sft")
    launch.check(options)
    training.check(options)
    return launch.run(MODULE, options)
