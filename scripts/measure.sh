# The scripts that make tables source this file for `measure`: an evaluation in two processes. `bash scripts/measure.sh FOLDER
# OPTION ...` is one such evaluation.
cof=.venv/bin/cof
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
measure() { # FOLDER OPTION ...: each process answers every other question; the one that ends last prints the table
  local folder="$1"
  shift
  mkdir -p "$folder"
  "$cof" eval -o "$folder" --shard 2/2 "$@" >"$folder.log" 2>&1 &
  "$cof" eval -o "$folder" --shard 1/2 "$@"
  wait $! || { cat "$folder.log"; exit 1; }
  grep -v trajectories "$folder.log" || true
}
if [ "${BASH_SOURCE[0]}" = "$0" ]; then set -euo pipefail && measure "$@"; fi
