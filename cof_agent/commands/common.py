"""What several commands share: the agent that the options describe, the samples, and where figures come from."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends import load
from cof_agent.backends.fingerprint import fingerprint
from cof_agent.backends.scenes_only import UnknownPicture, warning_for
from cof_agent.backends.secrets import hidden_addresses
from cof_agent.config import AgentConfig, read_prompt
from cof_agent.data.source import Source
from cof_agent.trajectory import Sample, Trajectory

if TYPE_CHECKING:
    from rich.console import Console

    from cof_agent.agent import Agent

PACKAGES = ("chain-of-focus", "torch", "transformers", "langgraph", "pillow", "numpy")  # whose versions a result names


def config_of(options: argparse.Namespace, **overrides: Any) -> AgentConfig:
    """How the options say the agent runs; fields that a command has no option for keep their defaults.

    Raises:
        InputError: if a value makes no sense, or the strategy, a tool or the system prompt cannot be had.
    """
    names = {field.name for field in fields(AgentConfig)} - {"system_prompt"}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    given["tools"] = tuple(given.get("tools", ()))
    prompt = read_prompt(getattr(options, "system_prompt", None))
    config = AgentConfig(**{**given, "system_prompt": prompt, **overrides})
    check_model(config)
    if config.strategy != AgentConfig.strategy or config.tools:
        from cof_agent.agent import check  # which imports all strategies

        check(config)
    return config


def check_model(config: AgentConfig) -> None:
    """Whether there can be such a model.

    Raises:
        InputError: if a setting is for another kind of model, or there is no such folder.
    """
    load.check(
        config.model,
        base_url=config.base_url,
        coordinates=config.coordinates,
        device=config.device,
        dtype=config.dtype,
        attn=config.attn,
    )


def agent_of(config: AgentConfig) -> Agent:
    """The agent, its model loaded.

    Raises:
        InputError: if the model cannot be loaded or reached as described.
    """
    from cof_agent.agent import Agent

    return Agent(config)


def samples(options: argparse.Namespace, output: Path) -> list[Sample]:
    """The samples that the options name; images that a dataset holds itself are written to `images` in the output folder.

    Raises:
        InputError: as `read_samples`.
    """
    given = {field.name: getattr(options, field.name) for field in fields(Source)}
    return Source(**given).read(keep_images=output / "images", left_out=output / "left_out.jsonl")


def origin(options: argparse.Namespace, first: Trajectory) -> dict[str, Any]:
    """Where a run's figures come from: what is needed to get them again."""
    return {
        "command": shlex.join(["cof", *map(hidden_addresses, sys.argv[1:])]),
        "policy": first.policy,
        "strategy": first.strategy,
        "weights": None if is_served(options) else fingerprint(options.model),
        "protocol_version": first.protocol_version,
        "settings": first.settings,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "seed": getattr(options, "seed", None),
    }


def is_served(options: AgentConfig | argparse.Namespace) -> bool:
    """Whether the model runs on a server."""
    return load.is_served(options.model, getattr(options, "base_url", None))


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """As `terminal.console`, which takes a tenth of a second to import; `cof --help` need not pay it."""
    from cof_agent.output import terminal

    return terminal.console(stderr=stderr, quiet=quiet)


def warn_if_unknown_to_nano(model: str, samples: Sequence[Sample]) -> None:
    """One line on stderr where nano is asked about pictures that are no scenes of ours; `Agent` need not say it again."""
    if (sentence := warning_for(model, samples)) is not None:
        print(f"cof: {sentence}", file=sys.stderr)
        warnings.simplefilter("ignore", UnknownPicture)
