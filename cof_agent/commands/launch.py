"""What `cof sft` and `cof rl` share: they run a training module, here or in several processes through Accelerate."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cof_agent.errors import InputError, said
from cof_agent.output.install import how_to_install
from cof_agent.training.shipped import shipped

NEEDED = ("trl", "peft", "accelerate", "datasets")


def check(options: argparse.Namespace) -> None:
    """Refuses a training whose packages are not there.

    Raises:
        InputError: if packages are missing, or the file of `--accelerate`.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"training needs packages that are missing ({', '.join(missing)}): {how_to_install(*missing)}."
        )
    if options.accelerate and not Path(shipped(options.accelerate)).is_file():
        raise InputError(f"there is no file {options.accelerate}; make one with `accelerate config`.")


def run(module: str, options: argparse.Namespace) -> int:
    """Runs `module` as the options of `cof sft` or `cof rl` say; returns its exit code.

    Raises:
        InputError: if Accelerate refuses its file.
    """
    gpus = 0 if options.accelerate else _gpus()
    try:
        if options.accelerate or (options.processes or gpus) > 1:
            on_cpu = not options.accelerate and gpus == 0
            return _accelerate(options.command, launcher_arguments(module, options, gpus), on_cpu=on_cpu)
        return _here(module, options.training, gpus)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last whole checkpoint") from None


def launcher_arguments(module: str, options: argparse.Namespace, gpus: int) -> list[str]:
    """What `accelerate launch` is given, on a machine with so many GPUs, to run `module` in several processes."""
    training = ["-m", module, *options.training]
    if options.accelerate:
        number = ["--num_processes", str(options.processes)] if options.processes else []
        return [*number, "--config_file", shipped(options.accelerate), *training]
    processes = options.processes or gpus
    # All that Accelerate would otherwise choose by itself, with a page of warnings.
    chosen = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // processes, 1))
    cpu = [] if gpus else ["--num_cpu_threads_per_process", threads]
    return ["--multi_gpu", "--num_processes", str(processes), *chosen, *cpu, *training]


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _here(module: str, training: Sequence[str], gpus: int) -> int:
    """Runs the module as `python -m` does, with the current folder among those that are imported from."""
    if gpus > 1:  # with all of them in sight the trainer would spread each batch over them
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    sys.path.insert(0, os.getcwd())
    sys.argv = [module, *training]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _accelerate(name: str, arguments: Sequence[str], *, on_cpu: bool) -> int:
    """`accelerate launch` for `cof NAME`; returns the exit code of the process that failed first, 0 if none did.

    What was wrong is said by that process, so nothing is said here, unless it was killed.
    """
    import yaml  # type: ignore[import-untyped]
    from accelerate.commands.launch import launch_command, launch_command_parser
    from accelerate.utils import patch_environment
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = launch_command_parser().parse_args(arguments)
    # An interrupt is left to us: torch's launcher then ends its processes in silence, where they would say where they were.
    options.signals_to_handle = "SIGTERM,SIGHUP,SIGQUIT"
    # Accelerate's own --cpu starts a single process, whatever the number.
    environment = {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}
    logging.disable(logging.ERROR)  # the launcher's report of what its processes have said
    try:
        with patch_environment(**environment):
            launch_command(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        print(f"cof {name}: process {rank} of the training was ended by {failure.signal_name()}.", file=sys.stderr)
        return 128 - failure.exitcode
    except subprocess.CalledProcessError as error:
        return error.returncode
    except SignalException as error:
        return 128 + int(error.sigval)
    except (OSError, ValueError, yaml.YAMLError) as error:  # what it finds wrong with its own options
        raise InputError(f"accelerate cannot start it: {said(error)}.") from None
    finally:
        logging.disable(logging.NOTSET)
    return 0
