"""Puts a trained nano into the package, as bfloat16: `python -m cof_agent.nano.install CHECKPOINT_DIR [FOLDER ...]`.

Folders of the checkpoint that are named, such as the region scorer in `coroi`, go with it; those of the weights before would
not fit, and go.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from cof_agent.errors import InputError
from cof_agent.nano import WEIGHTS
from cof_agent.nano.build import save
from cof_agent.output.escape import for_terminal

LARGEST = 12_000_000  # bytes of weights that may ship


def install(checkpoint: Path, folders: Sequence[str] = ()) -> None:
    """Replace the packaged weights by `checkpoint` and these folders of it, whole or not at all.

    Raises:
        InputError: if there is no checkpoint, or it is too large to ship.
    """
    if not (checkpoint / "model.safetensors").exists():
        raise InputError(f"{checkpoint} holds no model.safetensors; name a folder that training wrote.")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
    for name in folders:
        if not (checkpoint / name).is_dir():
            raise InputError(f"{checkpoint} has no folder {name}.")
    with tempfile.TemporaryDirectory(dir=WEIGHTS.parent) as folder:
        fresh = Path(folder) / "weights"
        save(model, AutoTokenizer.from_pretrained(checkpoint), fresh)
        size = (fresh / "model.safetensors").stat().st_size
        if size > LARGEST:
            raise InputError(f"the weights take {size} bytes; at most {LARGEST} may ship.")
        for name in folders:
            shutil.copytree(checkpoint / name, fresh / name)
        if WEIGHTS.exists():
            WEIGHTS.rename(Path(folder) / "before")
        fresh.rename(WEIGHTS)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m cof_agent.nano.install CHECKPOINT_DIR [FOLDER ...]")
    try:
        install(Path(sys.argv[1]), sys.argv[2:])
    except InputError as error:
        print(f"install: {for_terminal(error)}", file=sys.stderr)
        sys.exit(2)
