"""What several commands share: the agent that the options describe, the samples, and where figures come from."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends import load
from cof_agent.backends.fingerprint import fingerprint, weight_files
from cof_agent.backends.scenes_only import INSTEAD, UnknownPicture, warning_for
from cof_agent.backends.secrets import hidden_addresses
from cof_agent.config import AgentConfig, read_prompt
from cof_agent.data.source import Source
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal
from cof_agent.output.files import make_folder
from cof_agent.output.origin import read_origin, refuse_others, write_origin
from cof_agent.protocol import PROTOCOL_VERSION
from cof_agent.protocol.dialects import ours, to_plain
from cof_agent.trajectory import Sample, StopReason, Trajectory, failures

if TYPE_CHECKING:
    from rich.console import Console

    from cof_agent.agent import Agent
    from cof_agent.episodes import Episode

PACKAGES = ("chain-of-focus", "torch", "transformers", "langgraph", "pillow", "numpy")  # whose versions a result names


def config_of(options: argparse.Namespace, **overrides: Any) -> AgentConfig:
    """How the options say the agent runs; fields that a command has no option for keep their defaults.

    Raises:
        InputError: if a value makes no sense, or the strategy, a tool or the system prompt cannot be had.
    """
    names = {field.name for field in fields(AgentConfig)} - {"system_prompt"}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    given |= {name: tuple(given[name]) for name in ("tools", "vllm_options") if name in given}
    prompt = read_prompt(getattr(options, "system_prompt", None))
    config = AgentConfig(**{**given, "system_prompt": prompt, **overrides})
    check_model(config)
    if config.strategy != AgentConfig.strategy or config.tools:
        from cof_agent.agent import check  # which imports all strategies

        check(config)
    return config


def check_model(config: AgentConfig) -> None:
    """Refuses the name of a model that cannot be there.

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
        vllm_options=config.vllm_options or (),
    )


def agent_of(config: AgentConfig) -> Agent:
    """The agent, its model loaded.

    Raises:
        InputError: if the model cannot be loaded or reached as described.
    """
    from cof_agent.agent import Agent

    return Agent(config)


def samples(options: argparse.Namespace, output: Path, *, one_image: bool = False) -> list[Sample]:
    """The samples that the options name; images that a dataset holds itself are written to `images` in the output folder.

    one_image: whether samples of several images are left out.

    Raises:
        InputError: as `read_samples`.
    """
    given = {field.name: getattr(options, field.name) for field in fields(Source)}
    return Source(**given).read(keep_images=output / "images", left_out=output / "left_out.jsonl", one_image=one_image)


def needs_one_image(config: AgentConfig) -> bool:
    """Whether the strategy looks at one image, or the dialect names one, so that samples of several are left out."""
    if config.strategy == AgentConfig.strategy:
        return not config.spoken.takes_several_images
    from cof_agent.strategies.registry import takes_several_images  # which imports strategies

    return not takes_several_images(config.strategy, config.spoken)


def of_one_image(samples: Sequence[Sample], config: AgentConfig) -> list[Sample]:
    """Those of a benchmark that have one image; a line on stderr says how many do not.

    Raises:
        InputError: if there are none.
    """
    from cof_agent.strategies.registry import why_one_image  # which imports strategies

    kept = [sample for sample in samples if not sample.more_images]
    if len(kept) < len(samples):
        left = f"{len(samples) - len(kept):,} of {len(samples):,} questions have several images"
        if not kept:
            raise InputError(f"{left}, but {why_one_image(config.strategy, config.spoken)}.")
        print(f"cof: {left} and are left out: {why_one_image(config.strategy, config.spoken)}.", file=sys.stderr)
    return kept


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


def check_settings(config: AgentConfig, output: Path) -> bool:
    """Whether the folder has results already, which were then made with the same settings. Settings without any results
    are replaced.

    Raises:
        InputError: naming each setting that differs, with both values; if the results are of another command; or if the folder
            cannot be written to.
    """
    make_folder(output)
    path, results = output / "settings.json", output / "trajectories.jsonl"
    if not path.exists() and results.exists() and results.stat().st_size:
        raise InputError(f"{results} was written by another command, or an earlier version; use another folder.")
    earlier = read_origin(path) if any(file.stat().st_size for file in output.glob("*.jsonl")) else None
    files = weight_files(config.model)
    known = earlier is not None and earlier.get("weight_files") == files  # else the weights are read through
    values = {name: value for name, value in asdict(config.filled()).items() if name not in WHERE}
    values["dialect"] = config.spoken.name if config.spoken == ours() else to_plain(config.spoken)
    values["protocol_version"] = PROTOCOL_VERSION
    values["weights"] = earlier.get("weights") if earlier and known else _weights(config)
    if earlier is None:
        write_origin(path, values | {"weight_files": files})
        return False
    refuse_others(path, earlier, values)
    return True


WHERE = ("base_url", "image_folder", "timeout", "retry_seconds", "device")
"""Fields of the configuration that say where a model runs, so that a run may go on elsewhere."""


def _weights(config: AgentConfig) -> str | None:
    return None if is_served(config) else fingerprint(config.model)


def played(
    config: AgentConfig, wanted: Sequence[Episode], path: Path, options: argparse.Namespace, *, resumed: bool
) -> list[Trajectory]:
    """The trajectory of each episode, from `path` or played now and added to it.

    resumed: whether what is in `path` was made with the same settings; if nothing is missing there, no model is loaded.

    Raises:
        InputError: as `Agent` and `Agent.ask_many`.
    """
    from cof_agent.rollout import finished

    if resumed and (done := finished(wanted, path)):
        if not options.quiet:
            print(f"{len(done)} of {len(wanted)} done already.", file=sys.stderr)
        return done
    return agent_of(config).ask_many(wanted, output=path, concurrency=options.concurrency, progress=not options.quiet)


def report_errors(trajectories: Sequence[Trajectory], but: str, *, others: int = 0) -> int:
    """Says on stderr how many ended in an error, and the first reasons; returns the exit code, 1 if all did.

    but: what becomes of them. others: trajectories beside these, which did not fail.
    """
    kinds = failures(trajectories)
    if not kinds:
        return 0
    failed, count = sum(kinds.values()), len(trajectories) + others
    counted = ", ".join(f"{n} by {kind}" for kind, n in kinds.items())
    print(f"{failed} of {count} failed ({counted}) {but}; the same command tries them again.", file=sys.stderr)
    reasons = Counter(one.error or "no reason was recorded." for one in trajectories if one.stop is StopReason.ERROR)
    for reason, n in list(reasons.items())[:REASONS]:
        print(f"  {n} x {for_terminal(reason)}", file=sys.stderr)
    if len(reasons) > REASONS:
        print(f"  and {len(reasons) - REASONS} other reasons", file=sys.stderr)
    return int(failed == count)


REASONS = 3  # for failures, that are shown


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """As `terminal.console`, which takes a tenth of a second to import; `cof --help` need not pay it."""
    from cof_agent.output import terminal

    return terminal.console(stderr=stderr, quiet=quiet)


def warn_if_unknown_to_nano(model: str, samples: Sequence[Sample], base_url: str | None = None) -> None:
    """One line on stderr where nano, and no server, is asked about pictures that are no scenes of ours; `Agent` need not say it
    again."""
    if base_url is None and (sentence := warning_for(model, samples)) is not None:
        print(f"cof: {sentence} {INSTEAD}", file=sys.stderr)
        warnings.simplefilter("ignore", UnknownPicture)
