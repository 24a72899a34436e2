"""What several commands share: the policy, the environment and the sampling that the options name."""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cof_agent.backends.fingerprint import fingerprint
from cof_agent.backends.load import named_policy
from cof_agent.data.samples import read_samples
from cof_agent.errors import InputError
from cof_agent.nano import NANO
from cof_agent.policy import Policy, Sampling
from cof_agent.trajectory import Sample, Trajectory

if TYPE_CHECKING:
    from rich.console import Console

    from cof_agent.environment import ZoomSettings

PACKAGES = ("chain-of-focus", "torch", "transformers", "langgraph", "pillow", "numpy")  # whose versions a result names
SCENES_ONLY = (
    "cof: nano knows only the scenes that `cof scenes` draws; for any other picture its answer means nothing "
    "(use --model with a real checkpoint, e.g. Qwen/Qwen2.5-VL-7B-Instruct)."
)


def policy(options: argparse.Namespace) -> Policy:
    """The model that the options name.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    if options.provider is None and options.base_url is None:
        _quiet_transformers()
    return named_policy(
        options.model,
        provider=options.provider,
        base_url=options.base_url,
        coordinates=options.coordinates,
        max_pixels=options.max_pixels,
        zoom_pixels=options.zoom_pixels,
    )


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def settings(options: argparse.Namespace, policy: Policy) -> ZoomSettings:
    """What the options say the policy is to be shown."""
    from cof_agent.environment import ZoomSettings

    given = {"max_source_pixels": options.max_source_pixels} if options.max_source_pixels else {}
    return ZoomSettings(
        system=policy.coordinates,
        limits=policy.limits,
        max_zooms=options.max_zooms,
        enlarge=options.enlarge,
        crop=getattr(options, "crop", "real"),
        **given,
    )


def sampling(options: argparse.Namespace) -> Sampling:
    """Greedy; with a seed, temperature 1 with that seed."""
    if options.seed is None:
        return Sampling(max_tokens=options.max_tokens)
    return Sampling(max_tokens=options.max_tokens, temperature=1.0, seed=options.seed)


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
        "weights": None if options.provider or options.base_url else fingerprint(options.model),
        "protocol_version": first.protocol_version,
        "settings": first.settings,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "seed": options.seed,
    }


def console() -> Console:
    """For tables on stdout. What names and data say in square brackets is no markup."""
    from rich.console import Console

    made = Console(markup=False)
    if not made.is_terminal:
        made.width = 120  # a file or a pipe has no width of its own
    return made


def system_prompt(options: argparse.Namespace) -> str | None:
    """The text of --system-prompt, None without it."""
    if options.system_prompt is None:
        return None
    try:
        return Path(options.system_prompt).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the system prompt {options.system_prompt}: {reason}.") from None


def warn_if_unknown_to_nano(options: argparse.Namespace, image: Path) -> None:
    """One line on stderr when nano is asked about a picture that is no scene of ours."""
    if options.model == NANO and options.provider is None and not _is_scene(image):
        print(SCENES_ONLY, file=sys.stderr)


def _is_scene(image: Path) -> bool:
    """Whether the samples.jsonl that `cof scenes` writes beside `images/` names this picture."""
    samples = image.resolve().parent.parent / "samples.jsonl"
    try:
        with open(samples, encoding="utf-8") as file:
            return any(json.loads(line).get("image", "").endswith(image.name) for line in file if line.strip())
    except (OSError, ValueError, AttributeError):
        return False
