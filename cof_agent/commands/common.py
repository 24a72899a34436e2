"""What several commands share: the agent that the options describe, the samples, and where figures come from."""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.agent import Agent, check
from cof_agent.backends import load
from cof_agent.backends.families import EXAMPLE
from cof_agent.backends.fingerprint import fingerprint
from cof_agent.config import AgentConfig
from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.nano import NANO
from cof_agent.trajectory import Sample, Trajectory

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("chain-of-focus", "torch", "transformers", "langgraph", "pillow", "numpy")  # whose versions a result names
SCENES_ONLY = (
    "cof: nano knows only the scenes that `cof scenes` draws; for any other picture its answer means nothing "
    f"(use --model with a real checkpoint, e.g. {EXAMPLE})."
)


def config_of(options: argparse.Namespace) -> AgentConfig:
    """How the options say the agent runs; fields that a command has no option for keep their defaults.

    Raises:
        InputError: if a value makes no sense, or the strategy, a tool or the system prompt cannot be had.
    """
    names = {field.name for field in fields(AgentConfig)} - {"system_prompt"}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if "tools" in given:
        given["tools"] = tuple(given["tools"])
    config = AgentConfig(**given, system_prompt=read_prompt(getattr(options, "system_prompt", None)))
    check(config)
    return config


def agent_of(options: argparse.Namespace, **overrides: Any) -> Agent:
    """The agent that the options describe, its model loaded.

    Raises:
        InputError: if the model cannot be loaded or reached as described.
    """
    return Agent(config_of(options), **overrides)


def samples(options: argparse.Namespace, output: Path) -> list[Sample]:
    """The samples of SAMPLES; images that a dataset holds itself are written to `images` in the output folder.

    Raises:
        InputError: as `read_samples`.
    """
    return read_samples(
        options.samples,
        images=options.images,
        keep_images=output / "images",
        columns=dict(_mapping(pair) for pair in options.column),
        split=options.split,
        limit=options.limit,
    )


def resolutions(text: str) -> list[int]:
    """The long sides that --resolutions lists.

    Raises:
        InputError: if it is no list of different numbers.
    """
    found = [int(part) for part in text.split(",")] if re.fullmatch(r"\d{2,5}(,\d{2,5})*", text) else []
    if not found or len(set(found)) < len(found):
        raise InputError(f"--resolutions must be different pixels with commas between, as in 448,1024, not {text!r}.")
    return found


def _mapping(pair: str) -> tuple[str, str]:
    ours, equals, theirs = pair.partition("=")
    if not (ours and equals and theirs):
        raise InputError(f"--column must be NAME=COLUMN, as in question=query, not {pair!r}.")
    return ours, theirs


def origin(options: argparse.Namespace, first: Trajectory) -> dict[str, Any]:
    """Where a run's figures come from: what is needed to get them again."""
    return {
        "command": shlex.join(["cof", *sys.argv[1:]]),
        "policy": first.policy,
        "strategy": first.strategy,
        "weights": None if is_served(options) else fingerprint(options.model),
        "protocol_version": first.protocol_version,
        "settings": first.settings,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "seed": options.seed,
    }


def is_served(options: AgentConfig | argparse.Namespace) -> bool:
    """Whether the model runs on a server."""
    return load.is_served(options.model, getattr(options, "base_url", None))


def console() -> Console:
    """For tables on stdout. What names and data say in square brackets is no markup."""
    from rich.console import Console

    made = Console(markup=False)
    if not made.is_terminal:
        made.width = 120  # a file or a pipe has no width of its own
    return made


def read_prompt(path: str | None) -> str | None:
    """The text of a system prompt's file, None without one.

    Raises:
        InputError: if it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the system prompt {path}: {reason}.") from None


def warn_if_unknown_to_nano(options: AgentConfig | argparse.Namespace, image: Path) -> None:
    """One line on stderr when nano is asked about a picture that is no scene of ours."""
    if options.model == NANO and not _is_scene(image):
        print(SCENES_ONLY, file=sys.stderr)


def _is_scene(image: Path) -> bool:
    """Whether the samples.jsonl that `cof scenes` writes beside `images/` names this picture."""
    samples = image.resolve().parent.parent / "samples.jsonl"
    try:
        with open(samples, encoding="utf-8") as file:
            return any(json.loads(line).get("image", "").endswith(image.name) for line in file if line.strip())
    except (OSError, ValueError, AttributeError):
        return False
