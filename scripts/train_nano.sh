#!/usr/bin/env bash
# Trains nano from a random start on two CPU cores (about two hours). The same command goes on after an
# interruption; only the second stage, the shortest, then begins again. The result is in outputs/nano, which `--install` also puts
# into the package, as bf16; after RL in outputs/nano-rl.
set -euo pipefail
. "$(dirname "$0")/environment.sh" train,api,dev
# Freed memory is kept for the next step; handed back and asked for again, it costs up to half of the time (glibc).
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=10000000000 MALLOC_TOP_PAD_=268435456
install=no
if [ "${1:-}" = "--install" ]; then install=yes; shift; fi
.venv/bin/python -m sft.nano.vision --output outputs/nano-vision
.venv/bin/python -m sft.nano.ground --model outputs/nano-vision --output outputs/nano-ground
.venv/bin/python -m sft.train --config sft/configs/nano.yaml "$@"
if [ "$install" = yes ]; then .venv/bin/python -m cof_agent.nano.install outputs/nano; fi
.venv/bin/cof scenes outputs/rl --count 600 --seed 2 --split train
.venv/bin/python -m rl.train --config rl/configs/nano.yaml --model_name_or_path outputs/nano \
  --learning_rate 3.0e-5 --lr_scheduler_type cosine
