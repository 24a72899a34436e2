#!/usr/bin/env bash
# What RL learns where it is hard: smaller objects, and more of them, in pairs of colour and shape that nano has never seen. Before RL,
# after it with three seeds and with grey crops, and after the same training with less. Not run as a whole: see EXPERIMENTS.md.
#   bash scripts/hard.sh [--test] [SEED ...]
# First trains what is missing of the model of each seed (default: 7 8 9) in outputs/, from the nano that ships; what is left out is left
# out with the first seed. The scenes are those of validation; with --test they are others, which are to be looked at once. After an
# interruption the same command continues. Tables, plots and the page are in outputs/hard-val/compared or outputs/hard-test/compared.
set -euo pipefail
split=val number=5
if [ "${1:-}" = "--test" ]; then split=test number=33; shift; fi
[ $# -gt 0 ] || set -- 7 8 9
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
folder="outputs/hard-$split"
within=direct_attributes,nested # what it can tell from the true regions; the table has its accuracy with them
"$cof" scenes -o outputs/hard-train --samples 1600 --seed 2 --split hard --categories $within
"$cof" rollout --data outputs/hard-train -o outputs/hard-kept --model nano --plays 8 --keep 0,1
"$cof" scenes -o "$folder/scenes" --samples 400 --seed "$number" --split hard --categories $within
"$cof" regions scenes --data "$folder/scenes" -o "$folder/regions"
at() { # NAME SCENES MODEL OPTION ...
  measure "$folder/$1" --data "$folder/$2" --model "${@:3}"
}
train() { # NAME OPTION ...
  local options=("${@:2}")
  "$cof" rl --config rl/configs/nano-hard.yaml -o "outputs/nano-hard-$1" "${options[@]}"
}
trained() { # NAME OPTION ...
  train "$@"
  at "$1" scenes "outputs/nano-hard-$1"
}
at before scenes nano
at told regions nano --strategy regions
after='' grey=''
for seed in "$@"; do
  trained "$seed" --seed "$seed"
  at "$seed-grey" scenes "outputs/nano-hard-$seed" --crop blank
  after+=",$folder/$seed" grey+=",$folder/$seed-grey"
done
trained paper --seed "$1" --rewards adaptive_paper --reward-weights 1.0
trained accuracy --seed "$1" --rewards accuracy --reward-weights 1.0
trained format --seed "$1" --rewards format --reward-weights 1.0
train one-zoom --seed "$1" --max-zooms 1
at one-zoom scenes outputs/nano-hard-one-zoom --max-zooms 1
"$cof" compare "$folder/before" ${after//,/ } "$folder"/{told,paper,accuracy,format,one-zoom} -o "$folder/compared"
.venv/bin/python scripts/seeds_table.py "before=$folder/before" "told the true regions=$folder/told" "after RL=${after#,}" \
  "the same, grey crops=${grey#,}" "the paper's adaptive reward=$folder/paper" "accuracy alone=$folder/accuracy" \
  "format alone=$folder/format" "one zoom at most=$folder/one-zoom" --by category | tee "$folder/compared/category.md"
