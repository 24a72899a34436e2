#!/usr/bin/env bash
# Whether RL holds for a thousand steps: the hard questions of scripts/hard.sh at a rate that does not fall, each rollout used for two
# updates, so that the ratio between the policy and that which played leaves 1. The figure in EXPERIMENTS.md, "A thousand steps".
#   bash scripts/stable.sh [SEED]
# Trains nano (default: seed 7) in outputs/nano-stable-SEED. The scenes are those of validation. After an interruption the same command
# continues. Curves, table and page are in outputs/stable-val/compared.
set -euo pipefail
seed="${1:-7}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
folder=outputs/stable-val
within=direct_attributes,nested
"$cof" scenes -o outputs/hard-train --samples 1600 --seed 2 --split hard --categories $within
"$cof" rollout --data outputs/hard-train -o outputs/hard-kept --model nano --plays 8 --keep 0,1
"$cof" scenes -o "$folder/scenes" --samples 400 --seed 5 --split hard --categories $within
"$cof" rl --config rl/configs/nano-hard.yaml -o "outputs/nano-stable-$seed" --seed "$seed" --max-steps 1000 \
  --gradient-accumulation-steps 4 --num-iterations 2 --save-steps 50 --lr-scheduler-type constant_with_warmup
measure "$folder/before" --data "$folder/scenes" --model nano
measure "$folder/after-$seed" --data "$folder/scenes" --model "outputs/nano-stable-$seed"
"$cof" compare "$folder"/{before,"after-$seed"} -o "$folder/compared"
.venv/bin/python scripts/rl_curves.py "outputs/nano-stable-$seed" --over 40 -o "$folder/compared/curves.png"
