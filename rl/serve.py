"""Serves the rollouts of a run on GPUs of its own: `python -m rl.serve --config FILE [--key value ...]`, the options of the run.

It is `trl vllm-serve` with that run's model, port and lengths, so that both sides cannot differ; for `vllm_mode: server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from trl.scripts import vllm_serve

from cof_agent.errors import InputError
from cof_agent.output.install import how_to_install
from cof_agent.training.command import explained
from rl.settings import Settings, parse


def main(arguments: Sequence[str] | None = None) -> None:
    if find_spec("vllm") is None:
        raise InputError(f"serving needs the package vllm, which is missing: {how_to_install('vllm')}.")
    vllm_serve.main(served(parse(arguments)))


def served(settings: Settings) -> vllm_serve.ScriptArguments:
    """What `trl vllm-serve` is told. The `vllm_*` settings, which TRL reads for colocation only, are the server's here.

    Raises:
        InputError: if the run asks for no server.
    """
    training = settings.training
    if not training.use_vllm or training.vllm_mode != "server":
        raise InputError("this run asks for no server: set use_vllm to true and vllm_mode to server.")
    return vllm_serve.ScriptArguments(
        model=settings.model_path,
        port=training.vllm_server_port,
        tensor_parallel_size=training.vllm_tensor_parallel_size,
        gpu_memory_utilization=training.vllm_gpu_memory_utilization,
        max_model_len=training.vllm_max_model_length,
        dtype=settings.model.dtype or "auto",
        vllm_model_impl=training.vllm_model_impl,
    )


if __name__ == "__main__":
    explained("rl.serve", main)
