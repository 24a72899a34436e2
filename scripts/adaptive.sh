#!/usr/bin/env bash
# Zooms and accuracy before and after RL with a cost for zooms, at several sizes at which the overview shows things: the tables of
# rl/README.md, "Zooming only where it pays".
#   bash scripts/adaptive.sh [--test] [SEED ...]
# First trains what is missing of the start and of the model of each seed (default: 7 8 9) in outputs/, from the nano that ships. The
# scenes are those of validation, on which settings are chosen; with --test they are others, which are to be looked at once. After an
# interruption the same command continues. Tables, plots and the page are in outputs/adaptive-val/compared or
# outputs/adaptive-test/compared.
set -euo pipefail
split=val number=1
if [ "${1:-}" = "--test" ]; then split=test number=31; shift; fi
[ $# -gt 0 ] || set -- 7 8 9
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
python=.venv/bin/python
folder="outputs/adaptive-$split"
"$python" -m sft.nano.ground --model nano --output outputs/nano-reads --part 0.2 --steps 900 --rate 1.5e-3 --seed 8
"$cof" sft --config sft/configs/nano-parts.yaml
"$cof" sft --config sft/configs/nano-parts.yaml --model outputs/nano-parts -o outputs/nano-needless --samples 3200 \
  --plan '{"whole":1,"reading":0,"listing":0,"simple":0,"long_sides":[224,448],"parts":[0.2,0.5,1],"faults":{"needless":0.95}}'
"$cof" scenes -o outputs/rl-parts --samples 400 --seed 2 --split train --parts 0.2,0.2,1
for share in 1 0.5 0.2; do
  "$cof" scenes -o "$folder/scenes-$share" --samples 300 --seed "$number" --split "$split" --parts "$share"
done
at() { # NAME MODEL OPTION ...
  local run="$folder/$1"
  measure "$run-1" --data "$folder/scenes-1" --resolutions 224,448 --model "${@:2}"
  measure "$run-0.5" --data "$folder/scenes-0.5" --resolutions 448 --model "${@:2}"
  measure "$run-0.2" --data "$folder/scenes-0.2" --resolutions 448 --model "${@:2}"
  "$python" scripts/joined.py "$run" "$run-1=1" "$run-0.5=0.5" "$run-0.2=0.2"
}
at before outputs/nano-needless
after='' grey=''
for seed in "$@"; do
  "$cof" rl --config rl/configs/nano-adaptive.yaml --seed "$seed" -o "outputs/nano-adaptive-$seed"
  at "after-$seed" "outputs/nano-adaptive-$seed"
  at "grey-$seed" "outputs/nano-adaptive-$seed" --crop blank
  after+=",$folder/after-$seed" grey+=",$folder/grey-$seed"
done
"$cof" compare "$folder/before" ${after//,/ } -o "$folder/compared"
for figure in accuracy zooms; do
  for by in resolution category; do
    for more in "" --differences; do
      "$python" scripts/seeds_table.py "before=$folder/before" "after=${after#,}" "grey crops=${grey#,}" \
        --figure "$figure" --by "$by" $more | tee "$folder/compared/$figure-by-$by$more.md"
    done
  done
done
