"""Looks at the name of a local model before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from cof_agent.backends import families
from cof_agent.data.spec import checkpoint_of, is_local
from cof_agent.errors import InputError
from cof_agent.nano import NANO, WEIGHTS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def folder_of(model: str) -> str:
    """The checkpoint that a local model's name means: a folder or a hub id."""
    return str(WEIGHTS) if checkpoint_of(model) == NANO else checkpoint_of(model)


def check_name(checkpoint: str) -> None:
    """Looks whether this can be a checkpoint, before a loader asks the hub for it again and again.

    Raises:
        InputError: if it is neither a directory with a checkpoint nor named like a model of the hub, or an adapter alone.
    """
    if checkpoint and Path(checkpoint).is_dir():
        _check_folder(Path(checkpoint))
        return
    if is_local(checkpoint) or not _HUB_ID.fullmatch(checkpoint):
        raise InputError(
            f"there is no model directory {checkpoint}, and a model of the hub is named like {families.EXAMPLE}."
        )


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} is an adapter; fold it into its model first: cof merge {folder} -o DIR.")
    if any(next(folder.glob(name), None) for name in ("*config.json", "*.safetensors", "*.bin", "params.json")):
        return
    inside = sorted(folder.glob("checkpoint-*"), key=lambda one: (len(one.name), one.name))
    hint = f"; the newest inside is {inside[-1]}" if inside else ""
    raise InputError(f"the folder {folder} holds no checkpoint: it has no config.json{hint}.")
