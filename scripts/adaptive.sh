#!/usr/bin/env bash
# Measures zooms and accuracy before and after RL with the adaptive reward, at several sizes at which the overview shows things.
#   bash scripts/adaptive.sh [--test] BEFORE AFTER ...
# BEFORE and AFTER are folders with models. The scenes are those of validation, on which settings are chosen; with --test they are
# others, which are to be looked at once. After an interruption the same command continues. Tables, plots and the page are in
# outputs/adaptive-val/compared or outputs/adaptive-test/compared.
set -euo pipefail
split=val seed=1
if [ "${1:-}" = "--test" ]; then split=test seed=31; shift; fi
[ $# -ge 2 ] || { echo "usage: bash scripts/adaptive.sh [--test] BEFORE AFTER ..." >&2; exit 2; }
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
folder="outputs/adaptive-$split"
for share in 1 0.5 0.2; do
  "$cof" scenes -o "$folder/scenes-$share" --samples 300 --seed "$seed" --split "$split" --parts "$share"
done
found=()
for model in "$@"; do
  run="$folder/$(basename "$model")"
  measure "$run-1" --data "$folder/scenes-1" --model "$model" --resolutions 224,448
  measure "$run-0.5" --data "$folder/scenes-0.5" --model "$model" --resolutions 448
  measure "$run-0.2" --data "$folder/scenes-0.2" --model "$model" --resolutions 448
  .venv/bin/python scripts/joined.py "$run" "$run-1=1" "$run-0.5=0.5" "$run-0.2=0.2"
  found+=("$run")
done
"$cof" compare "${found[@]}" -o "$folder/compared"
