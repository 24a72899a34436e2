"""The policy of a SPEC: `nano`, a folder, a hub id, or PROVIDER:MODEL for a served model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cof_agent.backends.names import check_name
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.nano import NANO
from cof_agent.policy import Policy

REQUEST_TIMEOUT = 120.0  # seconds for one request to a server


def split_spec(spec: str) -> tuple[str | None, str]:
    """Provider and model of a SPEC; the provider of a local model is None."""
    served = re.fullmatch(r"([a-z][a-z0-9_]*):(.+)", spec)
    return (served[1], served[2]) if served else (None, spec)


def is_served(model: str, base_url: str | None = None) -> bool:
    """Whether a SPEC names a model on a server."""
    return base_url is not None or split_spec(model)[0] is not None


def check(
    model: str,
    *,
    base_url: str | None = None,
    coordinates: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attn: str | None = None,
) -> None:
    """Whether these belong together; loads nothing.

    Raises:
        InputError: if one is for the other kind of model, or there can be no such model.
    """
    if not is_served(model, base_url):
        if coordinates is not None:
            raise InputError(
                "--coordinates is for served models; a local checkpoint's config says what its boxes mean."
            )
        if model != NANO:
            check_name(model)
        return
    given = {"--device": device, "--dtype": dtype, "--attn": attn}
    if named := [option for option, value in given.items() if value is not None]:
        raise InputError(f"{named[0]} is for local models; a server decides this itself.")


def load(
    model: str = NANO,
    *,
    base_url: str | None = None,
    coordinates: str | None = None,
    overview_pixels: int | None = None,
    zoom_pixels: int | None = None,
    timeout: float = REQUEST_TIMEOUT,
    device: str | None = None,
    dtype: str | None = None,
    attn: str | None = None,
    boxes: bool = True,
) -> Policy:
    """The model of a SPEC: served where the SPEC has a provider or `base_url` is given, else loaded into this process.

    coordinates: of a served model, the value of a `CoordinateSystem`. overview_pixels, zoom_pixels: largest areas of the
    overview and of a crop in shown pixels. timeout: seconds for one request to a server. device, dtype, attn: of a local
    model, as torch and transformers name them. boxes: whether it will be asked for boxes, so that of a served model it has to be
    known what they mean.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    check(model, base_url=base_url, coordinates=coordinates, device=device, dtype=dtype, attn=attn)
    provider, name = split_spec(model)
    if is_served(model, base_url):
        from cof_agent.backends.chat import connect

        return connect(
            name,
            provider=provider or "openai",
            base_url=base_url,
            coordinates=CoordinateSystem(coordinates) if coordinates else None,
            max_pixels=overview_pixels,
            zoom_pixels=zoom_pixels,
            timeout=timeout,
            boxes=boxes,
        )
    from cof_agent.backends.checkpoint import load as load_local

    with quiet():
        return load_local(
            model, device=device, dtype=dtype, attn=attn, max_pixels=overview_pixels, zoom_pixels=zoom_pixels
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and remarks of transformers; afterwards they are as before."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()
        logging.set_verbosity(verbosity)
