# The scripts that train nano or make tables source this file. `measure` is an evaluation in two processes. `bash scripts/measure.sh FOLDER
# OPTION ...` is one such evaluation.
cof=.venv/bin/cof
# glibc keeps freed memory for the next step of a training: handing it back and asking for it again costs up to half of the time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=10000000000 MALLOC_TOP_PAD_=268435456
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
