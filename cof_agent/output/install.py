"""How a missing package is installed: the command, with the version that this project asks for."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

_NAME = re.compile(r"[\w.-]+")


def how_to_install(*packages: str) -> str:
    """The command that installs these packages. It names them and no extra of ours: this project is in no index, and a
    package of its name there would be somebody else's."""
    try:
        ours = [line.partition(";")[0].strip() for line in requires("chain-of-focus") or ()]
    except PackageNotFoundError:  # run from its sources
        ours = []
    wanted = {found[0].lower(): line for line in reversed(ours) if (found := _NAME.match(line))}
    return "pip install " + " ".join(f"'{wanted.get(package.lower(), package)}'" for package in packages)
