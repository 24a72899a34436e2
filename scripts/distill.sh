#!/usr/bin/env bash
# Distills zooms into one look (sft/README.md), and measures zooms, image tokens and accuracy before and after, on validation scenes at
# several sizes at which the overview shows things.
#   bash scripts/distill.sh [START] [FOLDER] [--test]
# START is the model that is distilled: outputs/nano-needless (see sft/configs/nano-parts.yaml) or nano. --test measures on test scenes
# instead. SEEDS names the trainings; TRAIN and SCENES are the numbers of scenes to train and to measure on. For each seed there is
# the same training without distilling, and the distilled model is measured with grey crops too. After an interruption the same
# command continues. Tables, plots and the page are in FOLDER/compared-val or FOLDER/compared-test.
set -euo pipefail
split=val places=() rows=()
for word in "$@"; do
  if [ "$word" = --test ]; then split=test; else places+=("$word"); fi
done
start="${places[0]:-outputs/nano-needless}" folder="${places[1]:-outputs/distill}" seeds="${SEEDS:-7 8 9}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
"$cof" scenes -o "$folder/train" --samples "${TRAIN:-600}" --seed 5 --split train --parts 0.2,0.2,0.2,0.5,1
measure "$folder/zooms" --data "$folder/train" --model "$start" --resolutions 224,448
measure "$folder/plays" --data "$folder/train" --model "$start" --resolutions 224,448 --strategy direct \
  --plays 4 --temperature 1 --seed 1
for share in 1 0.5 0.2; do
  if [ "$split" = val ]; then
    "$cof" scenes -o "$folder/val-$share" --samples "${SCENES:-300}" --seed 1 --split val --parts "$share"
  else
    "$cof" scenes -o "$folder/test-$share" --samples "${SCENES:-300}" --seed 31 --split test --parts "$share"
  fi
done
at() { # NAME MODEL OPTION ...
  local name="$folder/$split/$1"
  measure "$name-1" --data "$folder/$split-1" --resolutions 224,448 --model "${@:2}"
  measure "$name-0.5" --data "$folder/$split-0.5" --resolutions 448 --model "${@:2}"
  measure "$name-0.2" --data "$folder/$split-0.2" --resolutions 448 --model "${@:2}"
  .venv/bin/python scripts/joined.py "$name" "$name-1=1" "$name-0.5=0.5" "$name-0.2=0.2"
  rows+=("$name")
}
at start "$start"
at start-direct "$start" --strategy direct
for seed in $seeds; do
  options=(--config sft/configs/nano-distill.yaml --model "$start" --data "$folder/zooms" --seed "$seed")
  "$cof" sft "${options[@]}" --distill "$folder/plays" -o "$folder/distilled-$seed"
  "$cof" sft "${options[@]}" --distill "" -o "$folder/kept-$seed"
  at "distilled-$seed" "$folder/distilled-$seed"
  at "distilled-$seed-direct" "$folder/distilled-$seed" --strategy direct
  at "distilled-$seed-blank" "$folder/distilled-$seed" --crop blank
  at "kept-$seed" "$folder/kept-$seed"
done
"$cof" compare "${rows[@]}" -o "$folder/compared-$split"
