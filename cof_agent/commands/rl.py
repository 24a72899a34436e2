"""`cof rl --config NAME.yaml [--key value ...]`: runs `rl.train`, see `launch` and `training`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch
from cof_agent.commands.parser import Parser

MODULE = "rl.train"


def add_options(parser: Parser) -> None:
    launch.add_options(parser)


def run(options: argparse.Namespace) -> int:
    return launch.run(MODULE, options)
