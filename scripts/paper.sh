#!/usr/bin/env bash
# The whole paper by one command: questions, a teacher's trajectories, SFT, merge, difficulty filter, RL, evaluation at eight
# resolutions with controls, and one report.
#   bash scripts/paper.sh nano               # nano, on two CPU cores
#   bash scripts/paper.sh 7b --plan          # says what would run, what it costs, and what is missing
#   bash scripts/paper.sh 7b                 # on 8 GPUs; 3b needs one
#   sbatch --nodes 2 --gpus-per-node 8 --exclusive --requeue --wrap "bash scripts/paper.sh 7b"
# Each stage prints its command. After an interruption the same command continues; a stage whose result is there is skipped.
# `--help` lists the options. The stages are in paper_stages.py.
set -euo pipefail
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
export PATH="$PWD/.venv/bin:$PATH"
exec .venv/bin/python scripts/paper.py "$@"
