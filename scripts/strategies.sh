#!/usr/bin/env bash
# Which part of an image deserves the tokens? Measures four papers' answers on the same scenes at four sizes: the overview alone,
# Chain-of-Spot, CoRoI, Chain-of-Focus after SFT, after RL and with zooms distilled into one look, and GPT4RoI, which knows the true
# regions.
#   bash scripts/strategies.sh [--test] [SEED ...]
# First trains what is missing of the models of each seed (default: 7 8 9) in outputs/, from the nano that ships. The scenes are those
# of validation, on which settings are chosen; with --test they are others, which are to be looked at once. Each of two processes
# asks one question at a time, so that seconds can be compared. After an interruption the same command continues. The page of all runs is
# in outputs/strategies-val/compared or outputs/strategies-test/compared; tables and plots of the means are in seeds/ there.
set -euo pipefail
split=val number=3
if [ "${1:-}" = "--test" ]; then split=test number=34; shift; fi
[ $# -gt 0 ] || set -- 7 8 9
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
python=.venv/bin/python
folder="outputs/strategies-$split"
"$cof" scenes -o "$folder/scenes" --samples 200 --seed "$number" --split "$split" --resolutions 448,1024,1920,3840
"$cof" regions scenes --data "$folder/scenes" -o "$folder/regions"
"$cof" scenes -o outputs/rl --samples 600 --seed 2 --split train
"$python" -m sft.nano.ground --model nano --output outputs/nano-reads --part 0.2 --steps 900 --rate 1.5e-3 --seed 8
"$python" -m sft.nano.ground --model nano --output outputs/nano-points --spot --steps 900 --rate 1e-3 --seed 8
at() { # NAME SCENES MODEL STRATEGY
  measure "$folder/$1" --concurrency 1 --data "$folder/$2" --model "$3" --strategy "$4"
}
at overview scenes nano direct
at focus-sft scenes nano focus
measure outputs/nano-zooms --data outputs/rl --model nano
measure outputs/nano-plays --data outputs/rl --model nano --strategy direct --plays 4 --temperature 1 --seed 1
spot='' coroi='' rl='' distilled='' regions=''
for seed in "$@"; do
  "$python" -m sft.train --config sft/configs/nano-spot.yaml -o "outputs/nano-spot-first-$seed" --seed "$seed"
  "$python" -m sft.train --config sft/configs/nano-spot.yaml --model "outputs/nano-spot-first-$seed" --samples 4800 \
    --seed "1$seed" --plan '{"spot": 0.8, "tokens": 400, "weights": [4, 4, 1]}' -o "outputs/nano-spot-$seed"
  "$python" -m sft.papers.coroi --model nano --output "outputs/nano-coroi-$seed" --steps 400 --seed "$seed"
  "$python" -m sft.papers.region_lessons --model outputs/nano-reads --output "outputs/nano-told-$seed" --steps 800 --seed "$seed"
  "$python" -m sft.papers.gpt4roi --config sft/configs/nano-regions.yaml --stage 2 --model_name_or_path "outputs/nano-told-$seed" \
    --output_dir "outputs/nano-regions-$seed" --seed "$seed" --samples 9600 --zooming 0.7 --learning_rate 5e-4
  "$python" -m rl.train --config rl/configs/nano.yaml --seed "$seed" -o "outputs/nano-rl-$seed" \
    --learning-rate 3.0e-5 --lr-scheduler-type cosine
  "$python" -m sft.train --config sft/configs/nano-distill.yaml --model nano --data outputs/nano-zooms --distill outputs/nano-plays \
    -o "outputs/nano-one-look-$seed" --seed "$seed"
  at "chain-of-spot-$seed" scenes "outputs/nano-spot-$seed" spot
  at "coroi-$seed" scenes "outputs/nano-coroi-$seed" coroi
  at "focus-rl-$seed" scenes "outputs/nano-rl-$seed" focus
  at "one-look-$seed" scenes "outputs/nano-one-look-$seed" focus
  at "regions-told-$seed" regions "outputs/nano-regions-$seed" focus
  spot+=",$folder/chain-of-spot-$seed" coroi+=",$folder/coroi-$seed"
  rl+=",$folder/focus-rl-$seed" distilled+=",$folder/one-look-$seed" regions+=",$folder/regions-told-$seed"
done
"$cof" compare "$folder"/{overview,focus-sft} ${spot//,/ } ${coroi//,/ } ${rl//,/ } ${distilled//,/ } ${regions//,/ } \
  -o "$folder/compared"
mkdir -p "$folder/compared/seeds"
for by in resolution category; do
  "$python" scripts/seeds_table.py "overview only=$folder/overview" "Chain-of-Spot=${spot#,}" "CoRoI=${coroi#,}" \
    "Chain-of-Focus, SFT (nano)=$folder/focus-sft" "Chain-of-Focus, RL from there=${rl#,}" \
    "Chain-of-Focus, distilled from SFT=${distilled#,}" "GPT4RoI, told the true regions=${regions#,}" --by "$by" \
    --plots "$folder/compared/seeds" | tee "$folder/compared/seeds/$by.md"
done
