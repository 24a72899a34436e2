#!/usr/bin/env bash
# Measures accuracy and zooms against the size of the image, as the paper does: 300 scenes at eight sizes, for the overview
# alone, always a zoom, the agent after SFT and after RL, and grey crops.
#   bash scripts/resolutions.sh [MODEL] [MODEL_AFTER_RL] [FOLDER]
# After an interruption the same command continues. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
sft="${1:-nano}" rl="${2:-outputs/nano-rl}" folder="${3:-outputs/resolutions}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
# Each of the two processes takes every other question. In this order of sizes both have the same work.
"$cof" scenes -o "$folder/scenes" --samples 300 --seed 21 --split test --resolutions 224,336,672,448,1024,1920,3840,2560
at() { measure "$folder/$1" --data "$folder/scenes" --model "${@:2}"; }
at focus "$sft"
at direct "$sft" --strategy direct
at always-zoom "$sft" --strategy always-zoom
at focus-rl "$rl"
at focus-blank "$sft" --crop blank
"$cof" compare "$folder"/{focus,direct,always-zoom,focus-rl,focus-blank} --cards 200 -o "$folder/compared"
