"""Options of `cof sft` and `cof rl`: our own keys with help; TRL's are passed on as they are.

The parser checks our keys' values, and hands all of them on to the training module as they were given.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import Any

from cof_agent.commands.options import KINDS, count, weighted_resolutions
from cof_agent.commands.parser import Parser
from cof_agent.training import keys

NAMED = {"data": "what is trained on", "output_dir": "folder for checkpoints, the model, and run.json"}
EVERYWHERE = ("quiet", "verbose")  # which every command has
TYPES: dict[str, Callable[[str], Any]] = {"int": int, "float": float}


class Forward(argparse.Action):
    """Keeps what was given, as it was given, in `training`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        words = values if isinstance(values, list) else [] if values is None else [values]
        before = getattr(namespace, "training", None) or []
        namespace.training = [*before, option_string, *map(str, words)]


_EXAMPLES = {
    "sft": "--data outputs/collected -o outputs/sft --learning-rate 1e-5",
    "rl": "--data outputs/train -o outputs/tuned",
}


def add_options(parser: Parser, name: str) -> None:
    """The options of the training `name`: sft or rl."""
    parser.forwards = True
    parser.usage = f"cof {name} [--config FILE.yaml] [--KEY VALUE ...] [OPTION ...]"
    parser.description = f"{parser.description} Every key of the YAML file is an option too."
    parser.epilog = f"example:\n  cof {name} --config {name}/configs/nano.yaml --model nano {_EXAMPLES[name]}"
    parser.add_argument("--config", action=Forward, metavar="FILE", help="YAML file with the keys of the run")
    parser.add_argument(
        "--model", action=Forward, metavar="MODEL", help="model that is trained: nano, a folder, or a hub id"
    )
    parser.add_argument("-o", "--output", action=Forward, metavar="DIR", help=NAMED["output_dir"])
    parser.add_argument("--processes", type=count, metavar="N", help="number of processes (default: one per GPU)")
    parser.add_argument("--accelerate", metavar="FILE", help="file of `accelerate config`: DeepSpeed, FSDP, machines")
    parser.add_argument("--help-all", action="store_true", help="also show the several hundred keys of TRL")
    group = parser.add_argument_group("keys of our own", "TRL's keys are options too, with dashes or underscores.")
    for field in fields(_settings(name).RunConfig):
        if field.name not in EVERYWHERE:
            _add(group, field)


def check(options: argparse.Namespace) -> None:
    """Says what is wrong before anything heavy is imported, and puts the training's arguments into TRL's form.

    Raises:
        InputError: if a key is unknown, the configuration cannot be read, or the model or the data is not there.
    """
    settings = _settings(options.command)
    found = keys.given([*options.training, *(f"--{name}" for name in EVERYWHERE if getattr(options, name))])
    keys.check_places(keys.check(found, settings.RunConfig, settings.TRAINER))
    options.training = keys.arguments_of(found)


def show_all(name: str) -> int:
    """Prints the help of all keys."""
    import trl

    from cof_agent.training.parser import KeyParser

    settings = _settings(name)
    KeyParser(settings.RunConfig, getattr(trl, settings.TRAINER)).print_help()
    return 0


def _settings(name: str) -> Any:
    return import_module(f"{name}.settings")


def _add(group: argparse._ArgumentGroup, field: Field[Any]) -> None:
    kind = {name: value for name, value in KINDS.get(field.name, {}).items() if name not in ("action", "default")}
    if field.name == "resolutions":
        kind["type"] = weighted_resolutions
    annotation, default = str(field.type), field.default if field.default is not MISSING else None
    if annotation == "bool":
        kind |= {"nargs": "?", "choices": ("true", "false")}
    elif annotation.startswith("list["):
        kind |= {"nargs": "+"}
    kind.setdefault("type", TYPES.get(annotation.removesuffix(" | None")))
    if "choices" not in kind:
        kind.setdefault("metavar", "N" if kind["type"] is int else field.name.upper())
    names = [
        f"--{field.name.replace('_', '-')}",
        *(f"--{short}" for short, long in keys.ALIASES.items() if long == field.name),
    ]
    group.add_argument(*names, dest=field.name, action=Forward, **{**kind, **field.metadata, "default": default})
