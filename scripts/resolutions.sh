#!/usr/bin/env bash
# Accuracy and zooms against the size of the image, as the paper has them: eight sizes of 300 scenes, the overview alone,
# always a zoom, the agent after SFT and after RL, and with grey crops.
#   bash scripts/resolutions.sh [MODEL] [MODEL_AFTER_RL] [FOLDER]
# The same command goes on after an interruption. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
sft="${1:-nano}" rl="${2:-outputs/nano-rl}" folder="${3:-outputs/resolutions}"
. "$(dirname "$0")/environment.sh" train,api,ray,plot,dev
. scripts/measure.sh
# In this order the odd and the even ones cost the same: the two processes take every other question.
"$cof" scenes "$folder/scenes" --count 300 --seed 21 --split test --resolutions 224,336,672,448,1024,1920,3840,2560
at() { measure "$folder/$1" --data "$folder/scenes" --model "${@:2}"; }
at focus "$sft"
at direct "$sft" --strategy direct
at always-zoom "$sft" --strategy always-zoom
at focus-rl "$rl"
at focus-blank "$sft" --crop blank
"$cof" compare "$folder"/{focus,direct,always-zoom,focus-rl,focus-blank} -o "$folder/compared"
