"""Configurations that come with the package go by the name that they have in the repository."""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("sft/configs/", "rl/configs/")
PACKAGES = Path(__file__).parents[2]  # where `cof_agent`, `sft` and `rl` lie side by side, installed or in a checkout


def shipped(value: str) -> str:
    """The path of a shipped configuration if `value` is its name, such as `sft/configs/nano.yaml`, and the current folder has
    no file of that name. Any other value comes back as it is."""
    path = PACKAGES / value
    return str(path) if value.startswith(FOLDERS) and not Path(value).exists() and path.is_file() else value
