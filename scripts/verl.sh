#!/usr/bin/env bash
# RL with verl, on Ray: bash scripts/verl.sh CONFIG [verl's own override ...]. CONFIG is a name in rl/configs/verl/, without .yaml.
# Run it from the root of the repository, on the head of a Ray cluster, or alone: verl then starts Ray on this machine.
#
#   bash scripts/verl.sh qwen2.5-vl-7b                                              # 8 GPUs of this machine
#   bash scripts/verl.sh qwen2.5-vl-7b trainer.nnodes=32 data.train_batch_size=512  # 256 GPUs
#   bash scripts/verl.sh qwen2.5-vl-7b trainer.v1.trainer_mode=colocate_async       # plays the next batch beside the update
#   bash scripts/verl.sh qwen2.5-vl-7b model_engine=megatron                        # Megatron in place of FSDP
#
# Within a Slurm job (sbatch --nodes 32 --gpus-per-node 8 --exclusive --wrap "bash scripts/verl.sh ...") it starts Ray on all
# machines of the job first. PYTHON names the interpreter: one with `verl[vllm]` and this package (rl/verl/README.md).
# This was never run on a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
if [ -n "${SLURM_JOB_ID:-}" ] && [ "${SLURM_NNODES:-1}" -gt 1 ]; then
  head=$(hostname)
  port=$((20000 + SLURM_JOB_ID % 20000))
  export RAY_ADDRESS="$head:$port"
  # Without --cpus-per-task a task gets one core. `--block`: each Ray lives as long as its task.
  srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --cpus-per-task="$SLURM_CPUS_ON_NODE" bash -c '
    if [ "$(hostname)" = "$1" ]; then exec "$3" -m ray.scripts.scripts start --head --port "$2" --block; fi
    sleep 10
    exec "$3" -m ray.scripts.scripts start --address "$1:$2" --block' ray "$head" "$port" "$PYTHON" < /dev/null &
  ray=$!
  trap 'kill "$ray" 2> /dev/null || true' EXIT
  "$PYTHON" - "$SLURM_NNODES" <<'PYTHON'
import sys, time
import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 300
while time.monotonic() < deadline:
    try:
        ray.init(log_to_driver=False)
        if len([node for node in ray.nodes() if node["Alive"]]) == wanted:
            sys.exit()
        ray.shutdown()
    except ConnectionError:
        pass
    time.sleep(5)
sys.exit(f"verl.sh: after 5 minutes not all {wanted} machines are in the Ray cluster.")
PYTHON
  set -- "${1:-}" "trainer.nnodes=$SLURM_NNODES" "${@:2}"
fi
"$PYTHON" -m rl.verl.train "$@"
