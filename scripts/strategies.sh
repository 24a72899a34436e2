#!/usr/bin/env bash
# Which part of an image deserves the tokens? Measures four papers' answers on the same scenes at four sizes: the overview alone,
# Chain-of-Spot, CoRoI, Chain-of-Focus after SFT and after RL, and GPT4RoI, which is told the true regions.
#   bash scripts/strategies.sh [MODELS] [FOLDER]
# MODELS is the folder with the models that were trained from nano (cof_agent/strategies/README.md). Each of two processes asks one
# question at a time, so that seconds can be compared. After an interruption the same command continues. Tables, plots and the page
# are in FOLDER/compared.
set -euo pipefail
models="${1:-outputs}" folder="${2:-outputs/strategies}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
"$cof" scenes -o "$folder/scenes" --samples 200 --seed 21 --split test --resolutions 448,1024,1920,3840
"$cof" regions scenes --data "$folder/scenes" -o "$folder/regions"
at() { measure "$folder/$1" --concurrency 1 --data "$folder/$2" --model "$3" --strategy "$4"; }
at overview scenes nano direct
at chain-of-spot scenes "$models/nano-spot-2" spot
at coroi scenes "$models/nano-coroi" coroi
at focus-sft scenes nano focus
at focus-rl scenes "$models/nano-rl" focus
at regions-told regions "$models/nano-regions-4" focus
"$cof" compare "$folder"/{overview,chain-of-spot,coroi,focus-sft,focus-rl,regions-told} -o "$folder/compared"
