"""`cof rl --config NAME.yaml [--key value ...]`: runs `rl.train`, see `launch`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch

MODULE = "rl.train"


def run(options: argparse.Namespace) -> int:
    return launch.run(MODULE, options)
