"""Options of vLLM's engine, written as those of `vllm serve` without their dashes: `enforce-eager`, `max-num-seqs=64`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_keywords(options: Sequence[str]) -> dict[str, Any]:
    """Options as fields of vLLM's `EngineArgs`. vLLM's own parser reads them; it ends the program where one is wrong."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="vllm_options"))
    default, given = vars(parser.parse_args([])), vars(parser.parse_args([f"--{option}" for option in options]))
    return {name: value for name, value in given.items() if value != default[name]}
