"""`cof sft --config NAME.yaml [--key value ...]`: runs `sft.train`, see `launch`."""

from __future__ import annotations

import argparse

from cof_agent.commands import launch

MODULE = "sft.train"


def run(options: argparse.Namespace) -> int:
    return launch.run(MODULE, options)
