#!/usr/bin/env bash
# Questions about text in real pictures, and a teacher's trajectories about them: see cof_agent/ocr/README.md.
#   bash scripts/real.sh [FOLDER]
# Debian's packages are downloaded. After an interruption the same command continues.
set -euo pipefail
folder="${1:-outputs/real}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,ocr,dev
cof=.venv/bin/cof
.venv/bin/python scripts/text_pictures.py -o "$folder" --pages 100 --screens 100
"$cof" data "$folder/pictures" --make text-questions --overview-pixels 150000 -o "$folder/questions"
"$cof" collect --data "$folder/questions" --locator ocr --describer ocr -o "$folder/trajectories"
