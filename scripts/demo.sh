#!/usr/bin/env bash
# Draws a 3840 x 2160 scene, asks nano a question that the overview cannot answer, and shows what nano did.
set -euo pipefail
. "$(dirname "$0")/environment.sh" ""
out=outputs/demo
mkdir -p "$out"
.venv/bin/cof scenes -o "$out/scene" --samples 3 --seed "${SEED:-5}" --split test > /dev/null
# The third scene of a split asks what a sign says: one zoom finds the object, a second zoom reads the sign.
.venv/bin/python - "$out/scene/samples.jsonl" "$out/question.env" <<'PY'
import json, shlex, sys
sample = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")][2]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    for name, value in (("image", sample["image"]), ("question", sample["question"]), ("truth", sample["answers"][0])):
        file.write(f"{name}={shlex.quote(value)}\n")
PY
. "$out/question.env"
echo "$question  ($out/scene/$image)"
echo
.venv/bin/cof ask "$out/scene/$image" "$question" -o "$out"
answer=$(.venv/bin/python -c 'import json, sys; print(json.loads(open(sys.argv[1], encoding="utf-8").readline())["answer"])' "$out/trajectory.jsonl")
echo
if [ "$answer" = "$truth" ]; then echo "Right: the sign says $truth."; else echo "Wrong: the sign says $truth."; fi
