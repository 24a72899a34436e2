"""The policy of a name: `nano`, a directory, a hub id, or a served model, which a SPEC calls PROVIDER:MODEL."""

from __future__ import annotations

import re

from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.policy import Policy

REQUEST_TIMEOUT = 120.0  # seconds for one request to a server


def split_spec(spec: str) -> tuple[str | None, str]:
    """Provider and model of a SPEC; the provider of a local model is None."""
    served = re.fullmatch(r"([a-z][a-z0-9_]*):(.+)", spec)
    return (served[1], served[2]) if served else (None, spec)


def named_policy(
    model: str,
    *,
    provider: str | None = None,
    base_url: str | None = None,
    coordinates: str | None = None,
    max_pixels: int | None = None,
    zoom_pixels: int | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> Policy:
    """A served model where `provider` or `base_url` is given, else one that is loaded into this process.

    coordinates: of a served model, "absolute", "thousand" or "unit". timeout: seconds for one request to a server. For
    the rest see `chat.connect` and `local.load`.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    if provider is not None or base_url is not None:
        from cof_agent.backends.chat import connect

        return connect(
            model,
            provider=provider or "openai",
            base_url=base_url,
            coordinates=CoordinateSystem(coordinates) if coordinates else None,
            max_pixels=max_pixels,
            zoom_pixels=zoom_pixels,
            timeout=timeout,
        )
    if coordinates is not None:
        raise InputError("--coordinates is for served models; a local checkpoint's config says what its boxes mean.")
    from cof_agent.backends.local.policy import load

    return load(model, max_pixels=max_pixels, zoom_pixels=zoom_pixels)
