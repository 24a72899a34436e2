"""The batch scripts start what they should, where they should: run for real, with stand-ins for the cluster's own commands.

`srun` here starts its program once for each machine it was told of, on this one, and writes down what it was told; `.venv/bin`
of the job's folder holds an `accelerate` and a `python` that do the same, the latter serving an HTTP server for vLLM's.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "slurm"
HOSTS = ("localhost", "127.0.0.2", "127.0.0.1")
"""Machines of the job: all of them this one."""

SCONTROL = f"#!/usr/bin/env bash\nprintf '%s\\n' {' '.join(HOSTS)} | head -n $SLURM_NNODES\n"
SRUN = """#!/usr/bin/env bash
nodes=$SLURM_NNODES told=srun
while [[ $1 == --* ]]; do [[ $1 == --nodes=* ]] && nodes=${1#*=}; told+=" $1"; shift; done
echo "$told" >> "$LOG"
((nodes == 1)) && SLURM_NODEID=0 exec "$@"
pids=()
for ((i = 0; i < nodes; i++)); do SLURM_NODEID=$i "$@" & pids+=($!); done
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
"""
ACCELERATE = """#!/usr/bin/env bash
echo "accelerate $*" >> "$LOG"
exit ${TRAINING_ENDS_WITH:-0}
"""
PYTHON = f"""#!/usr/bin/env bash
[[ $1 == -c ]] && exec {shlex.quote(sys.executable)} "$@"
echo "python $*" >> "$LOG"
[[ -n ${{SERVER_FAILS:-}} ]] && exit 3
sleep 0.5
echo "serving" >> "$LOG"
exec {shlex.quote(sys.executable)} -m http.server --directory served "${{@: -1}}" > /dev/null 2>&1
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job, whose `.venv/bin` comes first on the script's own path."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    programs = {"scontrol": SCONTROL, "srun": SRUN, "accelerate": ACCELERATE, "python": PYTHON}
    for name, text in programs.items():
        path = tmp_path / ".venv" / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "health").write_text("")
    return tmp_path


def run(script: str, job: Path, *arguments: str, nodes: int, **given: str) -> tuple[int, str, list[str]]:
    """Exit code, what was said, and what was started, in order."""
    slurm = {
        "SLURM_JOB_NODELIST": "machines",
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_ON_NODE": "96",
        "SLURM_GPUS_ON_NODE": "8",
    }
    log = job / "log"
    environment = os.environ | slurm | {"LOG": str(log), "POLL_SECONDS": "0.1"} | given
    command = ["bash", str(SCRIPTS / script), *arguments]
    found = subprocess.run(command, cwd=job, env=environment, capture_output=True, text=True, timeout=60)
    return found.returncode, found.stderr, log.read_text().splitlines() if log.exists() else []


def test_sft_is_launched_on_each_machine(job: Path) -> None:
    code, said, started = run("sft.sbatch", job, "a.yaml", "--seed", "1 2", nodes=3)
    assert (code, said) == (0, "")
    launched = sorted(line for line in started if line.startswith("accelerate"))
    assert len(launched) == 3
    for rank, line in enumerate(launched):
        assert f"--num_machines 3 --num_processes 24 --machine_rank {rank} --main_process_ip localhost" in line
        assert line.endswith("-m sft.train --config a.yaml --seed 1 2")


@pytest.mark.parametrize(("nodes", "ends"), [(2, 0), (3, 0), (3, 7)])
def test_grpo_trains_once_the_last_machine_serves(job: Path, nodes: int, ends: int) -> None:
    code, _, started = run("grpo.sbatch", job, "a.yaml", "--seed", "1", nodes=nodes, TRAINING_ENDS_WITH=str(ends))
    assert code == ends
    server, port = HOSTS[nodes - 1], str(10000 + os.getpid() % 10000)
    options = f"--config a.yaml --seed 1 --vllm_server_host {server} --vllm_server_port {port}"
    assert started[0].startswith(f"srun --nodes=1 --ntasks=1 --nodelist={server} ")
    assert started[1] == f"python -m rl.serve --host {server} --processes {8 * (nodes - 1)} {options}"
    assert started[2] == "serving"
    assert started[3].startswith(f"srun --nodes={nodes - 1} --ntasks={nodes - 1} --exclude={server} ")
    for rank, line in enumerate(sorted(started[4:])):
        assert f"--num_machines {nodes - 1} --num_processes {8 * (nodes - 1)} --machine_rank {rank} " in line
        assert line.endswith(f"-m rl.train {options}")
    assert len(started) == 4 + nodes - 1
    deadline = time.monotonic() + 60
    while answers(server, int(port)):
        assert time.monotonic() < deadline, "the server outlives the job"
        time.sleep(0.05)


def answers(host: str, port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex((host, port)) == 0


def test_grpo_ends_with_a_server_that_ends(job: Path) -> None:
    code, said, started = run("grpo.sbatch", job, "a.yaml", nodes=2, SERVER_FAILS="1")
    assert code == 1
    assert said == "grpo.sbatch: the server on 127.0.0.2 ended before it answered.\n"
    assert not any(line.startswith("accelerate") for line in started)


def test_grpo_needs_two_machines(job: Path) -> None:
    code, said, started = run("grpo.sbatch", job, "a.yaml", nodes=1)
    assert (code, started) == (2, [])
    assert "at least two machines are needed" in said
