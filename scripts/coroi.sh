#!/usr/bin/env bash
# How many regions, and how large: CoRoI's accuracy and image tokens with one scorer and other numbers of regions and zoom factors,
# beside the overview alone and the whole picture at full resolution.
#   bash scripts/coroi.sh [--test] MODEL
# MODEL is a folder that sft.papers.coroi wrote. The scenes are those of validation; with --test they are others, which are to be
# looked at once. After an interruption the same command continues. The table is outputs/coroi-val/table.md or outputs/coroi-test/table.md.
set -euo pipefail
split=val number=3
if [ "${1:-}" = "--test" ]; then split=test number=32; shift; fi
[ $# -eq 1 ] || { echo "usage: bash scripts/coroi.sh [--test] MODEL" >&2; exit 2; }
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
model="$1" folder="outputs/coroi-$split"
"$cof" scenes -o "$folder/scenes" --samples 200 --seed "$number" --split "$split" --resolutions 448,1024,1920,3840
measure "$folder/overview" --data "$folder/scenes" --model "$model" --strategy direct
rows=("overview only=$folder/overview")
for regions in 1 2 3; do
  for factors in 2 4 8 16 2,3,4,5,6,8,10,16,32; do
    name="$regions-${factors//,/-}"
    if [ ! -d "$folder/models/$name" ]; then
      mkdir -p "$folder/models"
      rm -rf "$folder/models/$name.part" # of an interrupted run
      cp -r "$model" "$folder/models/$name.part"
      .venv/bin/python -c '
import json, sys
path, regions, factors = sys.argv[1:]
config = json.load(open(path)) | {"regions": int(regions), "factors": [int(one) for one in factors.split(",")]}
json.dump(config, open(path, "w"))' "$folder/models/$name.part/coroi/config.json" "$regions" "$factors"
      mv "$folder/models/$name.part" "$folder/models/$name"
    fi
    measure "$folder/$name" --data "$folder/scenes" --model "$folder/models/$name" --strategy coroi
    rows+=("regions $regions, factors $factors=$folder/$name")
  done
done
.venv/bin/python scripts/seeds_table.py "${rows[@]}" | tee "$folder/table.md"
