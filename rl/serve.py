"""Serves the rollouts of a run on GPUs of its own: `python -m rl.serve --config FILE [--key value ...]`, the options of the run.

It is `vllm serve` with that run's model, precision, port and lengths, so that both sides cannot differ; for
`vllm_mode: server`. `--processes N` says how many train. It listens to this machine alone; `--host ADDRESS` lets others in.
Whoever reaches it can replace the weights and read the configuration: the endpoints that take weights are those for vLLM's
developers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING

from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.training.command import explained
from rl.engines.options import options_of, precision_of, shown_areas
from rl.settings import Settings, parse

if TYPE_CHECKING:
    import torch

LOOPBACK = "127.0.0.1"
PIXEL_BYTES = 24  # as patches: three colours, for two frames, of four bytes
DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""Opens the endpoints that take weights, empty caches and tell the configuration."""


def main(arguments: Sequence[str] | None = None) -> None:
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--host", default=LOOPBACK)
    own.add_argument("--processes", type=int, default=1)
    given, others = own.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    with training_with(given.processes):
        settings = parse(others)
    command = command_of(settings, given.host)
    if find_spec("vllm") is None:
        raise InputError(f"serving needs the package vllm, which is missing: {how_to_install('vllm')}.")
    os.execve(command[0], command, os.environ | DEVELOPMENT)


@contextmanager
def training_with(processes: int) -> Iterator[None]:
    """Within, settings are those of a run of so many processes: how many conversations are under way depends on it."""
    from transformers import TrainingArguments

    own = TrainingArguments.world_size
    TrainingArguments.world_size = processes
    try:
        yield
    finally:
        TrainingArguments.world_size = own


def command_of(settings: Settings, host: str = LOOPBACK) -> list[str]:
    """The command that serves a run. The `vllm_*` settings, which TRL reads for colocation only, are the server's here.

    Raises:
        InputError: if the run asks for no server, or its checkpoint cannot be read.
    """
    training = settings.training
    if not training.use_vllm or training.vllm_mode != "server":
        raise InputError("this run asks for no server: set use_vllm to true and vllm_mode to server.")
    options = [
        f"host={host}",
        f"port={training.vllm_server_port}",
        f"tensor-parallel-size={training.vllm_tensor_parallel_size}",
        f"gpu-memory-utilization={training.vllm_gpu_memory_utilization}",
        f"model-impl={training.vllm_model_impl}",
        "enable-scale-out",  # takes token ids with images
        f"weight-transfer-config={json.dumps({'backend': 'nccl'})}",
        "logprobs-mode=processed_logprobs",  # of what was sampled from: after temperature and biases
        f"mm-processor-cache-gb={_image_cache(settings)}",
        *options_of(settings, precision_of(training, _weights(settings))),
    ]
    if training.vllm_max_model_length:
        options.append(f"max-model-len={training.vllm_max_model_length}")
    program = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", settings.model_path]
    return [*program, *(f"--{option}" for option in options)]


def _image_cache(settings: Settings) -> int:
    """GiB for the patches of all images of the conversations under way, which are sent once: 24 bytes a shown pixel. Memory is
    taken only as images come. vLLM's own default where nothing says how large images are."""
    run, training = settings.run, settings.training
    overview, crop = shown_areas(run)
    if overview is None:
        return 4
    pixels = overview + run.agent_config().zooms * (crop or overview // 4)
    return max(4, ceil(int(training.generation_batch_size) * pixels * PIXEL_BYTES / 2**30))


def _weights(settings: Settings) -> torch.dtype:
    """The data type in which the run loads its weights."""
    from cof_agent.training.memory import dtype_of
    from cof_agent.training.models import read_checkpoint

    config = read_checkpoint(settings)[0] if settings.model.dtype in ("auto", None) else None
    return dtype_of(config, settings)


if __name__ == "__main__":
    explained("rl.serve", main)
