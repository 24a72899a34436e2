#!/usr/bin/env bash
# How many regions, and how large: CoRoI's accuracy and image tokens with one to three regions, and with single zoom factors, beside the
# overview alone and nine tiles that show the whole picture.
#   bash scripts/coroi.sh [--test] [SEED ...]
# First trains what is missing of the scorers of each seed (default: 7 8 9) in outputs/, for the nano that ships. The scenes are those of
# validation; with --test they are others, which are to be looked at once. After an interruption the same command continues. The
# table is outputs/coroi-val/table.md or outputs/coroi-test/table.md; beside it are its plots.
set -euo pipefail
split=val number=3
if [ "${1:-}" = "--test" ]; then split=test number=32; shift; fi
[ $# -gt 0 ] || set -- 7 8 9
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
python=.venv/bin/python
every=2,3,4,5,6,8,10,16,32
folder="outputs/coroi-$split"
"$cof" scenes -o "$folder/scenes" --samples 200 --seed "$number" --split "$split" --resolutions 448,1024,1920,3840
measure "$folder/overview" --data "$folder/scenes" --model nano --strategy direct
measure "$folder/grid" --data "$folder/scenes" --model nano --strategy grid
for seed in "$@"; do
  "$python" -m sft.papers.coroi --model nano --output "outputs/nano-coroi-$seed" --steps 400 --seed "$seed"
done
shopt -s inherit_errexit # so that `told` ends where a command in it fails
told() { # MODEL REGIONS FACTORS: the model's folder with other numbers of regions and zoom factors
  local copy="$folder/models/$(basename "$1")-$2-${3//,/-}"
  if [ ! -d "$copy" ]; then
    mkdir -p "$folder/models"
    rm -rf "$copy.part" # of an interrupted run
    cp -r "$1" "$copy.part"
    "$python" -c '
import json, sys
path, regions, factors = sys.argv[1:]
config = json.load(open(path)) | {"regions": int(regions), "factors": [int(one) for one in factors.split(",")]}
json.dump(config, open(path, "w"))' "$copy.part/coroi/config.json" "$2" "$3"
    mv "$copy.part" "$copy"
  fi
  echo "$copy"
}
rows=("overview only=$folder/overview" "nine tiles=$folder/grid")
for pair in 1:$every 2:$every 3:$every 2:2 2:4 2:8 2:16; do
  regions="${pair%:*}" factors="${pair#*:}" runs=''
  for seed in "$@"; do
    run="$folder/$seed-$regions-${factors//,/-}"
    model="$(told "outputs/nano-coroi-$seed" "$regions" "$factors")"
    measure "$run" --data "$folder/scenes" --model "$model" --strategy coroi
    runs+=",$run"
  done
  if [ "$factors" = "$every" ]; then name="$regions regions, any factor"; else name="$regions regions, factor $factors"; fi
  rows+=("${name/1 regions/1 region}=${runs#,}")
done
"$python" scripts/seeds_table.py "${rows[@]}" --plots "$folder" | tee "$folder/table.md"
