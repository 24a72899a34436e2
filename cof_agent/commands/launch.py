"""What `cof sft` and `cof rl` share: they run a training module, in several processes through Accelerate.

`python -m cof_agent.commands.launch COMMAND ARGUMENTS` is `accelerate launch ARGUMENTS` without its traceback when a
process ends with an error, and with that process's exit code: what was wrong is said by the process itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from cof_agent.errors import InputError, said

NEEDED = ("trl", "peft", "accelerate", "datasets")
EXTRA = "chain-of-focus[train]"
LOOK = 1.0  # seconds between looks whether it has ended
GRACE = 60.0
"""Seconds that a training which is told to end may take; Accelerate's launcher gives its processes 30 of them."""


def run(module: str, options: argparse.Namespace) -> int:
    """Runs `module` as the options of `cof sft` or `cof rl` say; returns its exit code.

    Raises:
        InputError: if packages are missing, or the file of `--accelerate`.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(f'training needs packages that are missing ({", ".join(missing)}): pip install "{EXTRA}".')
    if options.accelerate and not Path(options.accelerate).is_file():
        raise InputError(f"there is no file {options.accelerate}; make one with `accelerate config`.")
    arguments, environment = command(module, options, 0 if options.accelerate else _gpus())
    try:
        return _ended(arguments, os.environ | environment)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last whole checkpoint") from None


def command(module: str, options: argparse.Namespace, gpus: int) -> tuple[list[str], dict[str, str]]:
    """What is run on a machine with so many GPUs, and what is added to its environment."""
    launcher = [sys.executable, "-m", "cof_agent.commands.launch", options.command]
    processes, training = options.processes or max(gpus, 1), ["-m", module, *options.training]
    if options.accelerate:
        number = ["--num_processes", str(options.processes)] if options.processes else []
        return [*launcher, *number, "--config_file", options.accelerate, *training], {}
    if processes == 1:
        # One of several GPUs: with all of them in sight the trainer would spread each batch over them.
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return [sys.executable, *training], {"CUDA_VISIBLE_DEVICES": first} if gpus > 1 else {}
    # All that Accelerate would otherwise choose by itself, with a page of warnings.
    plain = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    several = ["--multi_gpu", "--num_processes", str(processes), *plain]
    if gpus:
        return [*launcher, *several, *training], {}
    # Its own --cpu starts a single process, whatever the number.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // processes, 1))
    cpu = ["--num_cpu_threads_per_process", threads]
    return [*launcher, *several, *cpu, *training], {"ACCELERATE_USE_CPU": "true"}


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _ended(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Exit code of a program that ends when we are told to end.

    It has its own process group, so that an interrupt at the keyboard reaches it once, as SIGTERM from here, and not
    each of its processes, to print where it was.
    """
    child = subprocess.Popen(arguments, env=environment, process_group=0)

    def end(_: int, __: FrameType | None) -> None:
        child.terminate()

    before: dict[int, Any] = {}
    try:
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
        code = _waited_for(child)
    except KeyboardInterrupt:
        child.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        finally:  # also at a second interrupt; its data workers may outlive it for some seconds
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _waited_for(child: subprocess.Popen[bytes]) -> int:
    """Its exit code. An interrupt that comes just before the process begins to wait would not be seen while it waits, so it
    does not wait for long at once."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(LOOK)


def launch(name: str, arguments: Sequence[str]) -> int:
    """`accelerate launch` on behalf of `cof NAME`; returns the exit code of the process that failed first, 0 if none did."""
    import yaml  # type: ignore[import-untyped]
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # in this process only: the launcher's report of what the others have said already
    try:
        launch_command(launch_command_parser().parse_args(arguments))
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
        print(f"cof {name}: accelerate cannot start it: {said(error)}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2:]))
