"""Options that commands share: the agent (fields of `AgentConfig`), the samples (fields of `Source`), and kinds of values.

An option has the same name, type, default and help text in every command; a command that means something else by it says what
is different.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

from cof_agent.config import AgentConfig
from cof_agent.data.source import Source
from cof_agent.environment import CropMode
from cof_agent.episodes import Resolutions
from cof_agent.errors import InputError
from cof_agent.geometry import OF_MODELS

Group = argparse._ActionsContainer  # a parser, or a group of options in it

MODEL = (
    *("model", "base_url", "coordinates", "image_folder", "jpeg", "reasoning"),
    *("device", "dtype", "attn", "vllm_options"),
)
VIEWS = ("overview_pixels", "zoom_pixels", "max_zooms", "enlarge", "min_side", "zoom_scale", "max_source_pixels")
ANSWERS = (
    "strategy",
    "dialect",
    "tools",
    "system_prompt",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "timeout",
    "retry_seconds",
)


def at_least(least: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """A type of options: numbers of this kind from `least` on."""

    def number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
        if not least <= value < 1e12:
            raise argparse.ArgumentTypeError(f"must be at least {least:g}, not {text}")
        return value

    return number


def above_0(text: str) -> float:
    """A type of options: numbers above 0."""
    value: float = at_least(0, float)(text)
    if not value:
        raise argparse.ArgumentTypeError("must be above 0, not 0")
    return value


def share(text: str) -> float:
    """A type of options: numbers above 0 and at most 1."""
    if (value := above_0(text)) > 1:
        raise argparse.ArgumentTypeError(f"must be at most 1, not {text}")
    return value


def weighted_resolutions(text: str) -> Resolutions:
    """A type of options: long sides in pixels, with commas between; one may be named twice."""
    try:
        return Resolutions(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def resolutions(text: str) -> Resolutions:
    """A type of options: different long sides in pixels, with commas between."""
    found = weighted_resolutions(text)
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a resolution twice")
    return found


count, whole = at_least(1), at_least(0)

KINDS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "MODEL"},
    "base_url": {"metavar": "URL"},
    "coordinates": {"choices": [system.value for system in OF_MODELS]},
    "image_folder": {"metavar": "DIR"},
    "jpeg": {"type": count, "metavar": "QUALITY"},
    "reasoning": {"metavar": "none|low|medium|high|TOKENS"},
    "device": {"metavar": "DEVICE"},
    "dtype": {"choices": ["bfloat16", "float16", "float32"]},
    "attn": {"metavar": "NAME"},
    "vllm_options": {"nargs": "+", "metavar": "OPTION"},
    "overview_pixels": {"type": count, "metavar": "N"},
    "zoom_pixels": {"type": count, "metavar": "N"},
    "max_zooms": {"type": whole, "metavar": "N"},
    "enlarge": {"type": at_least(1, float), "metavar": "F"},
    "min_side": {"type": count, "metavar": "N"},
    "zoom_scale": {"type": above_0, "metavar": "F"},
    "max_source_pixels": {"type": count, "metavar": "N"},
    "crop": {"choices": list(get_args(CropMode))},
    "tools": {"action": "append", "metavar": "MODULE:FUNCTION", "default": []},
    "strategy": {"metavar": "NAME"},
    "dialect": {"metavar": "NAME|FILE"},
    "system_prompt": {"metavar": "FILE"},
    "max_tokens": {"type": count, "metavar": "N"},
    "temperature": {"type": at_least(0, float), "metavar": "T"},
    "top_p": {"type": share, "metavar": "P"},
    "seed": {"type": at_least(-1e12), "metavar": "N"},
    "timeout": {"type": above_0, "metavar": "SECONDS"},
    "retry_seconds": {"type": at_least(0, float), "metavar": "SECONDS"},
    "column": {"action": "append", "default": []},
    "samples": {"type": count},
    "download": {"action": "store_true", "default": False},
    "strict": {"action": "store_true", "default": False},
    "resolutions": {
        "type": resolutions,
        "metavar": "A,B",
        "help": "ask at each of these sizes: long sides of the overview, in shown pixels (default: the model's own limit)",
    },
    "plays": {"type": count, "metavar": "K"},
    "concurrency": {"type": count, "metavar": "N", "help": "number of samples under way at the same time"},
    "shard": {"metavar": "I/N"},
    "output": {"metavar": "DIR"},
    "server": {
        "metavar": "URL",
        "help": "address of a running `cof serve`; cards then link to its page, at full resolution (default: no links)",
    },
}
"""What argparse is told of an option beside the default and the help text of its field."""


def option(group: Group, name: str, **changes: Any) -> None:
    """Adds the option of this name; `changes` are what is different in this command."""
    names = ["-o", "--output"] if name == "output" else [f"--{_SPOKEN.get(name, name).replace('_', '-')}"]
    group.add_argument(*names, dest=name, **{**_FIELDS.get(name, {}), **KINDS.get(name, {}), **changes})


def add_agent(parser: argparse.ArgumentParser, *, without: tuple[str, ...] = (), **changes: Mapping[str, Any]) -> None:
    """The options of the agent; `changes` as in `option`, by name."""
    groups = {"model": MODEL, "what the model is shown": VIEWS, "how it answers": ANSWERS}
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            if name not in without:
                option(group, name, **changes.get(name, {}))


def add_samples(
    parser: argparse.ArgumentParser, *, without: tuple[str, ...] = (), **changes: Mapping[str, Any]
) -> argparse._ArgumentGroup:
    """The options that say which samples are read; `changes` as in `option`, by name."""
    group = parser.add_argument_group("samples")
    for name in ("data", "images", "column", "split", "samples", "boxes", "download", "strict"):
        if name in without:
            continue
        option(group, name, **({"required": True} if name == "data" else {}) | dict(changes.get(name, {})))
    return group


def _field(default: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {**metadata, **({} if default is MISSING else {"default": default or None})}


_SPOKEN = {"tools": "tool"}  # one is given at a time
_FIELDS = {one.name: _field(one.default, one.metadata) for kind in (AgentConfig, Source) for one in fields(kind)}
