"""Serves a checkpoint as an OpenAI-compatible server, with or without torchvision.

    python -m cof_agent.backends.serve MODEL --port 8000

It is `transformers serve` in the precision in which the local backend would run; where torchvision is missing, our loader
reads the processor. All further options are its own (`--help` lists them). It says which packages it needs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.output.install import how_to_install


def main(arguments: list[str] | None = None) -> int:
    """Runs the server until it is stopped; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    missing = [name for name in ("uvicorn", "fastapi", "openai") if find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {' and '.join(missing)}: {how_to_install(*missing)}.")
    import transformers

    from cof_agent.backends.checkpoint import is_small_checkpoint, place
    from cof_agent.backends.local.processor import load_processor

    if find_spec("torchvision") is None:
        # The server asks for this by name at each load; there is no option for it. With torchvision our loader calls it.
        transformers.AutoProcessor.from_pretrained = staticmethod(load_processor)  # type: ignore[method-assign, assignment]
    placement = place(small=bool(given) and not given[0].startswith("-") and is_small_checkpoint(_config(given[0])))
    defaults = {"--device": placement.device, "--dtype": str(placement.dtype).removeprefix("torch.")}
    for option, value in defaults.items():
        if not any(word == option or word.startswith(f"{option}=") for word in given):
            given = [*given, option, value]

    from transformers.cli.transformers import app  # its `main` also looks for updates on the network

    app(["serve", *given])
    return 0


def _config(model: str) -> Any:
    from transformers import AutoConfig

    from cof_agent.backends.local.reader import unreadable
    from cof_agent.backends.names import check_name

    check_name(model)
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # what a broken or missing checkpoint makes the loader raise is not limited
        raise unreadable(model, error) from None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"serve: {for_terminal(error)}", file=sys.stderr)
        sys.exit(2)
