#!/usr/bin/env bash
# Accuracy and zooms against the size of the image, as the paper has them: eight sizes of 300 scenes, the overview alone,
# always a zoom, the agent after SFT and after RL, and with grey crops.
#   bash scripts/resolutions.sh [MODEL] [MODEL_AFTER_RL] [FOLDER]
# The same command goes on after an interruption. Tables, plots and the page are in FOLDER/compared.
set -euo pipefail
sft="${1:-nano}" rl="${2:-outputs/nano-rl}" folder="${3:-outputs/resolutions}"
. "$(dirname "$0")/environment.sh" train,api,ray,plot,dev
cof=.venv/bin/cof
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# In this order the odd and the even ones cost the same: the two processes below take every other question.
"$cof" scenes "$folder/scenes" --count 300 --seed 21 --split test --resolutions 224,336,672,448,1024,1920,3840,2560
measure() { # NAME MODEL [OPTION ...]: in two processes, each half of the questions; the last one to end prints the table
  local name="$1" model="$2"
  shift 2
  "$cof" eval --data "$folder/scenes" --model "$model" -o "$folder/$name" --shard 2/2 "$@" >"$folder/$name.log" 2>&1 &
  "$cof" eval --data "$folder/scenes" --model "$model" -o "$folder/$name" --shard 1/2 "$@"
  wait $! || { cat "$folder/$name.log"; exit 1; }
  grep -v trajectories "$folder/$name.log" || true
}
measure focus "$sft"
measure direct "$sft" --strategy direct
measure always-zoom "$sft" --strategy always-zoom
measure focus-rl "$rl"
measure focus-blank "$sft" --crop blank
"$cof" compare "$folder"/{focus,direct,always-zoom,focus-rl,focus-blank} -o "$folder/compared"
