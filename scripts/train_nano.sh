#!/usr/bin/env bash
# Trains nano from a random start on two CPU cores (about two hours). After an interruption the same command continues. The result is
# in outputs/nano, after RL in outputs/nano-rl. `--install` also puts outputs/nano into the package, as bf16.
set -euo pipefail
. "$(dirname "$0")/environment.sh" train,api,dev
. scripts/measure.sh
install=no
if [ "${1:-}" = "--install" ]; then install=yes; shift; fi
.venv/bin/python -m sft.nano.vision --output outputs/nano-vision
.venv/bin/python -m sft.nano.ground --model outputs/nano-vision --output outputs/nano-ground
.venv/bin/python -m sft.train --config sft/configs/nano.yaml "$@"
if [ "$install" = yes ]; then .venv/bin/python -m cof_agent.nano.install outputs/nano; fi
.venv/bin/cof scenes -o outputs/rl --samples 600 --seed 2 --split train
.venv/bin/python -m rl.train --config rl/configs/nano.yaml --model outputs/nano \
  --learning-rate 3.0e-5 --lr-scheduler-type cosine
