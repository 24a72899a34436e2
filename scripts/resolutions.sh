#!/usr/bin/env bash
# Accuracy and zooms against the size of the image, as the paper has them: eight sizes of 300 scenes, the overview alone,
# always a zoom, the agent after SFT and after RL, and with grey crops.
#   bash scripts/resolutions.sh [MODEL] [MODEL_AFTER_RL] [FOLDER]
# The same command goes on after an interruption. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
sft="${1:-nano}" rl="${2:-outputs/nano-rl}" folder="${3:-outputs/resolutions}"
. "$(dirname "$0")/environment.sh" train,api,ray,plot,dev
cof=.venv/bin/cof
"$cof" scenes "$folder/scenes" --count 300 --seed 21 --split test --resolutions 224,336,448,672,1024,1920,2560,3840
measure() { # NAME MODEL [OPTION ...]
  local name="$1" model="$2"
  shift 2
  "$cof" eval --data "$folder/scenes" --model "$model" -o "$folder/$name" "$@"
}
measure focus "$sft"
measure direct "$sft" --strategy direct
measure always-zoom "$sft" --strategy always-zoom
measure focus-rl "$rl"
measure focus-blank "$sft" --crop blank
"$cof" compare "$folder"/{focus,direct,always-zoom,focus-rl,focus-blank} -o "$folder/compared"
