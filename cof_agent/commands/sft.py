"""`cof sft --config NAME.yaml [--key value ...]`: runs `sft.train`, see `launch` and `training`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch
from cof_agent.commands.parser import Parser

MODULE = "sft.train"


def add_options(parser: Parser) -> None:
    launch.add_options(parser)


def run(options: argparse.Namespace) -> int:
    return launch.run(MODULE, options)
