#!/usr/bin/env bash
# What RL mends of what a faulty teacher taught, with three seeds and grey crops: the table of rl/README.md, "What RL brings".
#   bash scripts/rl_seeds.sh [FOLDER]
# After an interruption the same command continues. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
folder="${1:-outputs/rl-seeds}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
"$cof" scenes -o "$folder/train" --samples 600 --seed 2 --split train
"$cof" scenes -o "$folder/test" --samples 500 --seed 1 --split test
"$cof" sft --config sft/configs/nano-imperfect.yaml -o "$folder/imperfect"
at() { measure "$folder/$1" --data "$folder/test" --model "${@:2}"; }
at imperfect-teacher "$folder/imperfect"
for seed in 7 8 9; do
  "$cof" rl --config rl/configs/nano.yaml --model "$folder/imperfect" --data "$folder/train" --seed "$seed" -o "$folder/model-$seed"
  at "rl-$seed" "$folder/model-$seed"
  at "rl-$seed-grey" "$folder/model-$seed" --crop blank
done
"$cof" compare "$folder"/{imperfect-teacher,rl-7,rl-8,rl-9,rl-7-grey,rl-8-grey,rl-9-grey} --cards 200 -o "$folder/compared"
