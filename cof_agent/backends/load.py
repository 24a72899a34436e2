"""The policy of a SPEC: `nano`, a folder, a hub id, one of these in vLLM as `vllm:FOLDER`, or PROVIDER:MODEL if served."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from cof_agent.backends.names import check_name, folder_of
from cof_agent.data.spec import IN_VLLM, checkpoint_of
from cof_agent.errors import InputError
from cof_agent.geometry import CoordinateSystem
from cof_agent.nano import NANO
from cof_agent.output.install import how_to_install
from cof_agent.policy import Policy

_DEVICE = re.compile(r"(?:cpu|cuda|mps|xpu|npu|hpu|mlu|musa|xla|meta)(?::\d{1,3})?")
REQUEST_TIMEOUT = 120.0  # seconds for one request to a server


def split_spec(spec: str) -> tuple[str | None, str]:
    """Provider and model of a SPEC; the provider of a local model is None."""
    served = re.fullmatch(r"([a-z][a-z0-9_]*):(.+)", spec)
    return (served[1], served[2]) if served and not in_vllm(spec) else (None, spec)


def in_vllm(spec: str) -> bool:
    """Whether a SPEC names a checkpoint that vLLM runs in this process."""
    return spec.startswith(IN_VLLM)


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
    vllm_options: Sequence[str] = (),
) -> None:
    """Refuses options that do not belong together; loads nothing.

    Raises:
        InputError: if one is for another kind of model, there can be no such model, or a package is missing.
    """
    if vllm_options and not in_vllm(model):
        raise InputError(f"--vllm-options is for a model that runs in vLLM: --model {IN_VLLM}{model}.")
    placed = {"--device": device, "--attn": attn}
    if in_vllm(model):
        _check_vllm(model, base_url, placed)
    elif is_served(model, base_url):
        if named := _named({**placed, "--dtype": dtype}):
            raise InputError(f"{named} is for local models; a server decides this itself.")
        return
    if coordinates is not None:
        raise InputError("--coordinates is for served models; a local checkpoint's config says what its boxes mean.")
    if device == "auto":
        raise InputError(
            f"--device names one device, by default the best there is; a model that one GPU cannot hold runs on several in vLLM: "
            f"--model {IN_VLLM}{checkpoint_of(model)} --vllm-options tensor-parallel-size=N."
        )
    if device is not None and not _DEVICE.fullmatch(device):
        raise InputError(f"--device is named as torch does, cpu, cuda, cuda:1, mps or xpu, not {device!r}.")
    check_name(folder_of(model))


def _check_vllm(model: str, base_url: str | None, placed: dict[str, str | None]) -> None:
    if base_url is not None:
        raise InputError(f"{model} runs in this process, and --base-url is the address of a server; name openai:NAME.")
    if named := _named(placed):
        raise InputError(f"{named} is for a model that transformers runs; vLLM has --vllm-options.")
    if find_spec("vllm") is None:
        raise InputError(f"{model} needs the package vllm: {how_to_install('vllm')}.")


def _named(options: dict[str, str | None]) -> str:
    """The first option that is given."""
    return next((option for option, value in options.items() if value is not None), "")


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
    vllm_options: Sequence[str] = (),
    boxes: bool = True,
) -> Policy:
    """The model of a SPEC: served where the SPEC has a provider or `base_url` is given, else loaded into this process.

    coordinates: of a served model, the value of a `CoordinateSystem`. overview_pixels, zoom_pixels: largest areas of the
    overview and of a crop in shown pixels. timeout: seconds for one request to a server. device, dtype, attn: of a local
    model, as torch and transformers name them. vllm_options: of vLLM's engine, see `backends.vllm.options`.
    boxes: whether it will be asked for boxes, so that of a served model it has to be known what they mean.

    Raises:
        InputError: if it cannot be loaded or reached as described.
    """
    check(
        model,
        base_url=base_url,
        coordinates=coordinates,
        device=device,
        dtype=dtype,
        attn=attn,
        vllm_options=vllm_options,
    )
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
    with quiet():
        if in_vllm(model):
            from cof_agent.backends.vllm.load import load as load_vllm

            return load_vllm(
                model, dtype=dtype, options=vllm_options, max_pixels=overview_pixels, zoom_pixels=zoom_pixels
            )
        from cof_agent.backends.checkpoint import load as load_local

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
