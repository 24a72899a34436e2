#!/usr/bin/env bash
# Measures zooms and accuracy before and after RL with the adaptive reward, at several sizes at which the overview shows things.
#   bash scripts/adaptive.sh [BEFORE] [AFTER] [FOLDER]
# After an interruption the same command continues. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
before="${1:-outputs/nano-needless}" after="${2:-outputs/nano-adaptive}" folder="${3:-outputs/adaptive}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
for share in 1 0.5 0.2; do
  "$cof" scenes -o "$folder/scenes-$share" --samples 300 --seed 1 --split test --parts "$share"
done
at() { # NAME MODEL
  measure "$folder/$1-1" --data "$folder/scenes-1" --model "$2" --resolutions 224,448
  measure "$folder/$1-0.5" --data "$folder/scenes-0.5" --model "$2" --resolutions 448
  measure "$folder/$1-0.2" --data "$folder/scenes-0.2" --model "$2" --resolutions 448
  .venv/bin/python scripts/joined.py "$folder/$1" "$folder/$1-1=1" "$folder/$1-0.5=0.5" "$folder/$1-0.2=0.2"
}
at before "$before"
at after "$after"
"$cof" compare "$folder"/{before,after} -o "$folder/compared"
