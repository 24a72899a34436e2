#!/usr/bin/env bash
# Chain-of-Spot with regions by relevance alone, as the paper makes them, beside true ones: the same scenes, the same steps.
#   bash scripts/spot_labels.sh [SEED]
# Needs outputs/nano-points, of scripts/strategies.sh. The seed is 7 by default; the scenes are those of validation. After an
# interruption the same command continues. The page is outputs/spot-labels/compared.
set -euo pipefail
seed="${1:-7}"
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,dev
. scripts/measure.sh
python=.venv/bin/python
folder=outputs/spot-labels
[ -d outputs/nano-points ] || { echo "spot_labels.sh: outputs/nano-points is missing; scripts/strategies.sh makes it." >&2; exit 2; }
"$cof" scenes -o "$folder/train" --samples 1200 --seed 6 --split train --size 1920x1080
"$cof" spots --data "$folder/train" -o "$folder/relevance"
"$python" scripts/true_spots.py --data "$folder/train" -o "$folder/true"
"$cof" scenes -o "$folder/scenes" --samples 200 --seed 3 --split val --resolutions 448,1024,1920,3840
measure "$folder/overview" --data "$folder/scenes" --model nano --strategy direct
for labels in relevance true; do
  "$python" -m sft.train --config sft/configs/nano-spot.yaml --data "$folder/$labels" --samples 1200 --num-train-epochs 4 \
    --learning-rate 2.0e-4 --seed "$seed" -o "outputs/nano-spot-$labels-$seed"
  measure "$folder/$labels-$seed" --data "$folder/scenes" --model "outputs/nano-spot-$labels-$seed" --strategy spot
done
"$cof" compare "$folder/overview" "$folder/relevance-$seed" "$folder/true-$seed" -o "$folder/compared"
