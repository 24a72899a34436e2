"""What several commands share: the policy, the environment and the sampling that the options name."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.nano import NANO
from cof_agent.policy import Policy, Sampling

if TYPE_CHECKING:
    from cof_agent.environment import ZoomSettings

SCENES_ONLY = (
    "cof: nano knows only the scenes that `cof scenes` draws; for any other picture its answer means nothing "
    "(use --model with a real checkpoint, e.g. Qwen/Qwen2.5-VL-7B-Instruct)."
)


def policy(options: argparse.Namespace) -> Policy:
    """The model that the options name.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    if options.provider is not None or options.base_url is not None:
        from cof_agent.backends.chat import connect

        coordinates = CoordinateSystem(options.coordinates) if options.coordinates else None
        return connect(
            options.model,
            provider=options.provider or "openai",
            base_url=options.base_url,
            coordinates=coordinates,
            max_pixels=options.max_pixels,
            zoom_pixels=options.zoom_pixels,
        )
    if options.coordinates is not None:
        raise InputError("--coordinates is for served models; a local checkpoint's config says what its boxes mean.")
    _quiet_transformers()
    from cof_agent.backends.local import load

    return load(options.model, max_pixels=options.max_pixels, zoom_pixels=options.zoom_pixels)


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
