"""`vllm serve` of nano on this CPU at a port, as `rl.serve` would serve it: `python -m benches.real_vllm PORT`."""

from __future__ import annotations

import os
import sys

from cof_agent.nano import WEIGHTS
from rl.serve import command_of
from rl.settings import parse

WHOLE = "max-num-batched-tokens=65536"  # on a CPU vLLM cannot draw with a seed after a prompt that it has read in parts

if __name__ == "__main__":
    run = {"model_name_or_path": WEIGHTS, "data": ".", "output_dir": ".", "use_cpu": "true", "bf16": "false"}
    served = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_port": sys.argv[1], "vllm_max_model_length": 8192}
    words = [word for key, value in {**run, **served}.items() for word in (f"--{key}", str(value))]
    command = command_of(parse([*words, "--vllm_options", "enforce-eager", "max-num-seqs=64", WHOLE]))
    small = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    os.execve(command[0], command, os.environ | small)
