"""Options of vLLM's engine, written as those of `vllm serve` without their dashes: `enforce-eager`, `max-num-seqs=64`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any


def as_keywords(options: Sequence[str]) -> dict[str, Any]:
    """Options as fields of vLLM's `EngineArgs`. vLLM's own parser reads them; it ends the program where one is wrong."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="vllm_options"))
    missing = object()  # a value that equals vLLM's default is given, too: it may replace one of ours
    empty = Namespace(**dict.fromkeys(vars(parser.parse_args([])), missing))
    given = vars(parser.parse_args([f"--{option}" for option in options], empty))
    return {name: value for name, value in given.items() if value is not missing}
